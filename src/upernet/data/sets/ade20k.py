"""ADE20K as the scene parsing benchmark has it: SceneParse150."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from upernet.data.images import read_mask
from upernet.data.source import Annotation, Item, Source
from upernet.errors import UserError
from upernet.vocabulary import vocabulary

FOLDERS = {"train": "training", "val": "validation"}


@dataclass(kw_only=True)
class ADE20K(Source):
    """ADE20K for scene parsing, SceneParse150 (Zhou et al., CVPR 2017 and IJCV 2019): 150 classes of things and stuff.

    Annotation `mask`: a grey PNG, 0 anything else (unlabelled here), 1 to 150 the classes; 255, if met, is unlabelled
    too. Label ids are the pixel values less one.

    * Layout: `images/{training,validation}/*.jpg`, `annotations/{training,validation}/*.png` of the same names.
    * Splits: train 20,210 and val 2,000 images of many sizes.
    * Classes: `vocabulary("ade20k")`; names of the benchmark, the first of each list of synonyms.
    * Licence: images for non-commercial research and education only; annotations BSD-3.
    * Get it: `ADEChallengeData2016.zip` (0.9 GB) from http://sceneparsing.csail.mit.edu. The full data set, with
      `_seg.png` and parts, has another layout.
    """

    layout: ClassVar[str] = (
        "images/{training,validation}/*.jpg and annotations/{training,validation}/*.png, as in ADEChallengeData2016"
    )
    origin: ClassVar[str] = "ADEChallengeData2016.zip from http://sceneparsing.csail.mit.edu"
    marks: ClassVar[tuple[tuple[str, ...], ...]] = (("images", "annotations"),)

    @cached_property
    def annotations(self) -> dict[str, Annotation]:
        return {"mask": Annotation(tuple(vocabulary("ade20k")), dense=True)}

    def items(self, split: str) -> list[Item]:
        name = FOLDERS.get(split, split)
        masks = self.folder / "annotations" / name
        images = self.find(f"images/{name}", ".jpg")
        items = [Item(p.stem, p, {"mask": masks / f"{p.stem}.png"}) for p in images]
        return self.complete(items, split, masks=masks.glob("*.png"))

    def read_mask(self, path: Path) -> np.ndarray:
        values = read_mask(path)
        values[values == 255] = 0
        if values.max() > 150 or values.min() < 0:
            wrong = values[(values > 150) | (values < 0)][0]
            raise UserError(f"{path}: value {wrong} is no label of ADE20K; valid: 0 to 150, and 255 for unlabelled")
        values -= 1  # 0, unlabelled, becomes `IGNORE`
        return values
