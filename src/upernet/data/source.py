"""Where labelled images come from: one contract, and what a sample is.

Nothing here imports torch; a source hands out arrays.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from upernet.config import Configurable, UserError
from upernet.data.images import SUFFIXES, read_image, read_mask
from upernet.data.labels import IGNORE


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
            UserError: If an environment variable in `root` is not set or the folder does not exist.
        """
        path = os.path.expanduser(os.path.expandvars(self.root))
        if "$" in path:
            raise UserError(f"{self.root}: an environment variable is not set; for example export UPERNET_DATA=/data")
        if not Path(path).is_dir():
            raise UserError(f"{path}: no such folder; {type(self).__name__} expects there {self.layout}")
        return Path(path)

    layout: ClassVar[str] = "its images and annotations"
    """What the folder should hold, for the error line."""

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

    def read(self, item: Item) -> tuple[np.ndarray, dict[str, Any]]:
        """Read an image (H, W, 3) uint8 RGB and its annotations: maps (H, W) int64, `IGNORE` where unlabelled, or ids.

        Raises:
            UserError: If a file cannot be read, a mask has another size than its image or holds an unknown value.
        """
        image = read_image(item.image)
        values: dict[str, Any] = {}
        for name, value in item.annotations.items():
            if isinstance(value, int):
                values[name] = value
                continue
            mask = self.read_mask(value)
            if mask.shape != image.shape[:2]:
                raise UserError(
                    f"{value}: mask of {_size(mask)} pixels for an image of {_size(image)} ({item.image.name})"
                )
            count = len(self.annotations[name].labels)
            if mask.max(initial=IGNORE) >= count or mask.min(initial=IGNORE) < IGNORE:
                wrong = mask[(mask >= count) | (mask < IGNORE)][0]
                raise UserError(f"{value}: value {wrong} is no label; valid: 0 to {count - 1}, or the ignored value")
            values[name] = mask
        return image, values

    def read_mask(self, path: Path) -> np.ndarray:
        """A mask file as own label ids (H, W) int64."""
        return read_mask(path)


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]}×{array.shape[0]}"


def image_files(folder: Path) -> list[Path]:
    """Image files below a folder, sorted by path.

    Raises:
        UserError: If the folder is missing or holds none.
    """
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not found:
        raise UserError(f"{folder}: no images; expected files ending {', '.join(sorted(SUFFIXES))}")
    return found
