"""Pascal VOC 2012 segmentation and whatever shares its layout."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from upernet.config import UserError
from upernet.data.images import read_mask
from upernet.data.labels import IGNORE
from upernet.data.source import Annotation, Item, Source

VOC_LABELS = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]


@dataclass(kw_only=True)
class VOC(Source):
    """Pascal VOC 2012 segmentation (Everingham et al., IJCV 2015): 20 object classes and background.

    Annotation `mask`: a palette PNG read as indices, 0 background, 1 to 20 objects, 255 the unlabelled border.

    * Layout: `JPEGImages/<id>.jpg`, `SegmentationClass/<id>.png`, `ImageSets/Segmentation/<split>.txt`.
    * Splits: train 1,464 and val 1,449 images; with the SBD masks (`SegmentationClassAug`) trainaug 10,582.
    * Licence: images come from Flickr under their own terms; annotations for research.
    """

    masks: str = "SegmentationClass"
    """Folder of the masks: `SegmentationClass` or `SegmentationClassAug`."""

    layout: ClassVar[str] = "JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/<split>.txt"

    @cached_property
    def annotations(self) -> dict[str, Annotation]:
        return {"mask": Annotation(tuple(VOC_LABELS), dense=True)}

    def items(self, split: str) -> list[Item]:
        listing = self.folder / "ImageSets" / "Segmentation" / f"{split}.txt"
        if not listing.is_file():
            found = sorted(p.stem for p in listing.parent.glob("*.txt"))
            raise UserError(f"{listing}: no such split; found: {', '.join(found) or 'none'}")
        names = listing.read_text().split()
        images, masks = self.folder / "JPEGImages", self.folder / self.masks
        return [Item(name, images / f"{name}.jpg", {"mask": masks / f"{name}.png"}) for name in names]

    def read_mask(self, path: Path) -> np.ndarray:
        mask = read_mask(path)
        mask[mask == 255] = IGNORE
        return mask
