"""Predicted maps as PNG files, in the numbering that each benchmark's server or toolkit reads."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from upernet.data.mixture import Supervision
from upernet.errors import UserError
from upernet.files import write_whole
from upernet.labels import ClassSets
from upernet.vocabulary import vocabulary

CITYSCAPES_IDS = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
"""Class → label id of the Cityscapes server, which is not the position among the 19 classes (train id)."""


def numbering(sets: ClassSets) -> tuple[str, np.ndarray]:
    """How a source's maps are numbered.

    The 19 labels of Cityscapes get its label ids, the 150 of ADE20K their position from 1 (0 is "no label"), and those
    of any other source their ids there; a group gets the number of the first label that uses it.

    Returns:
        `cityscapes`, `ade20k` or `own`; and the (G + 1,) int64 number of each group, the last for `IGNORE`.
    """
    first = [sets.members.index(group) for group in sets.groups]
    if set(sets.labels) == set(CITYSCAPES_IDS):
        return "cityscapes", np.array([*(CITYSCAPES_IDS[sets.labels[i]] for i in first), 0])
    ade20k = list(vocabulary("ade20k"))
    if set(sets.labels) == set(ade20k):
        return "ade20k", np.array([*(ade20k.index(sets.labels[i]) + 1 for i in first), 0])
    return "own", np.array([*first, 255 if len(sets.labels) <= 255 else 65535])


def file_name(kind: str, item: str) -> str:
    """Name of an image's file, without folder for Cityscapes and ADE20K.

    Args:
        kind: `cityscapes`, `ade20k` or `own`.
        item: The image's id, such as `frankfurt/frankfurt_000000_000294_leftImg8bit`.

    Raises:
        UserError: If a Cityscapes image's id does not hold `<city>_<sequence>_<frame>`, by which the server knows it.
    """
    parts = [part for part in item.split("/") if part not in ("", ".", "..")]
    if kind == "cityscapes":
        found = re.search(r"[^/_]+_[0-9]{6}_[0-9]{6}", item)
        if not found:
            raise UserError(f"image {item!r} has no name of Cityscapes; for example frankfurt_000000_000294")
        return f"{found[0]}_predicted.png"
    return f"{parts[-1] if kind == 'ade20k' else '/'.join(parts)}.png"


def writer(folder: Path, source: str) -> Callable[[str, str, Supervision, Tensor], None]:
    """What writes a source's predicted maps to `<folder>/<source>/<task>/`.

    Returns:
        A function of an image's id, the task, its supervision, and the predicted groups (H, W) int64.
    """
    numbers = cache(numbering)

    def save(item: str, task: str, supervision: Supervision, groups: Tensor) -> None:
        kind, number = numbers(supervision.sets)
        values = number[groups.cpu().numpy()]  # IGNORE is -1, the last
        picture = Image.fromarray(values.astype(np.uint8 if number.max() <= 255 else np.uint16))
        path = folder / _plain(source) / _plain(task) / file_name(kind, item)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda file: picture.save(file, format="PNG"))

    return save


def _plain(name: str) -> str:
    """A name as part of a path: a downloaded model must not choose folders."""
    return re.sub(r"[^\w-]", "_", name)
