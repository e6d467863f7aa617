"""Cityscapes: what a car sees in 50 cities."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from upernet.data.images import read_mask
from upernet.data.source import Annotation, Item, Source
from upernet.labels import IGNORE
from upernet.vocabulary import vocabulary

IMAGE = "_leftImg8bit.png"
POLYGONS = "_gtFine_polygons.json"
LABEL_IDS = "_gtFine_labelIds.png"
TRAIN_IDS = "_gtFine_labelTrainIds.png"


@dataclass(kw_only=True)
class Cityscapes(Source):
    """Cityscapes with fine annotations (Cordts et al., CVPR 2016): 19 classes of things and stuff.

    Annotation `mask`: a grey PNG of trainIds, 0 to 18 the classes, 255 unlabelled. `upernet prepare cityscapes ROOT`
    makes these from what is published. The test split has no labels.

    * Layout: `leftImg8bit/<split>/<city>/*_leftImg8bit.png`, `gtFine/<split>/<city>/*_gtFine_labelTrainIds.png`.
    * Splits: train 2,975, val 500 and test 1,525 images of 2048×1024 pixels; no city is in two of them.
    * Classes: `vocabulary("cityscapes")`.
    * Licence: non-commercial; no redistribution.
    * Get it: `leftImg8bit_trainvaltest.zip` (11 GB) and `gtFine_trainvaltest.zip` (0.2 GB) from
      https://www.cityscapes-dataset.com, after registration; unpack both into one folder.
    """

    layout: ClassVar[str] = (
        "leftImg8bit/<split>/<city>/*_leftImg8bit.png and gtFine/<split>/<city>/*_gtFine_labelTrainIds.png"
    )
    origin: ClassVar[str] = (
        "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from https://www.cityscapes-dataset.com"
    )
    marks: ClassVar[tuple[tuple[str, ...], ...]] = (("leftImg8bit",),)

    @cached_property
    def annotations(self) -> dict[str, Annotation]:
        return {"mask": Annotation(tuple(vocabulary("cityscapes")), dense=True)}

    def items(self, split: str) -> list[Item]:
        items, remedy = [], ""
        for image in self.find(f"leftImg8bit/{split}", IMAGE):
            stem = image.name.removesuffix(IMAGE)
            labels = self.folder / "gtFine" / split / image.parent.name
            if not remedy and any((labels / f"{stem}{kind}").is_file() for kind in (POLYGONS, LABEL_IDS)):
                remedy = f"run: upernet prepare cityscapes {self.folder}"
            items.append(Item(stem, image, {} if split == "test" else {"mask": labels / f"{stem}{TRAIN_IDS}"}))
        masks = [] if split == "test" else (self.folder / "gtFine" / split).glob(f"*/*{TRAIN_IDS}")
        return self.complete(items, split, remedy, masks)

    def read_mask(self, path: Path) -> np.ndarray:
        mask = read_mask(path)
        mask[mask == 255] = IGNORE
        return mask
