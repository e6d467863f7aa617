"""What Broden+ consists of: its lists of classes, which raw label is which class, and its official splits."""

from __future__ import annotations

import csv
import json
from bisect import bisect_right
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np

from upernet.labels import part_names

SUBSETS = ("ade20k", "pascal", "opensurfaces", "dtd")
"""The four collections of images, in the order of every list and table."""
UNLABELLED_PART = 65535
"""Pixel value of part maps where no part is learned."""
HIGHEST = {
    ("ade20k", "object"): 3148,
    ("ade20k", "part"): 3148,
    ("pascal", "object"): 459,
    ("opensurfaces", "material"): 45,
}
"""Highest raw label of a label map as published: of ADE20K in its release of 2016."""
ADE20K_TRAIN, ADE20K_VAL = 20210, 2000
"""Images of the original splits of ADE20K. Broden+ numbers those of train first, and then those of val."""


class ClassLists(TypedDict):
    """Class names in the order of the released heads' channels.

    A name occurs once in its list (and a part once in its object), so no name had to be changed.
    """

    object: list[str]
    """336 names; the first, `-`, stands for "unlabelled" and is never a target."""
    part: dict[str, list[str]]
    """77 objects → names of their parts, without the background, which is the first of each object's channels: 350
    parts and 77 backgrounds are 427 channels."""
    part_names: list[str]
    """153 names; the first, `-`, is the background. Parts of different objects share a name; seven names belong to no
    object."""
    material: list[str]
    """26 names; the first, `-`, stands for "unlabelled" and is never a target."""
    scene: list[str]
    """365 names of Places."""
    texture: list[str]
    """47 names of the Describable Textures Dataset."""


def broden_plus() -> ClassLists:
    """The classes of Broden+: objects, parts by object, materials, scenes and textures."""
    content: ClassLists = json.loads(_read("classes.json"))
    return content


class Assigned(NamedTuple):
    """A raw label of a subset, and the class that it became."""

    raw_name: str
    """Synonyms are divided by `;`, and names of scenes end in `-s`."""
    label: int
    """Position in the list of classes; -1 for no scene."""


@cache
def assignment(subset: str, category: str) -> dict[int, Assigned]:
    """The raw labels of a subset that became classes. All others are unlabelled.

    Args:
        subset: `ade20k`, `pascal` or `opensurfaces`.
        category: `object`, `part`, `scene` or `material`.
    """
    rows = csv.DictReader(_read("label_assignment.csv").splitlines())
    name = {"opensurfaces": "os"}.get(subset, subset)
    return {
        int(row["raw_label"]): Assigned(row["raw_name"], int(row["label"]))
        for row in rows
        if (row["dataset"], row["category"]) == (name, category)
    }


@cache
def class_of_raw_label(subset: str, category: str) -> np.ndarray:
    """The class of each raw label of a label map, uint16 (highest raw label + 1,); 0 is unlabelled."""
    table = np.zeros(HIGHEST[subset, category] + 1, np.uint16)
    for raw, assigned in assignment(subset, category).items():
        table[raw] = assigned.label
    return table


@cache
def part_channels() -> tuple[str, ...]:
    """The 427 channels of parts as `object/part`, group by group; the first of each group is `object/-`."""
    return part_names(broden_plus()["part"], no_part=True)


@cache
def part_offsets() -> dict[str, int]:
    """The first channel of each object that has parts."""
    offsets, next_one = {}, 0
    for name, parts in broden_plus()["part"].items():
        offsets[name] = next_one
        next_one += 1 + len(parts)
    return offsets


@cache
def channel_of_part() -> np.ndarray:
    """The channel of a part on an object, uint16 (336, 153); `UNLABELLED_PART` for objects without parts.

    A part that the object's list lacks counts as "no part", the group's first channel.
    """
    lists = broden_plus()
    table = np.full((len(lists["object"]), len(lists["part_names"])), UNLABELLED_PART, np.uint16)
    for name, parts in lists["part"].items():
        row = table[lists["object"].index(name)]
        row[:] = part_offsets()[name]
        for number, part in enumerate(parts, 1):
            row[lists["part_names"].index(part)] += number
    return table


@dataclass(frozen=True)
class Official:
    """Numbers of images in the official lists, as train and val.

    Attributes:
        images: All images.
        parts: Those whose original has an annotation of parts.
        scenes: Those with a scene.
    """

    images: tuple[int, int]
    parts: tuple[int, int] = (0, 0)
    scenes: tuple[int, int] = (0, 0)


OFFICIAL = {
    "ade20k": Official((20067, 2143), (10451, 1109), (18641, 1902)),
    "pascal": Official((9015, 1088), (9015, 1088)),
    "opensurfaces": Official((17226, 1914)),
    "dtd": Official((5076, 564)),
}
"""Subset → the numbers of its images."""


def official_split(subset: str, index: int) -> str | None:
    """The official split of an image of ADE20K, Pascal or OpenSurfaces.

    Args:
        subset: `ade20k`, `pascal` or `opensurfaces`.
        index: The image's position in the numbering of its subset: of ADE20K in its release of 2016, train before val;
            of Pascal in the sorted names; of OpenSurfaces in its table of photographs.

    Returns:
        `train` or `val`; None if the official lists leave the image out.
    """
    ranges = _ranges()[subset]
    if ranges["val"].holds(index):
        return "val"
    if "train" in ranges:
        return "train" if ranges["train"].holds(index) else None
    return "train" if 0 <= index < sum(OFFICIAL[subset].images) else None


def official_texture_split(file: str) -> str:
    """The official split, `train` or `val`, of an image of DTD, such as `banded/banded_0016.jpg`."""
    folder, _, name = file.partition("/")
    number = name.removesuffix(".jpg").rpartition("_")[2]
    ranges = _texture_ranges().get(folder)
    return "val" if ranges is not None and number.isdigit() and ranges.holds(int(number)) else "train"


class _Ranges:
    """Whole numbers, written as `3,7-9`."""

    def __init__(self, text: str) -> None:
        pairs = [part.partition("-")[::2] for part in text.split(",")]
        self.first = [int(first) for first, _ in pairs]
        self.last = [int(last or first) for first, last in pairs]

    def holds(self, number: int) -> bool:
        place = bisect_right(self.first, number) - 1
        return place >= 0 and number <= self.last[place]


@cache
def _ranges() -> dict[str, dict[str, _Ranges]]:
    content = json.loads(_read("splits.json"))
    return {
        subset: {split: _Ranges(text) for split, text in content[subset].items()}
        for subset in ("ade20k", "pascal", "opensurfaces")
    }


@cache
def _texture_ranges() -> dict[str, _Ranges]:
    return {folder: _Ranges(text) for folder, text in json.loads(_read("splits.json"))["dtd"]["val"].items()}


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
