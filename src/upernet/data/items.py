"""The images of a source by name, before any file is opened, and what their names show to be wrong."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from upernet.data.faults import Fault, Kind
from upernet.errors import UserError
from upernet.labels import IGNORE


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

    @property
    def masks(self) -> list[Path]:
        """The mask files."""
        return [value for value in self.annotations.values() if isinstance(value, Path)]


@dataclass(frozen=True)
class Listing:
    """A split as far as names tell.

    Attributes:
        split: Its name.
        items: Its images, in a fixed order.
        faults: What is wrong with them, in the order of the kinds: missing images, missing label maps, label maps
            without image, duplicates, unknown labels.
    """

    split: str
    items: list[Item]
    faults: list[Fault]

    def checked(self) -> list[Item]:
        """The items, if the split can be used.

        Raises:
            UserError: If it cannot; the line tells the first fault and counts those of its kind.
        """
        stopping = [fault for fault in self.faults if fault.stops]
        if stopping:
            first = stopping[0]
            raise UserError(first.line(self._count(first.kind, sum(f.kind is first.kind for f in stopping))))
        return self.items

    def _count(self, kind: Kind, number: int) -> str:
        of_kind = {
            Kind.MISSING_IMAGE: "images of split {} are missing",
            Kind.MISSING_MASK: "label maps of split {} are missing",
            Kind.MISSING_PARTNER: "label maps of split {} have none",
            Kind.DUPLICATE: "images of split {} have the name of another",
            Kind.LABEL: "images of split {} have none",
        }
        if kind not in of_kind:
            return ""
        paired = len({mask for item in self.items for mask in item.masks})
        total = paired + number if kind is Kind.MISSING_PARTNER else len(self.items)
        return f"{number:,} of {total:,} {of_kind[kind].format(repr(self.split))}"


def missing_files(items: Sequence[Item], expected: str, remedy: str = "") -> Iterator[Fault]:
    """Images that are not there, then label maps that are not there.

    Args:
        items: Items of a split.
        expected: What the data set's folder should hold, to end a line.
        remedy: What to do about a missing label map, in place of `expected`.
    """
    present: dict[Path, set[str]] = {}

    def lacks(path: Path) -> bool:
        # One look at a folder instead of one at each of its files: some lie across a network.
        if path.parent not in present:
            present[path.parent] = _files(path.parent)
        return path.name not in present[path.parent] and not path.is_file()  # where case does not matter

    for item in items:
        if lacks(item.image):
            yield Fault(Kind.MISSING_IMAGE, item.image, "no such file", expected)
    for item in items:
        yield from (Fault(Kind.MISSING_MASK, p, "no such file", remedy or expected) for p in item.masks if lacks(p))


def _files(folder: Path) -> set[str]:
    """Names of the files in a folder; none if it is not there."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return set()


def lone_masks(items: Iterable[Item], masks: Iterable[Path], expected: str, stops: bool) -> Iterator[Fault]:
    """Label maps that belong to no image, sorted by path, hidden ones left out.

    Args:
        items: Items of a split.
        masks: All label maps that lie there for it.
        expected: What the data set's folder should hold, to end a line.
        stops: Whether the split cannot be used then.
    """
    paired = {mask for item in items for mask in item.masks}
    for path in sorted(path for path in masks if path not in paired and not path.name.startswith(".")):
        yield Fault(Kind.MISSING_PARTNER, path, "no image belongs to it", expected, stops)


def duplicates(items: Iterable[Item]) -> Iterator[Fault]:
    """Images that have the id of another; an image that is named twice can be used."""
    first: dict[str, Path] = {}
    for item in items:
        if item.id not in first:
            first[item.id] = item.image
        elif first[item.id] == item.image:
            yield Fault(Kind.DUPLICATE, item.image, f"named twice, as {item.id!r}", stops=False)
        else:
            said = f"a second image of the name {item.id!r}, beside {first[item.id]}"
            yield Fault(Kind.DUPLICATE, item.image, said)


def unknown_labels(items: Iterable[Item], annotations: Mapping[str, Annotation]) -> Iterator[Fault]:
    """Images whose one label is none of the annotation's."""
    for item in items:
        for name, value in item.annotations.items():
            if isinstance(value, int) and name in annotations and not IGNORE <= value < len(annotations[name].labels):
                valid = f"valid: 0 to {len(annotations[name].labels) - 1}"
                yield Fault(Kind.LABEL, item.image, f"{name} {value} is no label", valid)
