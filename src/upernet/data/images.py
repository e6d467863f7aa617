"""Image files: photographs as 8-bit RGB, label maps as class ids, and which files a command line means.

Pillow decodes, and OpenCV plain PNG photographs, which takes it less time. Everything a file can be wrong about becomes
one line that starts with the file's name.
"""

from __future__ import annotations

import glob
import io
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from upernet.data.png import Png
from upernet.errors import UserError

MAX_PIXELS = 178_956_970
"""Largest width × height decoded (Pillow's own limit; half a gigabyte of RGB). Larger headers are refused unread."""

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif"),
)
"""What a folder is searched for, whatever the case. A file named outright may have any suffix."""

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
"""Pillow readers allowed; the others are rare, and one of them (EPS) runs another program."""

_LIMIT = f"at most {MAX_PIXELS:,} are read"
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

# Pillow stretches 2- and 4-bit grey to 0..255; a label map means the stored samples.
_STRETCH = {"L;2": 85, "L;4": 17}


@dataclass(frozen=True)
class Photograph:
    """A photograph that may not be decoded yet: which rows are wanted is known only when its crop has been chosen.

    Attributes:
        size: Height and width, upright.
        decode: Number of rows → (H, W, 3) uint8 RGB, of which at least so many, from the top, are the photograph's.
            Raises `UserError` if the file is found to be damaged so far.
    """

    size: tuple[int, int]
    decode: Callable[[int], np.ndarray]

    @classmethod
    def of(cls, pixels: np.ndarray) -> Photograph:
        """One that is decoded: (H, W, 3) uint8 RGB."""
        return cls((pixels.shape[0], pixels.shape[1]), partial(_given, pixels))

    @property
    def pixels(self) -> np.ndarray:
        """All of it."""
        return self.decode(self.size[0])


def _given(pixels: np.ndarray, rows: int) -> np.ndarray:
    return pixels


def open_image(path: str | Path) -> Photograph:
    """Look at a photograph; if it is a plain PNG, its pixels are read later.

    Raises:
        UserError: As `read_image`.
    """
    with _open(path) as image:
        png = _png(path, image)
        if png is None or not png.is_plain:
            return Photograph.of(np.array(to_rgb(image)))
    return Photograph(png.size, partial(_decode, path, png))


def _decode(path: str | Path, png: Png, rows: int) -> np.ndarray:
    with _one_line(path):
        stored = png.stored(rows)
        decoded = None if stored is None else cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_COLOR_RGB)
        if decoded is None:
            with _open(path) as image:  # tells what is wrong
                return np.array(to_rgb(image))
        if rows == png.size[0]:
            return np.asarray(decoded)
        pixels = np.zeros((*png.size, 3), np.uint8)
        pixels[:rows] = decoded
        return pixels


def read_image(path: str | Path) -> np.ndarray:
    """Read a photograph.

    Args:
        path: Any file Pillow decodes, of at most `MAX_PIXELS` pixels. Of an animation, the first frame.

    Returns:
        (H, W, 3) uint8 RGB, upright (see `to_rgb`).

    Raises:
        UserError: If there is no such file or it cannot be decoded; the line starts with the path.
    """
    return open_image(path).pixels


def to_rgb(image: Image.Image) -> Image.Image:
    """An upright 8-bit RGB picture from a Pillow image of any mode.

    EXIF orientation is applied. Transparent pixels show white, as on a page. 16-bit grey is divided by 257, not
    clipped. 32-bit grey and floating point run up to 65535 and 1; where the brightest value is higher, floats are taken
    as 0..255 if they fit, and otherwise the brightest value becomes white. Negative values and NaN are black. What is
    such a picture already is returned itself.

    Raises:
        UserError: If the pixels cannot be decoded or converted.
    """
    with _one_line(getattr(image, "filename", "") or "image"):
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
    with _open(path) as image:
        return image.size


def read_mask(path: str | Path) -> np.ndarray:
    """Read a label map: the numbers stored in the file, whatever colours they are shown in.

    Palette images give indices, 1- to 16-bit grey the stored samples, colour images whose channels are equal that
    channel (alpha is ignored). Nothing is rotated: a camera wrote no label map.

    Returns:
        (H, W), int16 from files of up to 8 bits and int32 from others.

    Raises:
        UserError: If the file cannot be decoded or holds colours, or fractions, instead of ids.
    """
    with _open(path) as image, _one_line(path):
        png = _png(path, image)
        quick = None if png is None else png.stored()
        if quick is not None:
            image = Image.open(io.BytesIO(quick), formats=["PNG"])
        tiles = getattr(image, "tile", [])
        stored = tiles[0][3] if tiles else ""
        image.load()
        values = np.asarray(image)
        if image.mode in ("RGB", "RGBA", "RGBX"):
            values = values[..., :3]
            unequal = (values != values[..., :1]).any(-1)
            if unequal.any():
                y, x = np.argwhere(unequal)[0]
                colour = tuple(int(v) for v in values[y, x])
                raise UserError(
                    f"{path}: holds colour {colour} at row {y}, column {x}; a label map holds class ids: "
                    "palette PNG, grey PNG, or equal channels"
                )
            values = values[..., 0]
        elif image.mode in ("LA", "PA"):
            values = values[..., 0]
        elif image.mode == "F":
            if not (np.isfinite(values) & (values == np.round(values))).all():
                raise UserError(f"{path}: holds fractions; a label map holds whole class ids, as a grey or palette PNG")
        elif image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
            raise UserError(f"{path}: mode {image.mode} is no label map; use a palette or grey PNG")
        ids = values.astype(np.int16 if values.itemsize == 1 else np.int32)
        stretch = _STRETCH.get(str(stored), 1)
        return ids if stretch == 1 else ids // stretch


def find_images(inputs: Sequence[str | Path]) -> tuple[dict[Path, Path], list[UserError]]:
    """The image files that files, folders and globs stand for.

    Folders are searched to any depth for `SUFFIXES`, in sorted order, leaving out hidden files and folders; so are the
    matches of a glob (`**` reaches any depth). A file named outright is taken whatever its suffix. A file met twice
    counts once.

    Returns:
        Each image with its place below the input it came from (`photos/` holding `a/b.jpg` gives `a/b.jpg`, a file
        gives its name); and one error for each input that holds no image or does not exist.
    """
    found: dict[Path, Path] = {}
    errors: list[UserError] = []
    met: set[str] = set()
    for given in inputs:
        try:
            root, paths = _expand(given, errors)
        except UserError as error:
            errors.append(error)
        except OSError as error:  # a name too long, a parent that may not be entered
            errors.append(UserError(f"{given}: {error.strerror}"))
        else:
            for path in paths:
                place = os.path.abspath(path)
                if place not in met:
                    met.add(place)
                    # A pattern may climb ('*/../x.jpg'), a place never does.
                    found[path] = Path(*(part for part in path.relative_to(root).parts if part != ".."))
    return found, errors


def _expand(given: str | Path, errors: list[UserError]) -> tuple[Path, list[Path]]:
    """One input's images and the folder their places are told from; folders that cannot be listed go to `errors`."""
    path = Path(given)
    if path.is_dir():
        unreadable: list[OSError] = []
        images = [file for file in _walk(path, unreadable) if file.suffix.lower() in SUFFIXES]
        errors += [UserError(f"{error.filename}: {error.strerror}") for error in unreadable]
        if not images and not unreadable:
            raise UserError(f"{given}: no image in this folder; looked for {', '.join(SUFFIXES)}")
        return path, images
    if path.exists():
        return path.parent, [path]
    if glob.has_magic(str(given)):
        matches = (Path(match) for match in sorted(glob.glob(str(given), recursive=True)))
        images = [match for match in matches if match.suffix.lower() in SUFFIXES and match.is_file()]
        if not images:
            raise UserError(f"{given}: matches no image; try a pattern such as 'photos/*.jpg'")
        return _fixed_part(path), images
    raise UserError(f"{given}: no such file or folder")


@contextmanager
def _open(path: str | Path) -> Iterator[Image.Image]:
    """An image whose header is read and found sane, its pixels not yet decoded."""
    file = Path(path)
    with _one_line(path):
        if file.is_dir():
            raise UserError(f"{path}: a folder; expected an image file")
        if not file.exists():
            raise UserError(f"{path}: no such file")
        # A pipe would block and a device never end.
        if not file.is_file():
            raise UserError(f"{path}: not a regular file; expected an image file")
        if file.stat().st_size == 0:
            raise UserError(f"{path}: empty file (0 bytes); expected an image")
        Image.init()
        image = Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])
    with image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise UserError(f"{path}: {width * height:,} pixels; {_LIMIT}")
        yield image


def _png(path: str | Path, image: Image.Image) -> Png | None:
    """The file of an opened image, if it is a PNG that can be decompressed without Pillow."""
    if image.format != "PNG":
        return None
    with _one_line(path):
        return Png.of(Path(path).read_bytes())


class _Quiet:
    """No warnings while any thread decodes: filters are the process's, so the last to leave restores them."""

    def __init__(self) -> None:
        self.lock, self.inside, self.filters = threading.Lock(), 0, warnings.catch_warnings()

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.filters = warnings.catch_warnings()
                self.filters.__enter__()
                warnings.simplefilter("ignore")
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self.filters.__exit__(None, None, None)


_QUIET = _Quiet()


@contextmanager
def _one_line(name: str | Path) -> Iterator[None]:
    """Turn whatever a decoder raises into one line, and keep its warnings off the screen."""
    try:
        with _QUIET:
            yield
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(
            f"{name}: not an image that can be read; valid are JPEG, PNG, WebP, TIFF, BMP, GIF, …"
        ) from None
    except Image.DecompressionBombError as error:
        count = re.search(r"[0-9]+", str(error))
        raise UserError(f"{name}: {int(count[0]) if count else MAX_PIXELS + 1:,} pixels; {_LIMIT}") from None
    except Exception as error:  # broken files reach every corner of a decoder: no list of types is complete
        told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = " ".join(told.split()) or type(error).__name__
        raise UserError(f"{name}: cannot be read as an image ({reason})") from error


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) if there is none or the block is broken: no reason to lose the photograph."""
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


def _walk(root: Path, unreadable: list[OSError]) -> Iterator[Path]:
    for folder, below, files in os.walk(root, onerror=unreadable.append):
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(files) if not name.startswith("."))


def _fixed_part(pattern: Path) -> Path:
    """The folder in front of a pattern's first wildcard."""
    parts = pattern.parts[:-1]
    fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return Path(*parts[:fixed])
