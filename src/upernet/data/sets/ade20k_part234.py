"""ADE20K-Part-234: objects of ADE20K with their parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from upernet.data.coco import draw, read_coco
from upernet.data.faults import FaultError
from upernet.data.folder_source import FolderSource
from upernet.data.images import Photograph, open_image
from upernet.data.items import Annotation, Item, Listing
from upernet.data.masks import read_mask
from upernet.errors import UserError
from upernet.labels import IGNORE, part_names

FOLDERS = {"train": "training", "val": "validation"}
# fmt: off
PARTS: Mapping[str, tuple[str, ...]] = {
    "person": ("arm", "back", "foot", "gaze", "hand", "head", "leg", "neck", "torso"),
    "door": ("door frame", "handle", "knob", "panel"),
    "clock": ("face", "frame"),
    "toilet": ("bowl", "cistern", "lid"),
    "cabinet": ("door", "drawer", "front", "shelf", "side", "skirt", "top"),
    "sink": ("bowl", "faucet", "pedestal", "tap", "top"),
    "lamp": ("arm", "base", "canopy", "column", "cord", "highlight", "light source", "shade", "tube"),
    "sconce": ("arm", "backplate", "highlight", "light source", "shade"),
    "chair": ("apron", "arm", "back", "base", "leg", "seat", "seat cushion", "skirt", "stretcher"),
    "chest of drawers": ("apron", "door", "drawer", "front", "leg"),
    "chandelier": ("arm", "bulb", "canopy", "chain", "cord", "highlight", "light source", "shade"),
    "bed": ("footboard", "headboard", "leg", "side rail"),
    "table": ("apron", "drawer", "leg", "shelf", "top", "wheel"),
    "armchair": ("apron", "arm", "back", "back pillow", "leg", "seat", "seat base", "seat cushion"),
    "ottoman": ("back", "leg", "seat"),
    "shelf": ("door", "drawer", "front", "shelf"),
    "swivel chair": ("back", "base", "seat", "wheel"),
    "fan": ("blade", "canopy", "tube"),
    "coffee table": ("leg", "top"),
    "stool": ("leg", "seat"),
    "sofa": ("arm", "back", "back pillow", "leg", "seat base", "seat cushion", "skirt"),
    "computer": ("computer case", "keyboard", "monitor", "mouse"),
    "desk": ("apron", "door", "drawer", "leg", "shelf", "top"),
    "wardrobe": ("door", "drawer", "front", "leg", "mirror", "top"),
    "car": ("bumper", "door", "headlight", "hood", "license plate", "logo", "mirror", "wheel", "window", "wiper"),
    "bus": ("bumper", "door", "headlight", "license plate", "logo", "mirror", "wheel", "window", "wiper"),
    "oven": ("button panel", "door", "drawer", "top"),
    "cooking stove": ("burner", "button panel", "door", "drawer", "oven", "stove"),
    "microwave": ("button panel", "door", "front", "side", "top", "window"),
    "refrigerator": ("button panel", "door", "drawer", "side"),
    "kitchen island": ("door", "drawer", "front", "side", "top"),
    "dishwasher": ("button panel", "handle", "skirt"),
    "bookcase": ("door", "drawer", "front", "side"),
    "television receiver": ("base", "buttons", "frame", "keys", "screen", "speaker"),
    "glass": ("base", "bowl", "opening", "stem"),
    "pool table": ("bed", "leg", "pocket"),
    "van": ("bumper", "door", "headlight", "license plate", "logo", "mirror", "taillight", "wheel", "window", "wiper"),
    "airplane": ("door", "fuselage", "landing gear", "propeller", "stabilizer", "turbine engine", "wing"),
    "truck": ("bumper", "door", "headlight", "license plate", "logo", "mirror", "wheel", "window"),
    "minibike": ("license plate", "mirror", "seat", "wheel"),
    "washer": ("button panel", "door", "front", "side"),
    "bench": ("arm", "back", "leg", "seat"),
    "traffic light": ("housing", "pole"),
    "light": ("aperture", "canopy", "diffusor", "highlight", "light source", "shade"),
}
# fmt: on
"""Object → its parts, in the order of the published part ids."""
OBJECTS = tuple(sorted(PARTS))
"""The 44 objects in the order of the published object ids, which is that of the alphabet."""


@dataclass(kw_only=True)
class ADE20KPart234(FolderSource):
    """ADE20K-Part-234 (Wei et al., NeurIPS 2023, OV-PARTS): 44 objects of ADE20K and 234 of their parts.

    Annotations `object`, drawn from the outlines of objects in a COCO file, later ones over earlier ones, and `part`, a
    16-bit PNG of part ids with names such as `chair/leg`, published as "chair's leg". 65535 in the PNG, and what no
    outline covers, is unlabelled here: background, other objects, and in `part` the pixels of objects that are no named
    part.

    * Layout: `images/{training,validation}/*.jpg`, `annotations_detectron2_part/{training,validation}/*.png` of the
      same names, `ade20k_instance_{train,val}.json`.
    * Splits: train 7,347 and val 1,016 images in the paper. Images without an entry in the JSON have parts alone.
    * Licence: images for non-commercial research and education only; annotations BSD-3.
    * Get it: `ADE20KPart234.tar.gz` from https://github.com/OpenRobotLab/OV_PARTS.
    """

    title: ClassVar[str] = "ADE20K-Part-234"
    published: ClassVar[Mapping[str, int]] = {"train": 7347, "val": 1016}
    layout: ClassVar[str] = (
        "images/{training,validation}/*.jpg, annotations_detectron2_part/{training,validation}/*.png and "
        "ade20k_instance_{train,val}.json"
    )
    origin: ClassVar[str] = "ADE20KPart234.tar.gz from https://github.com/OpenRobotLab/OV_PARTS"
    subfolders: ClassVar[tuple[tuple[str, ...], ...]] = (("images", "annotations_detectron2_part"),)

    @cached_property
    def annotations(self) -> dict[str, Annotation]:
        return {"object": Annotation(OBJECTS, dense=True), "part": Annotation(part_names(PARTS), dense=True)}

    def list_split(self, split: str) -> Listing:
        name = FOLDERS.get(split, split)
        short = {folder: key for key, folder in FOLDERS.items()}.get(name, name)
        path = self.folder / f"ade20k_instance_{short}.json"
        masks = self.folder / "annotations_detectron2_part" / name
        images = self.find(f"images/{name}", ".jpg")
        if not path.is_file():
            raise UserError(f"{path}: no such file for split {split!r}; in {self.folder}, {self.expectation}")
        outlined = read_coco(path)
        items = []
        for image in images:
            annotations: dict[str, Path | int] = {"object": path} if image.stem in outlined else {}
            items.append(Item(image.stem, image, annotations | {"part": masks / f"{image.stem}.png"}))
        return self.examine(split, items, masks=masks.glob("*.png"))

    def read(self, item: Item) -> tuple[Photograph, dict[str, Any]]:
        image = open_image(item.image)
        values: dict[str, Any] = {}
        for name, path in item.annotations.items():
            assert isinstance(path, Path)
            values[name] = self._draw_objects(item, path) if name == "object" else self.read_mask(path, name)
            for fault in self._mask_faults(path, values[name], name, item, image.size):
                raise FaultError(fault)
        return image, values

    def read_mask(self, path: Path, annotation: str) -> np.ndarray:
        mask = read_mask(path)
        mask[mask == 65535] = IGNORE
        return mask

    def _draw_objects(self, item: Item, path: Path) -> np.ndarray:
        image = read_coco(path)[item.id]
        return draw(image.shapes, image.size, {name: number for number, name in enumerate(OBJECTS)}, path)
