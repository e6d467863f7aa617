"""From the label maps of an owner to those of Broden+: sizes, classes, and one map of all parts."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from upernet.data.sets.broden_plus.tables import UNLABELLED_PART, channel_of_part, class_of_raw_label
from upernet.errors import UserError

Size = tuple[int, int]
"""Height and width in pixels."""

SHORTEST = 512
"""The shorter side to which larger images of ADE20K and OpenSurfaces are shrunk."""


def shrunk_size(size: Size) -> Size:
    """The size of an image of ADE20K or OpenSurfaces in Broden+, whose shorter side has at most `SHORTEST` pixels."""
    shorter = min(size)
    if shorter <= SHORTEST:
        return size
    height, width = (SHORTEST if side == shorter else round(side / shorter * SHORTEST) for side in size)
    return height, width


def shrink_image(pixels: np.ndarray, size: Size) -> np.ndarray:
    """An image (H, W, 3) uint8 at a size, bilinear without smoothing, as the authors shrink it."""
    return np.asarray(cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_LINEAR))


def resize_labels(values: np.ndarray, size: Size) -> np.ndarray:
    """A label map or its coded colours, (H, W) or (H, W, C), at a size; the value of the nearest pixel."""
    if values.shape[:2] == size:
        return values
    return np.asarray(cv2.resize(values, size[::-1], interpolation=cv2.INTER_NEAREST))


def check_size(path: Path, values: np.ndarray, size: Size, image: Path) -> None:
    """Refuse a label map that has not the size of its image.

    Raises:
        UserError: In one line with both sizes.
    """
    if values.shape[:2] != size:
        height, width = values.shape[:2]
        raise UserError(f"{path}: {width}×{height} pixels for an image of {size[1]}×{size[0]} ({image.name})")


def to_classes(raw: np.ndarray, subset: str, category: str, path: Path) -> np.ndarray:
    """Raw labels (H, W) as classes of Broden+, uint16 (H, W); 0 is unlabelled.

    Raises:
        UserError: If a raw label is none that the subset has.
    """
    table = class_of_raw_label(subset, category)
    if raw.max(initial=0) >= len(table):
        raise UserError(f"{path}: value {raw.max()} is no label; valid: 0 to {len(table) - 1}")
    return table[raw]


def part_map(objects: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """One map of the parts of all objects (SPEC E4).

    Inside an object that has parts, a pixel holds the channel of its part on this object: the object's first channel
    where it is no part of the object's list. An object of which no real part is seen in the image is left unlabelled:
    nobody may have looked for its parts.

    Args:
        objects: Classes of objects (H, W), 0 where unlabelled.
        parts: Names of parts (H, W) as positions in the list of 153; 0 is the background.

    Returns:
        uint16 (H, W): 0 to 426, and `UNLABELLED_PART` everywhere else.
    """
    channels = channel_of_part()
    answer = channels[objects, parts]
    is_real = answer != channels[objects, 0]
    is_learned = np.zeros(len(channels), bool)
    is_learned[objects[is_real]] = True
    answer[~is_learned[objects]] = UNLABELLED_PART
    return answer
