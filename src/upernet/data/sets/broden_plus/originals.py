"""An image as its owner distributes it, and what is found in an owner's folder."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

import numpy as np

from upernet.data.sets.broden_plus.targets import Size
from upernet.errors import UserError


@dataclass(frozen=True)
class Original(ABC):
    """One image of a subset with its annotations. It is small: there are 57,093 of them.

    Attributes:
        id: Its name in Broden+, such as `ade20k/ADE_train_00000001`.
        split: Its official split, `train` or `val`.
        index: Its position in the official numbering of its subset.
        folder: The owner's folder.
        file: The image, below the folder.
        scene: Its scene, as a position in the list of 365; None if it has none.
        texture: Its texture, as a position in the list of 47; None if it has none.
        has_parts: Whether its parts are annotated.
    """

    id: str
    split: str
    index: int
    folder: Path
    file: str
    scene: int | None = None
    texture: int | None = None
    has_parts: bool = False

    subset: ClassVar[str]
    """Name of the subset."""
    shrinks: ClassVar[bool] = False
    """Whether large images are shrunk."""

    @property
    def image(self) -> Path:
        """The image file."""
        return self.folder / self.file

    @property
    def masks(self) -> dict[str, Path]:
        """Annotation, `object`, `part` or `material` → the file that it is read from."""
        return {}

    def read_labels(self, own: Size, size: Size) -> dict[str, np.ndarray]:
        """Read the label maps.

        Args:
            own: Size of the original image.
            size: Size of the label maps to return.

        Returns:
            Annotation → uint16 (H, W): of `object` and `material` classes, 0 unlabelled; of `part` names of parts, 0
            background.

        Raises:
            UserError: If a file cannot be read, has another size than the image or holds an unknown value.
        """
        return {}

    def unmapped(self) -> dict[str, list[str]]:
        """Annotation → sorted names in the owner's annotation that are no class of Broden+, where it gives names.

        Raises:
            UserError: If the owner's annotation cannot be read.
        """
        return {}


class Lack(StrEnum):
    """Why an image is not in Broden+, or not entirely."""

    MISSING = "missing"
    """The official lists have it, the owner's folder has not."""
    MISSING_LABELS = "missing annotation"
    """An annotation of the image is not in the owner's folder."""
    UNEXPECTED = "unexpected"
    """The owner's folder has it, the official numbering has not."""
    SKIPPED = "skipped"
    """The official numbering has it, the official lists leave it out."""
    UNKNOWN_SCENE = "unknown scene"
    """Its scene is none of the 365; the image is used without a scene."""
    BROKEN = "broken"
    """A file of it cannot be read, or does not hold what it should."""


@dataclass(frozen=True)
class Problem:
    """One image that is not in Broden+, or not entirely.

    Attributes:
        kind: Why.
        id: The image.
        file: The file at fault, where it is or should be; empty if its name is not known.
        text: What is wrong, if the kind does not say it.
        index: The image's position in the official numbering; None if it has none.
    """

    kind: Lack
    id: str
    file: str = ""
    text: str = ""
    index: int | None = None

    def plain(self) -> dict[str, str]:
        """What the report says of it: its fields that are not empty, but for the position."""
        fields = {"kind": self.kind.value, "id": self.id, "file": self.file, "problem": self.text}
        return {name: value for name, value in fields.items() if value}


@dataclass
class Found:
    """What is found in an owner's folder.

    Attributes:
        originals: The images of the official lists that can be used, in the order of the official numbering.
        problems: All others.
        release: Which release the folder holds, if there are several.
        notes: What else the user should know, in one line each.
    """

    originals: Sequence[Original]
    problems: list[Problem] = field(default_factory=list)
    release: str = ""
    notes: list[str] = field(default_factory=list)


class OwnersFolder(ABC):
    """A folder as an owner distributes it."""

    subset: ClassVar[str]

    @property
    @abstractmethod
    def folders(self) -> list[Path]:
        """The folders that hold the originals; the first is that of the images."""

    @abstractmethod
    def find(self) -> Found:
        """List what is in the folder; no image or label map is opened.

        Raises:
            UserError: If the folder lacks what the owner puts there.
        """


def user_folder(given: str, *inner: str) -> Path:
    """A folder that a user gave, or the first of some folders inside it that exists.

    Args:
        given: What the user gave; `~` and environment variables are expanded.
        inner: Folders inside it that hold the data in its place, such as `dtd`.

    Raises:
        UserError: If the folder does not exist.
    """
    folder = Path(os.path.expanduser(os.path.expandvars(given)))
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    return next((folder / name for name in inner if (folder / name).is_dir()), folder)


def file_names(folder: Path) -> set[str]:
    """Names of the files in a folder, without hidden ones; empty if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file()}
    except OSError:
        return set()
