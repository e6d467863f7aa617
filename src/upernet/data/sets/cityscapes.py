"""Cityscapes: street scenes of 50 cities, seen from a car."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from upernet.data.folder_source import FolderSource
from upernet.data.items import Annotation, Item, Listing
from upernet.data.masks import read_mask
from upernet.errors import UserError
from upernet.labels import IGNORE

IMAGE = "_leftImg8bit.png"
POLYGONS = "_gtFine_polygons.json"
LABEL_IDS = "_gtFine_labelIds.png"
TRAIN_IDS = "_gtFine_labelTrainIds.png"
UNLABELLED = 255
"""Train id of labels that belong to no class."""


class Label(NamedTuple):
    """One label of Cityscapes. A label with id -1 is never drawn."""

    name: str
    id: int
    train_id: int
    colour: str


# fmt: off
LABELS = (
    Label("unlabeled",              0, 255, "#000000"),
    Label("ego vehicle",            1, 255, "#000000"),
    Label("rectification border",   2, 255, "#000000"),
    Label("out of roi",             3, 255, "#000000"),
    Label("static",                 4, 255, "#000000"),
    Label("dynamic",                5, 255, "#6f4a00"),
    Label("ground",                 6, 255, "#510051"),
    Label("road",                   7,   0, "#804080"),
    Label("sidewalk",               8,   1, "#f423e8"),
    Label("parking",                9, 255, "#faaaa0"),
    Label("rail track",            10, 255, "#e6968c"),
    Label("building",              11,   2, "#464646"),
    Label("wall",                  12,   3, "#66669c"),
    Label("fence",                 13,   4, "#be9999"),
    Label("guard rail",            14, 255, "#b4a5b4"),
    Label("bridge",                15, 255, "#966464"),
    Label("tunnel",                16, 255, "#96785a"),
    Label("pole",                  17,   5, "#999999"),
    Label("polegroup",             18, 255, "#999999"),
    Label("traffic light",         19,   6, "#faaa1e"),
    Label("traffic sign",          20,   7, "#dcdc00"),
    Label("vegetation",            21,   8, "#6b8e23"),
    Label("terrain",               22,   9, "#98fb98"),
    Label("sky",                   23,  10, "#4682b4"),
    Label("person",                24,  11, "#dc143c"),
    Label("rider",                 25,  12, "#ff0000"),
    Label("car",                   26,  13, "#00008e"),
    Label("truck",                 27,  14, "#000046"),
    Label("bus",                   28,  15, "#003c64"),
    Label("caravan",               29, 255, "#00005a"),
    Label("trailer",               30, 255, "#00006e"),
    Label("train",                 31,  16, "#005064"),
    Label("motorcycle",            32,  17, "#0000e6"),
    Label("bicycle",               33,  18, "#770b20"),
    Label("license plate",         -1,  -1, "#00008e"),
)
# fmt: on
DRAWN = tuple(label for label in LABELS if label.id >= 0)
"""Labels that annotations hold, by id."""
CLASSES = tuple(sorted((label for label in DRAWN if label.train_id != UNLABELLED), key=lambda label: label.train_id))
"""Labels that are trained and measured, by train id."""


@dataclass(kw_only=True)
class Cityscapes(FolderSource):
    """Cityscapes with fine annotations (Cordts et al., CVPR 2016): 19 classes of things and stuff.

    Annotation `mask`: a grey PNG of trainIds, 0 to 18 the classes, 255 unlabelled. `upernet prepare cityscapes ROOT`
    makes these files from the published ones. The test split has no labels.

    * Layout: `leftImg8bit/<split>/<city>/*_leftImg8bit.png`, `gtFine/<split>/<city>/*_gtFine_labelTrainIds.png`.
    * Splits: train 2,975, val 500 and test 1,525 images of 2048×1024 pixels; no city is in two splits.
    * Licence: non-commercial; no redistribution.
    * Get it: `leftImg8bit_trainvaltest.zip` (11 GB) and `gtFine_trainvaltest.zip` (0.2 GB) from
      https://www.cityscapes-dataset.com, after registration; unpack both into one folder.
    """

    title: ClassVar[str] = "Cityscapes"
    classes: ClassVar[Mapping[str, str]] = {label.name: label.colour for label in CLASSES}
    published: ClassVar[Mapping[str, int]] = {"train": 2975, "val": 500, "test": 1525}
    photograph: ClassVar[tuple[int, int] | None] = (1024, 2048)
    layout: ClassVar[str] = (
        "leftImg8bit/<split>/<city>/*_leftImg8bit.png and gtFine/<split>/<city>/*_gtFine_labelTrainIds.png"
    )
    origin: ClassVar[str] = (
        "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from https://www.cityscapes-dataset.com"
    )
    subfolders: ClassVar[tuple[tuple[str, ...], ...]] = (("leftImg8bit",),)

    @cached_property
    def annotations(self) -> dict[str, Annotation]:
        return {"mask": Annotation(tuple(self.classes), dense=True)}

    def list_split(self, split: str) -> Listing:
        items, remedy = [], ""
        for image in self.find(f"leftImg8bit/{split}", IMAGE):
            stem = image.name.removesuffix(IMAGE)
            labels = self.folder / "gtFine" / split / image.parent.name
            if not remedy and any((labels / f"{stem}{kind}").is_file() for kind in (POLYGONS, LABEL_IDS)):
                remedy = f"run: upernet prepare cityscapes {self.folder}"
            items.append(Item(stem, image, {} if split == "test" else {"mask": labels / f"{stem}{TRAIN_IDS}"}))
        masks = () if split == "test" else (self.folder / "gtFine" / split).glob(f"*/*{TRAIN_IDS}")
        return self.examine(split, items, masks=masks, remedy=remedy)

    def read_mask(self, path: Path, annotation: str) -> np.ndarray:
        mask = read_mask(path)
        mask[mask == UNLABELLED] = IGNORE
        return mask

    def prediction_ids(self, annotation: str) -> np.ndarray:
        """The label ids, which the benchmark's server expects instead of train ids."""
        return np.array([*(label.id for label in CLASSES), 0])

    def prediction_file(self, item: str) -> str:
        """A file name by which the benchmark's server knows the image.

        Raises:
            UserError: If the image's id does not hold `<city>_<sequence>_<frame>`.
        """
        name = re.search(r"[^/_]+_[0-9]{6}_[0-9]{6}", item)
        if not name:
            raise UserError(f"image {item!r} has no name of Cityscapes; for example frankfurt_000000_000294")
        return f"{name[0]}_predicted.png"
