"""The images of a source, listed before any file is opened, and the faults that file names show."""

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
    """One kind of annotation of a source.

    Attributes:
        labels: Names of the source's own labels; a label's id is its position.
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
        size: Height and width of the upright image in pixels, where they are known without opening the file.
    """

    id: str
    image: Path
    annotations: dict[str, Path | int] = field(default_factory=dict)
    size: tuple[int, int] | None = None

    @property
    def masks(self) -> list[Path]:
        """The mask files."""
        return [value for value in self.annotations.values() if isinstance(value, Path)]


@dataclass(frozen=True)
class Listing:
    """The images of a split, and the faults that file names show.

    Attributes:
        split: Name of the split.
        items: Its images, in a fixed order.
        faults: Their faults, ordered by kind: missing images, missing label maps, label maps without image,
            duplicates, unknown labels.
    """

    split: str
    items: list[Item]
    faults: list[Fault]

    def checked(self) -> list[Item]:
        """The items, if no fault stops the split from being used.

        Raises:
            UserError: If one does; the line gives the first such fault and the number of faults of its kind.
        """
        stopping = [fault for fault in self.faults if fault.stops]
        if stopping:
            first = stopping[0]
            raise UserError(first.line(self._count(first.kind, sum(f.kind is first.kind for f in stopping))))
        return self.items

    def without_faults(self) -> tuple[list[Item], dict[str, Fault]]:
        """The items whose file names show no stopping fault, and the fault of each other item by its id.

        A label map without an image concerns no item and is passed over. The first of several images with one id stays.

        Raises:
            UserError: If a fault concerns the split as a whole, or every item has one.
        """
        by_file: dict[Path, Fault] = {}
        for fault in self.faults:
            if fault.stops and fault.kind is not Kind.MISSING_PARTNER:
                by_file.setdefault(fault.file, fault)
        faulty: dict[str, Fault] = {}
        sound: list[Item] = []
        for item in self.items:
            own = next((by_file[path] for path in (item.image, *item.masks) if path in by_file), None)
            if own is None:
                sound.append(item)
            else:
                faulty.setdefault(item.id, own)
        if not sound or by_file.keys() - {path for item in self.items for path in (item.image, *item.masks)}:
            self.checked()
        return sound, faulty

    def _count(self, kind: Kind, number: int) -> str:
        of_kind = {
            Kind.MISSING_IMAGE: "images of split {} are missing",
            Kind.MISSING_MASK: "label maps of split {} are missing",
            Kind.MISSING_PARTNER: "label maps of split {} have no image",
            Kind.DUPLICATE: "images of split {} have the name of another",
            Kind.LABEL: "images of split {} have an unknown label",
        }
        if kind not in of_kind:
            return ""
        paired = len({mask for item in self.items for mask in item.masks})
        total = paired + number if kind is Kind.MISSING_PARTNER else len(self.items)
        return f"{number:,} of {total:,} {of_kind[kind].format(repr(self.split))}"


def missing_files(items: Sequence[Item], expected: str, remedy: str = "") -> Iterator[Fault]:
    """Faults of missing images, then those of missing label maps.

    Args:
        items: Items of a split.
        expected: What the data set's folder should hold; the line ends with it.
        remedy: What to do about a missing label map, in place of `expected`.
    """
    present: dict[Path, set[str]] = {}

    def is_missing(path: Path) -> bool:
        # A folder is listed once, instead of a look at each of its files: some folders lie across a network.
        if path.parent not in present:
            present[path.parent] = _files(path.parent)
        return path.name not in present[path.parent] and not path.is_file()  # the file system may ignore case

    for item in items:
        if is_missing(item.image):
            yield Fault(Kind.MISSING_IMAGE, item.image, "no such file", expected)
    for item in items:
        missing = (path for path in item.masks if is_missing(path))
        yield from (Fault(Kind.MISSING_MASK, path, "no such file", remedy or expected) for path in missing)


def _files(folder: Path) -> set[str]:
    """Names of the files in a folder; empty if the folder cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return set()


def lone_masks(items: Iterable[Item], masks: Iterable[Path], expected: str, stops: bool) -> Iterator[Fault]:
    """Faults of label maps that belong to no image, sorted by path, hidden files left out.

    Args:
        items: Items of a split.
        masks: All label maps that the split's folder holds.
        expected: What the data set's folder should hold; the line ends with it.
        stops: Whether these faults stop the split from being used.
    """
    paired = {mask for item in items for mask in item.masks}
    for path in sorted(path for path in masks if path not in paired and not path.name.startswith(".")):
        yield Fault(Kind.MISSING_PARTNER, path, "no image belongs to it", expected, stops)


def duplicates(items: Iterable[Item]) -> Iterator[Fault]:
    """Faults of images that share an id. An image that is listed twice does not stop the split from being used."""
    first: dict[str, Path] = {}
    for item in items:
        if item.id not in first:
            first[item.id] = item.image
        elif first[item.id] == item.image:
            yield Fault(Kind.DUPLICATE, item.image, f"listed twice, as {item.id!r}", stops=False)
        else:
            yield Fault(Kind.DUPLICATE, item.image, f"has the name {item.id!r}, as {first[item.id]} has")


def unknown_labels(items: Iterable[Item], annotations: Mapping[str, Annotation]) -> Iterator[Fault]:
    """Faults of images with one label for the whole image whose id is unknown."""
    for item in items:
        for name, value in item.annotations.items():
            if isinstance(value, int) and name in annotations and not IGNORE <= value < len(annotations[name].labels):
                valid = f"valid: 0 to {len(annotations[name].labels) - 1}"
                yield Fault(Kind.LABEL, item.image, f"{name} {value} is no label", valid)
