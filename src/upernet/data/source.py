"""Where labelled images come from: one contract, and what a sample is.

Nothing here imports torch; a source hands out arrays.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from upernet.data.images import Photograph, open_image
from upernet.data.inputs import SUFFIXES
from upernet.data.masks import read_mask
from upernet.errors import UserError
from upernet.labels import IGNORE
from upernet.plain import Configurable


@dataclass(frozen=True)
class Annotation:
    """What one kind of annotation can say.

    Attributes:
        labels: Names of the source's own labels; a label id is a position.
        dense: True for a map, False for one label per image.
    """

    labels: tuple[str, ...]
    dense: bool


@dataclass(frozen=True)
class Item:
    """One image of a source and its annotations, not yet read.

    Attributes:
        id: Name that is unique within the source.
        image: Image file.
        annotations: Annotation name → mask file, or label id for an image-level annotation. A missing annotation is
            a missing key.
    """

    id: str
    image: Path
    annotations: dict[str, Path | int] = field(default_factory=dict)


@dataclass(kw_only=True)
class Source(Configurable, ABC):
    """A data set. The fields are its YAML."""

    root: str
    """Folder of the data set; `~` and environment variables are expanded."""

    @property
    def folder(self) -> Path:
        """The data set's folder.

        Raises:
            UserError: If an environment variable in `root` is not set, the folder does not exist or, by `marks`, is
                another one; the line names the right one where it lies close by.
        """
        path = os.path.expanduser(os.path.expandvars(self.root))
        if "$" in path:
            raise UserError(f"{self.root}: an environment variable is not set; for example export UPERNET_DATA=/data")
        folder = Path(path)
        if not folder.is_dir():
            raise UserError(f"{path}: no such folder; {self.expectation}")
        if self.marks and not self._is_marked(folder):
            lacking = next(mark for mark in self.marks[0] if not (folder / mark).is_dir())
            right = next((near for near in _neighbours(folder) if self._is_marked(near)), None)
            hint = f"the right folder seems to be {right}" if right else self.expectation
            raise UserError(f"{path}: no folder {lacking} in it; {hint}")
        return folder

    title: ClassVar[str] = ""
    """Name of a published data set as people write it."""
    classes: ClassVar[Mapping[str, str]] = {}
    """Class → colour, such as `"#804080"`, in the order of the label ids; empty if no list of classes is published."""
    published: ClassVar[Mapping[str, int]] = {}
    """Split → number of its images as published."""
    photograph: ClassVar[tuple[int, int] | None] = None
    """Height and width of its photographs in pixels, the most frequent ones where they differ; none if not known."""
    layout: ClassVar[str] = "its images and annotations"
    """What the folder should hold, for the error line."""
    origin: ClassVar[str] = ""
    """Where to get the data set, for the error line."""
    marks: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Sub-folders by which the folder is known, one tuple for each form in which the data set is found; empty if the
    folder may hold anything."""

    @property
    def expectation(self) -> str:
        """What the folder should hold and where to get it, to end an error line."""
        return f"{type(self).__name__} expects there {self.layout}" + (f"; get {self.origin}" if self.origin else "")

    def _is_marked(self, folder: Path) -> bool:
        return any(all((folder / mark).is_dir() for mark in form) for form in self.marks)

    @property
    @abstractmethod
    def annotations(self) -> dict[str, Annotation]:
        """The kinds of annotation this source has, by name."""

    @abstractmethod
    def items(self, split: str) -> list[Item]:
        """The images of a split, in a fixed order.

        Raises:
            UserError: If the split is missing or empty.
        """

    def read(self, item: Item) -> tuple[Photograph | np.ndarray, dict[str, Any]]:
        """Open an image and read its annotations.

        Returns:
            The image, or its pixels (H, W, 3) uint8 RGB; and annotation name → map (H, W) of a signed type, `IGNORE`
            where unlabelled, or label id.

        Raises:
            UserError: If a file cannot be read, a mask has another size than its image or holds an unknown value.
        """
        image = open_image(item.image)
        values: dict[str, Any] = {}
        for name, value in item.annotations.items():
            if isinstance(value, int):
                values[name] = value
                continue
            mask = self.read_mask(value)
            if mask.shape != image.size:
                sizes = f"mask of {_size(mask.shape)} pixels for an image of {_size(image.size)}"
                raise UserError(f"{value}: {sizes} ({item.image.name})")
            count = len(self.annotations[name].labels)
            if mask.max(initial=IGNORE) >= count or mask.min(initial=IGNORE) < IGNORE:
                wrong = mask[(mask >= count) | (mask < IGNORE)][0]
                raise UserError(f"{value}: value {wrong} is no label; valid: 0 to {count - 1}, or the ignored value")
            values[name] = mask
        return image, values

    def read_mask(self, path: Path) -> np.ndarray:
        """A mask file as own label ids (H, W), int16 or int32: too narrow to compute with."""
        return read_mask(path)

    def prediction_ids(self, annotation: str) -> np.ndarray:
        """The numbers that a file of predicted labels holds, as the data set's benchmark reads it.

        Args:
            annotation: Which of the source's annotations is predicted.

        Returns:
            (L + 1,) int64: the number of each of the L labels, here its id, and last that of unlabelled pixels.
        """
        count = len(self.annotations[annotation].labels)
        return np.array([*range(count), 255 if count <= 255 else 65535])

    def prediction_file(self, item: str) -> str:
        """Where the predicted labels of an image belong, below a folder of their own.

        Args:
            item: The image's id, such as `town/street_1`.

        Returns:
            A relative path of a PNG file that never leaves the folder.

        Raises:
            UserError: If the image has no name by which the benchmark knows it.
        """
        return "/".join(path_parts(item)) + ".png"

    def find(self, place: str, *endings: str) -> list[Path]:
        """Files below a sub-folder whose names end so, sorted by path, hidden ones left out.

        Raises:
            UserError: If the sub-folder is missing or holds none.
        """
        folder = self.folder / place
        found = sorted(p for p in folder.rglob("*") if p.name.endswith(endings) and not p.name.startswith("."))
        if not found:
            fault = f"no file in it ends {' or '.join(endings)}"
            if not folder.is_dir():
                beside = ", ".join(p.name for p in _subfolders(folder.parent))
                fault = "no such folder" + (f" (there are {beside})" if beside else "")
            raise UserError(f"{folder}: {fault}; in {self.folder}, {self.expectation}")
        return found

    def complete(self, items: Sequence[Item], split: str, remedy: str = "", masks: Iterable[Path] = ()) -> list[Item]:
        """The items, if every file they name is there: a set that was unpacked by half is told before any work.

        Args:
            items: Items of a split.
            split: Its name, for the error line.
            remedy: What to do about a missing annotation; if empty, what the folder should hold.
            masks: All masks that lie there for the split, where items are known by their images alone.

        Raises:
            UserError: If a file is missing, or a mask lies there without its image; the line names the first and counts
                them.
        """
        present: dict[Path, set[str]] = {}

        def lacks(path: Path) -> bool:
            # One look at a folder instead of one at each of its files: some lie across a network.
            if path.parent not in present:
                present[path.parent] = set(os.listdir(path.parent)) if path.parent.is_dir() else set()
            return path.name not in present[path.parent]

        images = [item.image for item in items if lacks(item.image)]
        maps = [p for item in items for p in item.annotations.values() if isinstance(p, Path) and lacks(p)]
        for missing, kind in ((images, "images"), (maps, "label maps")):
            if missing:
                hint = remedy if remedy and missing is maps else f"in {self.folder}, {self.expectation}"
                count = f"{len(missing):,} of {len(items):,} {kind} of split {split!r} are missing"
                raise UserError(f"{missing[0]}: no such file; {count}; {hint}")
        named = {p for item in items for p in item.annotations.values()}
        alone = sorted(path for path in masks if path not in named and not path.name.startswith("."))
        if alone:
            count = f"{len(alone):,} of {len(alone) + len(named):,} label maps of split {split!r} have none"
            raise UserError(f"{alone[0]}: no image belongs to it; {count}; in {self.folder}, {self.expectation}")
        return list(items)


def path_parts(item: str) -> list[str]:
    """The parts of an image's id, without those that would lead elsewhere in a file system."""
    return [part for part in item.split("/") if part not in ("", ".", "..")]


def _size(size: tuple[int, ...]) -> str:
    return f"{size[1]}×{size[0]}"


def _neighbours(folder: Path) -> Iterator[Path]:
    """Folders that may be meant where another is given: up to two levels below, then up to two above."""
    below = _subfolders(folder)
    yield from below
    for each in below:
        yield from _subfolders(each)
    yield from folder.absolute().parents[:2]


def _subfolders(folder: Path) -> list[Path]:
    try:
        found = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError:  # may not be entered
        return []
    return found[:100]  # somebody's whole disk is not searched


def read_lines(path: Path) -> list[str]:
    """Lines of a list of a data set, without those that are empty.

    Raises:
        UserError: If it cannot be read or is no text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no list of names ({error})") from error
    return [line.strip() for line in lines if line.strip()]


def image_files(folder: Path) -> list[Path]:
    """Image files below a folder, sorted by path.

    Raises:
        UserError: If the folder is missing or holds none.
    """
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not found:
        raise UserError(f"{folder}: no images; expected files ending {', '.join(sorted(SUFFIXES))}")
    return found
