"""The contract of a data set, which is a source of labelled images.

Nothing here imports torch; a source returns arrays.
"""

from __future__ import annotations

import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from upernet.data.faults import Fault, FaultError, Kind
from upernet.data.images import Photograph, open_image, upright_size
from upernet.data.items import Annotation, Item, Listing, duplicates, lone_masks, missing_files, unknown_labels
from upernet.data.masks import read_mask
from upernet.data.search import nearby_folders
from upernet.errors import UserError
from upernet.labels import IGNORE
from upernet.plain import Configurable


@dataclass(kw_only=True)
class Source(Configurable, ABC):
    """A data set. Its fields are its keys in YAML."""

    root: str
    """Folder of the data set; `~` and environment variables are expanded."""

    module: ClassVar[str] = "upernet.data"
    title: ClassVar[str] = ""
    """Name of a published data set as people write it."""
    classes: ClassVar[Mapping[str, str]] = {}
    """Class → colour, such as `"#804080"`, in the order of the label ids; empty if no list of classes is published."""
    published: ClassVar[Mapping[str, int]] = {}
    """Split → number of its images as published."""
    photograph: ClassVar[tuple[int, int] | None] = None
    """Height and width of its photographs in pixels, the most frequent ones if they differ; None if not known."""
    layout: ClassVar[str] = "its images and annotations"
    """What the folder should hold, for the error line."""
    origin: ClassVar[str] = ""
    """Where to get the data set, for the error line."""
    subfolders: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Sub-folders by which the folder is recognised: one tuple for each layout in which the data set is distributed;
    empty if the folder may hold anything."""

    @property
    def _path(self) -> Path:
        """The folder, whether or not it exists."""
        return Path(os.path.expanduser(os.path.expandvars(self.root)))

    @property
    def folder(self) -> Path:
        """The data set's folder.

        Raises:
            UserError: If an environment variable in `root` is not set, or the folder does not exist or lacks the
                `subfolders`. The line names the right folder if that is nearby.
        """
        folder = self._path
        if "$" in str(folder):
            raise UserError(f"{self.root}: an environment variable is not set; for example export UPERNET_DATA=/data")
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; {self.expectation}")
        if self.subfolders and not self._has_subfolders(folder):
            lacking = next(name for name in self.subfolders[0] if not (folder / name).is_dir())
            right = next((near for near in nearby_folders(folder) if self._has_subfolders(near)), None)
            hint = f"the right folder seems to be {right}" if right else self.expectation
            raise UserError(f"{folder}: no folder {lacking} in it; {hint}")
        return folder

    @property
    def expectation(self) -> str:
        """What the folder should hold and where to get it, to end an error line."""
        return f"{type(self).__name__} expects {self.layout}" + (f"; get {self.origin}" if self.origin else "")

    def _has_subfolders(self, folder: Path) -> bool:
        return any(all((folder / name).is_dir() for name in names) for names in self.subfolders)

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

    def listing(self, split: str) -> Listing:
        """List the images of a split, and every fault that file names show; no image or label map is opened.

        Raises:
            UserError: If the images cannot be listed.
        """
        return self.examine(split, self.items(split))

    def examine(
        self, split: str, items: list[Item], *, masks: Iterable[Path] = (), stray: bool = False, remedy: str = ""
    ) -> Listing:
        """Find the faults of items that file names show.

        Args:
            split: Name of the split.
            items: Its images.
            masks: All label maps that the split's folder holds, if the items were listed by their images alone.
            stray: Whether the split can be used although label maps have no image.
            remedy: What to do about a missing label map; if empty, the line says what the folder should hold.
        """
        if not items:
            fault = Fault(Kind.EMPTY, self._path, f"no images in split {split!r}", self.expectation)
            return Listing(split, items, [fault])
        expected = f"in {self._path}, {self.expectation}"
        labelled = [item for item in items if len(item.masks) < len(item.annotations)]
        faults = [
            *missing_files(items, expected, remedy),
            *lone_masks(items, masks, expected, stops=not stray),
            *duplicates(items),
            *(unknown_labels(labelled, self.annotations) if labelled else ()),
        ]
        return Listing(split, items, faults)

    def faults(self, split: str, read: bool = True) -> Iterator[Fault]:
        """All faults of a split, one after the other.

        Args:
            split: Name of the split.
            read: Whether to open and decode every file. If not, only file names are looked at, which is quick.

        Yields:
            The faults that file names show, and then those of the files, image by image in the order of the items.
        """
        try:
            _ = self.annotations  # the label names may have to be read
            listing = self.listing(split)
        except UserError as error:
            yield Fault.from_error(Kind.LISTING, error, self._path)
            return
        yield from listing.faults
        missing = {f.file for f in listing.faults if f.kind in (Kind.MISSING_IMAGE, Kind.MISSING_MASK)}
        for item in listing.items if read else ():
            yield from (fault for fault in self.item_faults(item) if fault.file not in missing)

    def item_faults(self, item: Item) -> Iterator[Fault]:
        """All faults of the files of one image, which are opened and decoded.

        They depend on nothing but the item, so that several processes can share the images of a split.
        """
        if type(self).read is not Source.read:
            yield from self._faults_of_own_reading(item)
            return
        size = None
        try:
            image = open_image(item.image)
            size = image.pixels.shape[:2]
        except UserError as error:
            yield Fault.from_error(Kind.UNREADABLE, error, item.image)
        for name, path in item.annotations.items():
            if not isinstance(path, Path):
                continue
            try:
                mask = self.read_mask(path, name)
            except UserError as error:
                yield Fault.from_error(Kind.UNREADABLE, error, path)
            else:
                yield from self._mask_faults(path, mask, name, item, size)

    def _faults_of_own_reading(self, item: Item) -> Iterator[Fault]:
        try:
            image, values = self.read(item)
            pixels = image.pixels if isinstance(image, Photograph) else image
        except UserError as error:
            yield Fault.from_error(Kind.UNREADABLE, error, item.image)
            return
        for name, value in values.items():
            if np.ndim(value) == 2:
                path = item.annotations.get(name)
                file = path if isinstance(path, Path) else item.image
                yield from self._mask_faults(file, np.asarray(value), name, item, pixels.shape[:2])

    def _mask_faults(
        self, path: Path, mask: np.ndarray, annotation: str, item: Item, size: tuple[int, ...] | None
    ) -> Iterator[Fault]:
        """The faults of a mask. `size` is the (height, width) of its image, or None if that is unknown."""
        if size is not None and mask.shape != size:
            sizes = f"mask of {_size(mask.shape)} pixels for an image of {_size(size)} ({item.image.name})"
            yield Fault(Kind.SIZE, path, sizes)
        count = len(self.annotations[annotation].labels)
        if mask.max(initial=IGNORE) >= count or mask.min(initial=IGNORE) < IGNORE:
            wrong = mask[(mask >= count) | (mask < IGNORE)][0]
            valid = f"valid: 0 to {count - 1}, or the ignored value"
            yield Fault(Kind.LABEL, path, f"value {wrong} is no label", valid)

    def read(self, item: Item) -> tuple[Photograph | np.ndarray, dict[str, Any]]:
        """Open an image and read its annotations.

        Returns:
            The image, or its pixels (H, W, 3) uint8 RGB; and annotation name → label id, or label map (H, W) of a
            signed type, `IGNORE` where unlabelled.

        Raises:
            UserError: If a file cannot be read, a mask has another size than its image or holds an unknown value.
        """
        image = open_image(item.image)
        values: dict[str, Any] = {}
        for name, value in item.annotations.items():
            if isinstance(value, int):
                values[name] = value
                continue
            values[name] = self.read_mask(value, name)
            for fault in self._mask_faults(value, values[name], name, item, image.size):
                raise FaultError(fault)
        return image, values

    def image_size(self, item: Item) -> tuple[int, int]:
        """Height and width of an image once it is upright, in pixels.

        Those that the item tells, or else those in the file's header. If the class has its own `read`, the image is
        read.

        Raises:
            UserError: If the file cannot be read.
        """
        if item.size is not None:
            return item.size
        if type(self).read is Source.read:
            return upright_size(item.image)
        image = self.read(item)[0]
        return image.size if isinstance(image, Photograph) else (image.shape[0], image.shape[1])

    def read_mask(self, path: Path, annotation: str) -> np.ndarray:
        """Read a mask file as the source's own label ids.

        Args:
            path: The file.
            annotation: Which of the source's annotations it holds.

        Returns:
            (H, W) int16 or int32, `IGNORE` where unlabelled. Convert it before you compute with it: the type is narrow.

        Raises:
            UserError: If the file cannot be read.
        """
        return read_mask(path)

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse a `read_mask` that takes no annotation when the class is defined, not in the middle of a run."""
        super().__init_subclass__(**options)
        try:
            inspect.signature(cls.read_mask).bind("self", "path", "annotation")
        except TypeError:
            own = f"{cls.__module__}.{cls.__qualname__}.read_mask{inspect.signature(cls.read_mask)}"
            raise UserError(f"{own}: takes no annotation; valid: read_mask(self, path, annotation)") from None

    def prediction_ids(self, annotation: str) -> np.ndarray:
        """Pixel values of predicted label maps, as the data set's benchmark reads them.

        Args:
            annotation: Which of the source's annotations is predicted.

        Returns:
            (L + 1,) int64: the value of each of the L labels, by default its id, and last that of unlabelled pixels.
        """
        count = len(self.annotations[annotation].labels)
        return np.array([*range(count), 255 if count <= 255 else 65535])

    def prediction_file(self, item: str) -> str:
        """Path of the predicted label map of an image, below the folder of all predictions.

        Args:
            item: The image's id, such as `town/street_1`.

        Returns:
            A relative path of a PNG file that never leaves the folder.

        Raises:
            UserError: If the id holds no name that the benchmark knows.
        """
        return "/".join(path_parts(item)) + ".png"


def path_parts(item: str) -> list[str]:
    """The parts of an image's id as of a path, without those that would leave the folder."""
    return [part for part in item.split("/") if part not in ("", ".", "..")]


def _size(size: tuple[int, ...]) -> str:
    return f"{size[1]}×{size[0]}"
