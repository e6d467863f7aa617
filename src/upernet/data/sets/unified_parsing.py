"""Broden+ in the folder of the authors' own code, with their record lists and the originals that these point to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from upernet.data.faults import Fault, FaultError, Kind
from upernet.data.images import Photograph, open_image
from upernet.data.items import Item, Listing
from upernet.data.search import read_lines
from upernet.data.sets.broden_plus import BrodenPlus
from upernet.data.sets.broden_plus.ade20k import ADE20KFolder
from upernet.data.sets.broden_plus.dtd import DTDFolder
from upernet.data.sets.broden_plus.opensurfaces import OpenSurfacesFolder
from upernet.data.sets.broden_plus.originals import Lack, Original, OwnersFolder, Problem
from upernet.data.sets.broden_plus.pascal import PascalFolders
from upernet.data.sets.broden_plus.targets import part_map
from upernet.data.sets.broden_plus.unified import UnifiedSource, to_label_ids
from upernet.errors import UserError

RECORDS = {
    "train": ("broden_ade20k_pascal_train.json", "broden_os_train.json", "dtd_training_list.json"),
    "val": ("broden_ade20k_pascal_val.json", "broden_os_val.json", "dtd_validation_list.json"),
}
"""Split → the authors' lists of it."""
PLACES = ("meta_file", "meta_file/joint_dataset", "meta_file/dtd")
"""Folders that hold them, in one version of the authors' code or another."""
NAMES = {"os": "opensurfaces"}
"""The authors' names of subsets that have another one here."""


@dataclass(frozen=True)
class OriginalItem(Item):
    """An image whose labels are read from the files of its owner."""

    original: Original | None = None


@dataclass(kw_only=True)
class UnifiedParsing(UnifiedSource):
    """Broden+ as the authors' code keeps it (Xiao et al., ECCV 2018), read in place.

    The record lists name a collection and a number in it; the labels are decoded from the collection's own files, as
    the authors' loader does. Annotations, splits and labels are those of `BrodenPlus`. The classes are those of the
    package: the authors' tables in the folder hold the same. Scenes come from `meta_file/ade20k/scene_categories.txt`,
    or without that file from the names of ADE20K's folders.

    * Layout: `meta_file/**/*.json` with the record lists, and `broden_dataset/` with
      `ade20k/ADE20K_2016_07_26`, `pascal/{VOC2010,context,part}`, `opensurfaces` and `dtd/dtd-r1.0.1`.
    * Splits: the official ones, train 51,384 and val 5,709 images.
    * Licence: that of each collection; see `docs/broden-plus.md`.
    * Get it: `download_Broden+.sh` of https://github.com/CSAILVision/unifiedparsing makes the folder.
    """

    title: ClassVar[str] = "Broden+ in the authors' layout"
    published: ClassVar[Mapping[str, int]] = BrodenPlus.published
    layout: ClassVar[str] = "meta_file/ with the record lists, and broden_dataset/{ade20k,pascal,opensurfaces,dtd}"
    origin: ClassVar[str] = "the code and its download_Broden+.sh from https://github.com/CSAILVision/unifiedparsing"
    subfolders: ClassVar[tuple[tuple[str, ...], ...]] = (("meta_file", "broden_dataset"),)

    def list_split(self, split: str) -> Listing:
        if split not in RECORDS:
            raise UserError(f"{self._path}: no split {split!r}; valid: {', '.join(RECORDS)}")
        folder = self.folder
        records = list(self._records(folder, split))
        there = list(dict.fromkeys(subset for subset, _, _, _ in records))
        chosen = self.chosen_subsets(there, "add its record list and its folder")
        items: list[Item] = []
        lost: list[Item] = []
        faults: list[Fault] = []
        for subset in chosen:
            owner = _OWNERS[subset](folder)
            found = owner.find()
            originals = {original.index: original for original in found.originals}
            problems = {problem.index: problem for problem in found.problems if problem.index is not None}
            for name, index, size, path in records:
                if name != subset:
                    continue
                original, problem = originals.get(index), problems.get(index)
                if original is None:
                    lost.append(_lost_item(owner, index, problem))
                    text = f"{problem.kind}: " if problem else ""
                    text += f"{subset} number {index} of {path.name} cannot be used"
                    faults.append(Fault(Kind.MISSING_IMAGE, lost[-1].image, text))
                    continue
                if problem is not None and problem.kind is Lack.UNKNOWN_SCENE:
                    text = f"{problem.text} of {original.id} is none of the 365 scenes"
                    faults.append(Fault(Kind.LABEL, original.image, text, "the image has no scene", stops=False))
                items.append(_item(original, size))
        listing = self.examine(split, items)
        return Listing(split, [*items, *lost], [*faults, *listing.faults])

    def read(self, item: Item) -> tuple[Photograph | np.ndarray, dict[str, Any]]:
        original = getattr(item, "original", None)
        if original is None:
            raise UserError(f"{item.image}: not an image of {type(self).__name__}; take the items of the source")
        image = open_image(item.image)
        values: dict[str, Any] = {name: value for name, value in item.annotations.items() if isinstance(value, int)}
        try:
            labels = original.read_labels(image.size, image.size)
        except UserError as error:
            file = next((path for path in original.masks.values() if str(error).startswith(f"{path}: ")), item.image)
            raise FaultError(Fault.from_error(Kind.UNREADABLE, error, file)) from error
        if "part" in labels:
            labels["part"] = part_map(labels["object"], labels["part"])
        return image, values | {name: to_label_ids(found, name) for name, found in labels.items()}

    def _records(self, folder: Path, split: str) -> Iterator[tuple[str, int, tuple[int, int], Path]]:
        """Subset, number, (height, width) and list of every record of a split."""
        found = False
        for name in RECORDS[split]:
            path = next((folder / place / name for place in PLACES if (folder / place / name).is_file()), None)
            if path is None:
                continue
            found = True
            for number, line in enumerate(read_lines(path), 1):
                try:
                    record = json.loads(line)
                    subset = str(record["dataset"])
                    size = (int(record["height"]), int(record["width"]))
                    yield NAMES.get(subset, subset), int(record["file_index"]), size, path
                except (ValueError, KeyError, TypeError) as error:
                    problem = f"line {number} is no record ({type(error).__name__}: {' '.join(str(error).split())})"
                    raise FaultError(Fault(Kind.LISTING, path, problem)) from error
        if not found:
            raise UserError(f"{folder / PLACES[0]}: none of {', '.join(RECORDS[split])} in it; {self.expectation}")


def _pascal(folder: Path) -> OwnersFolder:
    place = folder / "broden_dataset/pascal"
    part = place / "part"
    return PascalFolders(str(place / "context"), str(part) if part.is_dir() else None, str(place))


_OWNERS: dict[str, Callable[[Path], OwnersFolder]] = {
    "ade20k": lambda folder: ADE20KFolder(
        str(folder / "broden_dataset/ade20k"), scenes=[folder / "meta_file/ade20k", folder / "meta_file"]
    ),
    "pascal": _pascal,
    "opensurfaces": lambda folder: OpenSurfacesFolder(str(folder / "broden_dataset/opensurfaces")),
    "dtd": lambda folder: DTDFolder(str(folder / "broden_dataset/dtd")),
}
"""Subset → what lists its originals in the authors' folder."""


def _lost_item(owner: OwnersFolder, index: int, problem: Problem | None) -> Item:
    """An image of a record list that cannot be used. Its path is that of the file at fault, as far as that is known."""
    identity, file = (problem.id, problem.file) if problem else (f"{owner.subset}/#{index}", "")
    return Item(identity, owner.folders[0] / (file or f"#{index}"))


def _item(original: Original, size: tuple[int, int]) -> OriginalItem:
    annotations: dict[str, Path | int] = dict(original.masks)
    for name, label in (("scene", original.scene), ("texture", original.texture)):
        if label is not None:
            annotations[name] = label
    return OriginalItem(original.id, original.image, annotations, size, original)
