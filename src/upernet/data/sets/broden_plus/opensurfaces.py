"""OpenSurfaces (Bell et al., SIGGRAPH 2013), as the script of its release unpacks it."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from upernet.data.images import read_image
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
from upernet.data.sets.broden_plus.tables import assignment, official_split
from upernet.data.sets.broden_plus.targets import Size, resize_labels, to_classes
from upernet.errors import UserError

LAST = 25337
"""The last position in the table of photographs that the official lists name."""
COLOURS = "label-substance-colors.csv"


@dataclass(frozen=True)
class OpenSurfacesImage(Original):
    """A photograph with its map of materials, whose red channel numbers the substance.

    The script draws the map 1,024 pixels high, whatever the size of the photograph.
    """

    subset: ClassVar[str] = "opensurfaces"
    shrinks: ClassVar[bool] = True

    @property
    def masks(self) -> dict[str, Path]:
        return {"material": self.folder / "photos-labels" / f"{Path(self.file).stem}.png"}

    def read_labels(self, own: Size, size: Size) -> dict[str, np.ndarray]:
        path = self.masks["material"]
        red = np.ascontiguousarray(read_image(path)[..., 0])
        # The script rounds the width of the map down.
        expected = red.shape[0] * own[1] / own[0]
        if abs(red.shape[1] - expected) > 2 + 0.01 * expected:
            raise UserError(
                f"{path}: {red.shape[1]}×{red.shape[0]} pixels for an image of {own[1]}×{own[0]} ({self.image.name})"
            )
        return {"material": to_classes(resize_labels(red, size), self.subset, "material", path)}


class OpenSurfacesFolder(OwnersFolder):
    """The folder with `photos.csv`, `photos/` and `photos-labels/`."""

    subset: ClassVar[str] = "opensurfaces"

    def __init__(self, given: str) -> None:
        folder = user_folder(given)
        inner = folder / "opensurfaces"
        self.folder = inner if (inner / "photos.csv").is_file() else folder
        if not (self.folder / "photos.csv").is_file():
            raise UserError(
                f"{folder}: no photos.csv; expected photos.csv, photos/ and photos-labels/, which the script "
                "process_opensurfaces_release_0.py of the release writes"
            )
        if (self.folder / COLOURS).is_file():
            _check_colours(self.folder / COLOURS)

    @property
    def folders(self) -> list[Path]:
        return [self.folder]

    def find(self) -> Found:
        photos, labels = file_names(self.folder / "photos"), file_names(self.folder / "photos-labels")
        originals: list[Original] = []
        problems: list[Problem] = []
        numbers = self._photographs()
        for index, number in enumerate(numbers):
            identity, split = f"{self.subset}/{number}", official_split(self.subset, index)
            file, mask = f"photos/{number}.jpg", f"photos-labels/{number}.png"
            if split is None:
                problems.append(Problem(Lack.SKIPPED, identity, file, "not in the official lists", index))
            elif f"{number}.jpg" not in photos:
                problems.append(Problem(Lack.MISSING, identity, file, index=index))
            elif f"{number}.png" not in labels:
                problems.append(Problem(Lack.MISSING_LABELS, identity, mask, "the image is not used", index))
            else:
                originals.append(OpenSurfacesImage(identity, split, index, self.folder, file))
        listed = {f"{number}.jpg" for number in numbers}
        for name in sorted(name for name in photos - listed if name.endswith(".jpg")):
            stem = name.removesuffix(".jpg")
            problems.append(Problem(Lack.UNEXPECTED, f"{self.subset}/{stem}", f"photos/{name}", "not in photos.csv"))
        for index in range(len(numbers), LAST + 1):
            if official_split(self.subset, index):
                problems.append(Problem(Lack.MISSING, f"{self.subset}/#{index}", index=index))
        notes = []
        if len(numbers) <= LAST:
            notes.append(f"photos.csv has {len(numbers):,} rows; the official lists go up to row {LAST:,}")
        return Found(originals, problems, notes=notes)

    def _photographs(self) -> list[str]:
        """The numbers of the photographs, in the order of the table."""
        path = self.folder / "photos.csv"
        try:
            with path.open(newline="", encoding="utf-8") as file:
                return [str(int(row["photo_id"])) for row in csv.DictReader(file)]
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{path}: no table of photographs ({reason}); expected a column photo_id") from error


def _check_colours(path: Path) -> None:
    """Refuse a table of substances that numbers them otherwise than the release does.

    Raises:
        UserError: If a number has another name.
    """
    rows = csv.DictReader(read_lines(path))
    names = {row.get("red_color"): str(row.get("substance_name")) for row in rows}
    for raw, assigned in assignment("opensurfaces", "material").items():
        name = names.get(str(raw), "")
        plain = ";".join(part.strip().lower().replace(" - ", "-") for part in name.split("/"))
        if plain != assigned.raw_name:
            raise UserError(f"{path}: colour {raw} is {name!r}; in OpenSurfaces it is {assigned.raw_name!r}")
