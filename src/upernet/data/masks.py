"""Label maps: image files read as class ids. An id is the number that the file stores, or the file is refused."""

from __future__ import annotations

import io
import re
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from upernet.data.decoding import one_line, open_file, open_png
from upernet.errors import UserError

_ADVICE = "save the label map as a grey or palette PNG"


def read_mask(path: str | Path) -> np.ndarray:
    """Read a label map: the numbers stored in the file, whatever colours they are shown in.

    Palette images give their indices, 1- to 16-bit grey images their stored samples, and colour images whose channels
    are equal one of these channels (alpha is ignored). Nothing is rotated, since cameras write no label maps.

    Returns:
        (H, W), int16 from files of up to 8 bits and int32 from others.

    Raises:
        UserError: If the file cannot be decoded, holds colours or fractions instead of ids, or is of a kind whose
            samples cannot be read as they are stored.
    """
    with open_file(path) as image, one_line(path):
        altered = _altered_samples(path, image)
        if altered:
            raise UserError(f"{path}: holds {altered}, which cannot be read as stored; {_ADVICE}")
        layout = _sample_layout(image)
        if image.format == "PNG" and layout in ("LA;16B", "RGB;16B", "RGBA;16B"):
            values = _read_16_bit_colours(path, image)
        else:
            values = _read_samples(path, image)
        stretched = re.fullmatch("L;([24])I?R?", layout)
        if stretched:  # Pillow stretches 2- and 4-bit grey to 0..255
            values = values // (255 // (2 ** int(stretched[1]) - 1))
        return values.astype(np.int16 if values.itemsize == 1 else np.int32)


def _sample_layout(image: Image.Image) -> str:
    """The layout of the file's samples in Pillow's terms, such as `RGB;16B`; empty if Pillow does not tell it."""
    tiles = getattr(image, "tile", [])
    arguments = tiles[0][3] if tiles else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _read_samples(path: str | Path, image: Image.Image) -> np.ndarray:
    """The ids (H, W) of a file that Pillow decodes, in the type of its samples.

    Raises:
        UserError: If it holds something other than ids.
    """
    png = open_png(path, image)
    stored = None if png is None else png.stored()
    if stored is not None:
        image = Image.open(io.BytesIO(stored), formats=["PNG"])
    image.load()
    values = np.asarray(image)
    if image.mode in ("RGB", "RGBA", "RGBX"):
        return _equal_channels(path, values)
    if image.mode in ("LA", "PA"):
        return values[..., 0]
    if image.mode == "F" and not ((np.abs(values) < 2**31) & (values == np.round(values))).all():
        raise UserError(f"{path}: holds fractions; a label map holds whole class ids, as a grey or palette PNG")
    if image.mode not in ("1", "L", "P", "F") and not image.mode.startswith("I"):
        raise UserError(f"{path}: mode {image.mode} is no label map; use a palette or grey PNG")
    return values


def _read_16_bit_colours(path: str | Path, image: Image.Image) -> np.ndarray:
    """The ids (H, W) uint16 of a PNG of 16-bit colours, of which Pillow would keep only the upper bytes.

    Raises:
        UserError: If it is damaged or holds colours, or if OpenCV and Pillow decode different pixels.
    """
    image.load()  # raises if the file is damaged
    upper = np.asarray(image)[..., :3]
    decoded = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is not None and decoded.dtype == np.uint16:
        colours = decoded[..., 2::-1].astype(np.uint16)  # from BGR, perhaps with alpha
    else:
        colours = np.empty(0, np.uint16)
    if not np.array_equal(colours >> 8, upper):
        raise UserError(f"{path}: holds 16-bit colours, which cannot be read as stored; {_ADVICE}")
    return _equal_channels(path, colours)


def _equal_channels(path: str | Path, pixels: np.ndarray) -> np.ndarray:
    """One channel (H, W) of pixels (H, W, C) whose red, green and blue are equal.

    Raises:
        UserError: If they differ; the line names the first such pixel.
    """
    unequal = (pixels[..., :3] != pixels[..., :1]).any(-1)
    if unequal.any():
        y, x = np.argwhere(unequal)[0]
        colour = tuple(int(v) for v in pixels[y, x, :3])
        raise UserError(
            f"{path}: holds colour {colour} at row {y}, column {x}; a label map holds class ids: "
            "palette PNG, grey PNG, or equal channels"
        )
    return pixels[..., 0]


def _altered_samples(path: str | Path, image: Image.Image) -> str | None:
    """The kind of samples that Pillow would shorten or stretch silently; None if it gives them as they are stored."""
    layout = _sample_layout(image)
    if layout.startswith("RGBa"):
        return "colours that are multiplied by their alpha"
    if image.format == "TIFF":
        bits = max(getattr(image, "tag_v2", {}).get(258, (1,)))
        return f"colours of {bits} bits" if bits > 8 and image.mode[0] not in "IF" else None
    if image.format == "BMP":
        return "colours of 5 or 6 bits" if layout in ("BGR;15", "BGR;16") else None
    if image.format == "PPM":
        codec, _, _, arguments = image.tile[0]  # type: ignore[attr-defined]
        largest = arguments[1] if codec != "raw" and image.mode != "1" else None
        exact = largest in (None, 65535 if image.mode == "I" else 255)
        return None if exact else f"samples from 0 to {largest}"
    if image.format == "JPEG2000":
        kinds = _jpeg2000_components(Path(path).read_bytes())
        return None if set(kinds) == {8} or kinds == [16] else f"components of {', '.join(map(str, kinds))} bits"
    if image.format == "AVIF":
        content = Path(path).read_bytes()
        high_depth = content[content.index(b"av1C") + 6] & 0x40
        return "samples of 10 or 12 bits" if high_depth else None
    return None


def _jpeg2000_components(content: bytes) -> list[int]:
    """Bits of each component of a JPEG 2000 file, negative where they are signed."""
    start = content.index(b"\xff\x4f\xff\x51") + 40  # a codestream begins with its sizes
    count = int.from_bytes(content[start : start + 2])
    precisions = content[start + 2 : start + 2 + 3 * count : 3]
    return [-((p & 0x7F) + 1) if p & 0x80 else p + 1 for p in precisions]
