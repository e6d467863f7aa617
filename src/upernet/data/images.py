"""Photographs: image files of any kind as 8-bit RGB.

Pillow decodes them. Plain PNG files are decoded by OpenCV, which takes less time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from upernet.data.decoding import one_line, open_file, open_png
from upernet.data.png import Png

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Photograph:
    """A photograph that may not be decoded yet, since the rows that are needed are known only once a crop is chosen.

    Attributes:
        size: Height and width of the upright photograph.
        decode: Takes a number of rows and returns the pixels (H, W, 3) uint8 RGB. At least that many rows from the top
            are decoded; the others may be black. Raises `UserError` if the file is damaged there.
    """

    size: tuple[int, int]
    decode: Callable[[int], np.ndarray]

    @classmethod
    def from_pixels(cls, pixels: np.ndarray) -> Photograph:
        """A photograph that is decoded already.

        Args:
            pixels: (H, W, 3) uint8 RGB.
        """
        return cls((pixels.shape[0], pixels.shape[1]), partial(_decoded_already, pixels))

    @property
    def pixels(self) -> np.ndarray:
        """All pixels, (H, W, 3) uint8 RGB.

        Raises:
            UserError: If the file is damaged.
        """
        return self.decode(self.size[0])


def _decoded_already(pixels: np.ndarray, rows: int) -> np.ndarray:
    return pixels


def open_image(path: str | Path) -> Photograph:
    """Open a photograph. The pixels of a plain PNG are decoded later, those of other files now.

    Raises:
        UserError: As `read_image`.
    """
    with open_file(path) as image:
        png = open_png(path, image)
        if png is None or not png.is_plain:
            return Photograph.from_pixels(np.array(to_rgb(image)))
    return Photograph(png.size, partial(_decode, path, png))


def _decode(path: str | Path, png: Png, rows: int) -> np.ndarray:
    with one_line(path):
        stored = png.stored(rows)
        decoded = None if stored is None else cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_COLOR_RGB)
        if decoded is None:
            with open_file(path) as image:  # Pillow tells what is wrong
                return np.array(to_rgb(image))
        if rows == png.size[0]:
            return np.asarray(decoded)
        pixels = np.zeros((*png.size, 3), np.uint8)
        pixels[:rows] = decoded
        return pixels


def read_image(path: str | Path) -> np.ndarray:
    """Read a photograph.

    Args:
        path: Any image file of at most `MAX_PIXELS` pixels that Pillow decodes. Of an animation, the first frame is
            read.

    Returns:
        (H, W, 3) uint8 RGB, upright (see `to_rgb`).

    Raises:
        UserError: If there is no such file or it cannot be decoded; the line starts with the path.
    """
    return open_image(path).pixels


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a Pillow image of any mode to an upright 8-bit RGB picture.

    EXIF orientation is applied. Transparent pixels show white, as on a page. 16-bit grey is divided by 257, not
    clipped. White is 65535 in 32-bit grey and 1 in floating point. Where the brightest value is higher, white is 255 in
    floating point if all values fit, and otherwise the brightest value. Negative values and NaN become black. An image
    that is such a picture already is returned itself.

    Raises:
        UserError: If the pixels cannot be decoded or converted.
    """
    with one_line(getattr(image, "filename", "") or "image"):
        image.load()
        if image.mode.startswith("I") or image.mode == "F":
            rgb = Image.fromarray(_to_8_bit(np.asarray(image))).convert("RGB")
        elif image.has_transparency_data:
            rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
            page = Image.new("RGBA", image.size, "white")
            page.alpha_composite(rgba)
            rgb = page.convert("RGB")
        else:
            rgb = image if image.mode == "RGB" else image.convert("RGB")
        upright = _UPRIGHT.get(_orientation(image))
        return rgb if upright is None else rgb.transpose(upright)


def image_size(path: str | Path) -> tuple[int, int]:
    """(width, height) from a file's header; nothing is decoded or rotated.

    Raises:
        UserError: If there is no such file or it is no image.
    """
    with open_file(path) as image:
        return image.size


def upright_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of an upright photograph, from its file's header; nothing is decoded.

    Raises:
        UserError: If there is no such file or it is no image.
    """
    with open_file(path) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation; 1 (upright) if there is none or it is damaged, which is no reason to refuse the photograph."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        return 1


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    """(H, W) integers or floats of a wide range as uint8; `to_rgb` tells how."""
    integers = values.dtype.kind in "iu"
    values = np.nan_to_num(values.astype(np.float32), nan=0, posinf=0, neginf=0).clip(min=0)
    peak = values.max(initial=0)
    white = next((top for top in ((65535,) if integers else (1, 255)) if peak <= top), peak)
    return np.round(values * (255 / white)).astype(np.uint8)
