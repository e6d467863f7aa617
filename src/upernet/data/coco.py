"""Annotations in the style of COCO: outlines and run lengths in one JSON file, drawn as label maps."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from upernet.data.decoding import MAX_PIXELS
from upernet.errors import UserError
from upernet.labels import IGNORE


@dataclass(frozen=True)
class Shape:
    """The region of one annotation.

    Attributes:
        category: Name of its category.
        area: Its area in pixels as the file gives it; 0 if it does not.
        polygons: Outlines, each (N, 2) float32 of x and y in pixels; the upper left corner of the image is (0, 0).
            Empty if the region is given by run lengths.
        runs: Lengths of the runs of 0 and 1 in turn, column by column, as a list or in COCO's compressed writing; None
            if the region is given by outlines.
    """

    category: str
    area: float
    polygons: tuple[np.ndarray, ...] = ()
    runs: str | tuple[int, ...] | None = None

    def mask(self, size: tuple[int, int]) -> np.ndarray:
        """The region as bool (H, W).

        Raises:
            ValueError: If the run lengths do not fill the image.
        """
        if self.runs is not None:
            return decode_runs(self.runs, size)
        mask = np.zeros(size, bool)
        for polygon in self.polygons:
            fill_polygon(mask, polygon)
        return mask


@dataclass(frozen=True)
class CocoImage:
    """An image of a COCO file.

    Attributes:
        file: Name of the image file, without folders.
        size: Height and width in pixels.
        shapes: Its annotations in the order of the file.
    """

    file: str
    size: tuple[int, int]
    shapes: tuple[Shape, ...]


def read_coco(path: Path) -> Mapping[str, CocoImage]:
    """Read a COCO file. Files are kept in memory, since reading a large one takes long.

    Outlines of fewer than three points enclose nothing and are left out.

    Returns:
        Stem of the image file → the image, in the order of the file.

    Raises:
        UserError: If the file cannot be read, or does not have the entries of COCO's annotations.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _read(path: Path, changed: int) -> Mapping[str, CocoImage]:
    try:
        content = json.loads(path.read_bytes())
        categories = {int(c["id"]): str(c["name"]) for c in content["categories"]}
        shapes: dict[Any, list[Shape]] = {}
        for annotation in content["annotations"]:
            shapes.setdefault(annotation["image_id"], []).append(_shape(annotation, categories))
        images = {}
        for image in content["images"]:
            file = str(image["file_name"]).replace("\\", "/").rpartition("/")[2]
            size = (int(image["height"]), int(image["width"]))
            if not (min(size) > 0 and size[0] * size[1] <= MAX_PIXELS):
                raise ValueError(f"image {file} of {size[1]}×{size[0]} pixels; at most {MAX_PIXELS:,} are read")
            images[Path(file).stem] = CocoImage(file, size, tuple(shapes.get(image["id"], ())))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        problem = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(
            f"{path}: no annotations of COCO ({problem}); expected images, annotations and categories"
        ) from error
    return images


def _shape(annotation: Mapping[str, Any], categories: Mapping[int, str]) -> Shape:
    category, area = categories[int(annotation["category_id"])], float(annotation.get("area", 0))
    region = annotation["segmentation"]
    if isinstance(region, Mapping):
        counts = region["counts"]
        return Shape(category, area, runs=counts if isinstance(counts, str) else tuple(map(int, counts)))
    polygons = (np.asarray(numbers, np.float32).reshape(-1, 2) for numbers in region)
    return Shape(category, area, polygons=tuple(p for p in polygons if len(p) > 2 and np.isfinite(p).all()))


def draw(shapes: Iterable[Shape], size: tuple[int, int], ids: Mapping[str, int], path: Path) -> np.ndarray:
    """Draw shapes one over the other, in the order given.

    Args:
        shapes: The shapes; later ones hide earlier ones.
        size: Height and width in pixels.
        ids: Category → label id.
        path: The annotation file, for the error line.

    Returns:
        (H, W) int16, `IGNORE` where nothing is drawn.

    Raises:
        UserError: If a category has no label, or run lengths do not fill the image.
    """
    labels = np.full(size, IGNORE, np.int16)
    for shape in shapes:
        if shape.category not in ids:
            raise UserError(f"{path}: category {shape.category!r} is no label; valid: {', '.join([*ids][:8])}, …")
        try:
            labels[shape.mask(size)] = ids[shape.category]
        except ValueError as error:
            raise UserError(f"{path}: a region of {shape.category!r} cannot be drawn ({error})") from error
    return labels


def fill_polygon(mask: np.ndarray, polygon: np.ndarray) -> None:
    """Set the pixels of a bool mask (H, W) whose centres lie inside a polygon.

    Neighbours with a common edge share no pixel and leave none out; an outline that crosses itself is filled by the
    even-odd rule. Functions that draw the outline too, such as OpenCV's, would make regions larger.

    Args:
        mask: Changed in place.
        polygon: (N, 2) of x and y in pixels; the centre of the first pixel is (0.5, 0.5).
    """
    height, width = mask.shape
    start = polygon.astype(np.float64)
    end = np.roll(start, -1, axis=0)
    low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    # An edge crosses the centres of the rows first to last - 1.
    first = np.clip(np.ceil(low - 0.5), 0, height).astype(np.int64)
    last = np.clip(np.ceil(high - 0.5), 0, height).astype(np.int64)
    counts = np.maximum(last - first, 0)
    if not counts.any():
        return
    edge = np.repeat(np.arange(len(polygon)), counts)
    row = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts) + first[edge]
    (x0, y0), (x1, y1) = start[edge].T, end[edge].T
    crossing = x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0)
    column = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
    top, left = row.min(), column.min()
    rows, columns = row.max() - top + 1, column.max() - left + 1
    flips = np.bincount((row - top) * columns + column - left, minlength=rows * columns).reshape(rows, columns)
    inside = flips.cumsum(axis=1) % 2 == 1
    inside = inside[:, : width - left]
    mask[top : top + rows, left : left + inside.shape[1]] |= inside


def decode_runs(runs: str | Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """Decode COCO's run lengths.

    Args:
        runs: Lengths of the runs of 0 and 1 in turn, column by column, as numbers or in COCO's compressed writing.
        size: Height and width in pixels.

    Returns:
        bool (H, W).

    Raises:
        ValueError: If the runs do not fill the image.
    """
    lengths = np.asarray(_decompress(runs) if isinstance(runs, str) else runs, np.int64)
    if (lengths < 0).any() or lengths.sum() != math.prod(size):
        raise ValueError(f"run lengths of {lengths.sum():,} pixels for {size[1]}×{size[0]}")
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape(size[1], size[0]).T


def _decompress(text: str) -> list[int]:
    """Run lengths from COCO's compressed writing.

    A character carries five bits, lowest first; a sixth bit tells that the number goes on, and the last of the five in
    its last character is the sign. From the fourth number on, it is the difference from the number two before it.
    """
    numbers: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"character {character!r} in compressed run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("compressed run lengths end in the middle of a number")
    return numbers
