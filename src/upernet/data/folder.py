"""Data sets that are plain folders: images with their masks, or one folder of images per class."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from upernet.data.faults import Fault, Kind
from upernet.data.folder_source import FolderSource
from upernet.data.items import Annotation, Item, Listing
from upernet.data.masks import read_mask
from upernet.data.search import image_files, read_lines
from upernet.errors import UserError
from upernet.labels import IGNORE


@dataclass(kw_only=True)
class ImageMaskFolder(FolderSource):
    """Images in one folder, masks of the same names in another.

    Annotation `mask`: a map whose pixel values are label ids.
    """

    images: str = "images/{split}"
    """Folder of the images below `root`."""
    masks: str = "annotations/{split}"
    """Folder of the masks below `root`: PNG files with the images' names."""
    labels: list[str] = field(default_factory=list)
    """Label names in the order of the pixel values; if empty, read from `classes.json` or `labels.csv` in `root`."""
    ignore_value: int | None = 255
    """Pixel value that means unlabelled; null if no value does."""

    layout: ClassVar[str] = (
        "images/<split>/ and annotations/<split>/, and classes.json or labels.csv unless labels are given"
    )

    @cached_property
    def annotations(self) -> dict[str, Annotation]:
        return {"mask": Annotation(tuple(self.labels) or read_label_names(self.folder), dense=True)}

    def list_split(self, split: str) -> Listing:
        images = self.folder / fill_pattern("images", self.images, split)
        masks = self.folder / fill_pattern("masks", self.masks, split)
        items = []
        for path in image_files(images):
            relative = path.relative_to(images)
            mask = masks / relative.with_suffix(".png")
            if mask == path:  # images and masks lie in one folder
                continue
            items.append(Item(relative.with_suffix("").as_posix(), path, {"mask": mask}))
        if not items:
            raise UserError(f"{images}: no images, only masks; in {self.folder}, {self.expectation}")
        remedy = "a label map has the name of its image and ends in .png"
        # Users who remove an image from a folder of their own may leave its mask there.
        return self.examine(split, items, masks=masks.rglob("*.png"), stray=True, remedy=remedy)

    def read_mask(self, path: Path, annotation: str) -> np.ndarray:
        mask = read_mask(path)
        if self.ignore_value is not None:
            mask[mask == self.ignore_value] = IGNORE
        return mask


def fill_pattern(name: str, pattern: str, split: str) -> str:
    """Fill a path pattern with the name of a split.

    Args:
        name: Field that holds the pattern, for the error line.
        pattern: A path that may hold `{split}`.
        split: Name of the split.

    Raises:
        UserError: If the pattern holds anything in braces but `{split}`.
    """
    try:
        return pattern.format(split=split)
    except (KeyError, IndexError, ValueError, AttributeError):
        raise UserError(f"{name}: {pattern!r} may only hold {{split}}; for example 'images/{{split}}'") from None


def read_label_names(root: Path) -> tuple[str, ...]:
    """Label names from `classes.json` (a list, or its key `classes`) or `labels.csv` (column `name`).

    Entries of `classes.json` may be names or mappings with a `name`.

    Raises:
        UserError: If neither file exists, or it holds no names.
    """
    json_path, csv_path = root / "classes.json", root / "labels.csv"
    try:
        if json_path.is_file():
            content = json.loads(json_path.read_text(encoding="utf-8-sig"))
            entries = content["classes"] if isinstance(content, dict) else content
            if not isinstance(entries, list):
                raise TypeError(f"{entries!r} is not a list")
            names = tuple(str(entry["name"] if isinstance(entry, dict) else entry) for entry in entries)
        elif csv_path.is_file():
            with csv_path.open(newline="", encoding="utf-8-sig") as file:
                names = tuple(row["name"] for row in csv.DictReader(file))
        else:
            raise UserError(f"{root}: neither classes.json nor labels.csv in it; add one, or give labels: [sky, car]")
        if not names:
            raise ValueError("it is empty")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{json_path if json_path.is_file() else csv_path}: no list of class names ({error})"
        ) from error
    return names


@dataclass(kw_only=True)
class ClassFolder(FolderSource):
    """One folder of images per class.

    Annotation `label`: one label per image, the name of its folder.
    """

    images: str = "images/{split}"
    """Folder of the class folders below `root`."""
    lists: str | None = None
    """Text file below `root` that lists a split, such as `labels/{split}1.txt`, with one `class/file` per line; null if
    every split has a folder of its own."""
    labels: list[str] = field(default_factory=list)
    """Names of the class folders in the order of the label ids; if empty, all class folders, sorted by name."""

    layout: ClassVar[str] = "images/<split>/<class>/*.jpg"

    @cached_property
    def annotations(self) -> dict[str, Annotation]:
        if self.labels:
            return {"label": Annotation(tuple(self.labels), dense=False)}
        splits = [p for p in self.folder.glob(fill_pattern("images", self.images, "*")) if p.is_dir()]
        names = sorted({p.name for split in splits for p in split.iterdir() if p.is_dir()})
        if not names:
            raise UserError(f"{self.folder}: no class folders; {type(self).__name__} expects {self.layout}")
        return {"label": Annotation(tuple(names), dense=False)}

    def list_split(self, split: str) -> Listing:
        base = self.folder / fill_pattern("images", self.images, split)
        if self.lists is None:
            paths = image_files(base)
        else:
            list_file = self.folder / fill_pattern("lists", self.lists, split)
            if not list_file.is_file():
                raise UserError(f"{list_file}: no such list for split {split!r}")
            paths = [base / line for line in read_lines(list_file)]
        ids = {name: i for i, name in enumerate(self.annotations["label"].labels)}
        items, unknown = [], []
        for path in paths:
            relative = path.relative_to(base)
            name = relative.parts[0]
            if name not in ids:
                unknown.append(Fault(Kind.LABEL, path, f"folder {name!r} is no label", f"labels: {', '.join(ids)}"))
            annotations: dict[str, Path | int] = {"label": ids[name]} if name in ids else {}
            items.append(Item(relative.with_suffix("").as_posix(), path, annotations))
        listing = self.examine(split, items)
        return replace(listing, faults=[*listing.faults, *unknown])
