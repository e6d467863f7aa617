"""The Describable Textures Dataset, release 1.0.1 (Cimpoi et al., CVPR 2014)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from upernet.data.search import read_lines
from upernet.data.sets.broden_plus.originals import (
    Found,
    Lack,
    Original,
    OwnersFolder,
    Problem,
    file_names,
    user_folder,
)
from upernet.data.sets.broden_plus.tables import OFFICIAL, broden_plus, official_texture_split
from upernet.errors import UserError

LISTING = "labels/labels_joint_anno.txt"


@dataclass(frozen=True)
class DTDImage(Original):
    """A photograph of one texture, the name of its folder. Further attributes in the joint annotation are not used."""

    subset: ClassVar[str] = "dtd"


class DTDFolder(OwnersFolder):
    """The folder `dtd` with `images/` and `labels/`, or the one above it."""

    subset: ClassVar[str] = "dtd"

    def __init__(self, given: str) -> None:
        self.folder = user_folder(given, "dtd-r1.0.1", "dtd")
        for name in ("images", "labels"):
            if not (self.folder / name).is_dir():
                raise UserError(
                    f"{self.folder}: no folder {name} in it; expected images/<class>/*.jpg and {LISTING}, as in "
                    "dtd-r1.0.1.tar.gz"
                )

    @property
    def folders(self) -> list[Path]:
        return [self.folder]

    def find(self) -> Found:
        listing = self.folder / LISTING
        if not listing.is_file():
            raise UserError(
                f"{listing}: no such list; expected a line such as 'banded/banded_0002.jpg banded' per image"
            )
        textures = {name: label for label, name in enumerate(broden_plus()["texture"])}
        files = {folder.name: file_names(folder) for folder in (self.folder / "images").iterdir() if folder.is_dir()}
        listed = [line.split()[0] for line in read_lines(listing)]
        originals: list[Original] = []
        problems: list[Problem] = []
        for index, name in enumerate(listed):
            folder, _, file = name.partition("/")
            identity = f"{self.subset}/{name.removesuffix('.jpg')}"
            path = f"images/{name}"
            if folder not in textures:
                text = f"{folder!r} is none of the 47 textures"
                problems.append(Problem(Lack.UNEXPECTED, identity, path, text, index))
            elif file not in files.get(folder, ()):
                problems.append(Problem(Lack.MISSING, identity, path, index=index))
            else:
                split = official_texture_split(name)
                originals.append(DTDImage(identity, split, index, self.folder, path, texture=textures[folder]))
        found = {f"{folder}/{file}" for folder, names in files.items() for file in names if file.endswith(".jpg")}
        for name in sorted(found - set(listed)):
            identity = f"{self.subset}/{name.removesuffix('.jpg')}"
            problems.append(Problem(Lack.UNEXPECTED, identity, f"images/{name}", f"not in {LISTING}"))
        for index in range(len(listed), sum(OFFICIAL[self.subset].images)):
            problems.append(Problem(Lack.MISSING, f"{self.subset}/#{index}", index=index))
        return Found(originals, problems)
