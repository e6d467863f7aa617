"""Pascal-Part-116: the objects of VOC with their parts, cleaned up."""

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
from upernet.data.sets.voc import NAMES
from upernet.labels import IGNORE, part_names

OBJECTS = NAMES[1:]
"""The 20 objects of VOC, without background."""
# fmt: off
PARTS: Mapping[str, tuple[str, ...]] = {
    "aeroplane": ("body", "stern", "wing", "tail", "engine", "wheel"),
    "bicycle": ("wheel", "saddle", "handlebar", "chainwheel", "headlight"),
    "bird": ("wing", "tail", "head", "eye", "beak", "torso", "neck", "leg", "foot"),
    "bottle": ("body", "cap"),
    "bus": ("wheel", "headlight", "front", "side", "back", "roof", "mirror", "license plate", "door", "window"),
    "car": ("wheel", "headlight", "front", "side", "back", "roof", "mirror", "license plate", "door", "window"),
    "cat": ("tail", "head", "eye", "torso", "neck", "leg", "nose", "paw", "ear"),
    "cow": ("tail", "head", "eye", "torso", "neck", "leg", "ear", "muzzle", "horn"),
    "dog": ("tail", "head", "eye", "torso", "neck", "leg", "nose", "paw", "ear", "muzzle"),
    "horse": ("tail", "head", "eye", "torso", "neck", "leg", "ear", "muzzle", "hoof"),
    "motorbike": ("wheel", "saddle", "handlebar", "headlight"),
    "person": ("head", "eye", "torso", "neck", "leg", "foot", "nose", "ear", "eyebrow", "mouth", "hair",
               "lower arm", "upper arm", "hand"),
    "pottedplant": ("pot", "plant"),
    "sheep": ("tail", "head", "eye", "torso", "neck", "leg", "ear", "muzzle", "horn"),
    "train": ("headlight", "head", "front", "side", "back", "roof", "coach"),
    "tvmonitor": ("screen",),
}
# fmt: on
"""Object → its parts, in the order of the published part ids. Boats, chairs, tables and sofas have none."""


@dataclass(kw_only=True)
class PascalPart116(FolderSource):
    """Pascal-Part-116 (Wei et al., NeurIPS 2023, OV-PARTS): the Pascal-Part of Chen et al., CVPR 2014, cleaned.

    Annotations `object`, the 20 objects of VOC, and `part`, 116 parts with names such as `aeroplane/wing`, published
    as "aeroplane's wing". Both are grey PNGs of label ids, 255 anything else: background, borders, and in `part` the
    pixels of objects that are no named part. All of these are unlabelled here. Left and right parts have one label.

    * Layout: `images/{train,val}/*.jpg`, `annotations_detectron2_obj/{train,val}/*.png`,
      `annotations_detectron2_part/{train,val}/*.png` of the same names.
    * Splits: train 8,431 and val 850 images of VOC 2010 in the paper.
    * Licence: images come from Flickr under their own terms; annotations for research.
    * Get it: `PascalPart116.tar.gz` from https://github.com/OpenRobotLab/OV_PARTS.
    * Traps: the archive holds files of macOS, `._*.jpg`, which are passed over.
    """

    title: ClassVar[str] = "Pascal-Part-116"
    published: ClassVar[Mapping[str, int]] = {"train": 8431, "val": 850}
    layout: ClassVar[str] = (
        "images/{train,val}/*.jpg, annotations_detectron2_obj/{train,val}/*.png and "
        "annotations_detectron2_part/{train,val}/*.png"
    )
    origin: ClassVar[str] = "PascalPart116.tar.gz from https://github.com/OpenRobotLab/OV_PARTS"
    subfolders: ClassVar[tuple[tuple[str, ...], ...]] = (("images", "annotations_detectron2_part"),)

    @cached_property
    def annotations(self) -> dict[str, Annotation]:
        return {"object": Annotation(OBJECTS, dense=True), "part": Annotation(part_names(PARTS), dense=True)}

    def list_split(self, split: str) -> Listing:
        things, parts = (self.folder / f"annotations_detectron2_{kind}" / split for kind in ("obj", "part"))
        items = [
            Item(p.stem, p, {"object": things / f"{p.stem}.png", "part": parts / f"{p.stem}.png"})
            for p in self.find(f"images/{split}", ".jpg")
        ]
        return self.examine(split, items, masks=[*things.glob("*.png"), *parts.glob("*.png")])

    def read_mask(self, path: Path, annotation: str) -> np.ndarray:
        mask = read_mask(path)
        mask[mask == 255] = IGNORE
        return mask
