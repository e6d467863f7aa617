"""Opening image files. Whatever is wrong with a file becomes one error line that starts with the file's name."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from upernet.data.png import Png
from upernet.errors import UserError

MAX_PIXELS = 178_956_970
"""Most pixels of an image, width × height (Pillow's own limit; half a gigabyte of RGB). A file whose header claims more
is refused before it is decoded."""

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
"""Allowed readers of Pillow. The others are rare, and one of them (EPS) runs another program."""

_LIMIT = f"at most {MAX_PIXELS:,} are read"


@contextmanager
def open_file(path: str | Path) -> Iterator[Image.Image]:
    """Open an image file and check its header. Pixels are decoded later; the file stays open within the block.

    Raises:
        UserError: If there is no such file, or it is no image of at most `MAX_PIXELS` pixels.
    """
    file = Path(path)
    with one_line(path):
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


def open_png(path: str | Path, image: Image.Image) -> Png | None:
    """The PNG of an opened image, or None if the file is no PNG that `Png` can decompress."""
    if image.format != "PNG":
        return None
    with one_line(path):
        return Png.parse(Path(path).read_bytes())


class _Quiet:
    """Silences warnings while any thread decodes. Filters belong to the process, so the last thread restores them."""

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
def one_line(name: str | Path) -> Iterator[None]:
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
        message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = " ".join(message.split()) or type(error).__name__
        raise UserError(f"{name}: cannot be read as an image ({reason})") from error
