"""PartImageNet: animals, vehicles and bottles of ImageNet with their parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from upernet.data.coco import CocoImage, draw, read_coco
from upernet.data.faults import FaultError
from upernet.data.folder_source import FolderSource
from upernet.data.images import Photograph, open_image
from upernet.data.items import Annotation, Item, Listing
from upernet.errors import UserError
from upernet.labels import part_names

PARTS: Mapping[str, tuple[str, ...]] = {
    "Quadruped": ("Head", "Body", "Foot", "Tail"),
    "Biped": ("Head", "Body", "Hand", "Foot", "Tail"),
    "Fish": ("Head", "Body", "Fin", "Tail"),
    "Bird": ("Head", "Body", "Wing", "Foot", "Tail"),
    "Snake": ("Head", "Body"),
    "Reptile": ("Head", "Body", "Foot", "Tail"),
    "Car": ("Body", "Tier", "Side Mirror"),
    "Bicycle": ("Body", "Head", "Seat", "Tier"),
    "Boat": ("Body", "Sail"),
    "Aeroplane": ("Head", "Body", "Engine", "Wing", "Tail"),
    "Bottle": ("Mouth", "Body"),
}
"""Super-category → its parts, in the order of the published category ids. "Tier" is the published spelling of tyre."""
OBJECT_IDS = {f"{kind} {part}": number for number, (kind, parts) in enumerate(PARTS.items()) for part in parts}
"""Published name of a category, such as `Quadruped Head` → label id of its object."""
PART_IDS = {category: number for number, category in enumerate(OBJECT_IDS)}
"""Published name of a category → label id of the part."""


@dataclass(kw_only=True)
class PartImageNet(FolderSource):
    """PartImageNet (He et al., ECCV 2022): one object of each ImageNet picture, cut into parts.

    Annotations `object`, 11 super-categories, and `part`, 40 parts with names such as `Quadruped/Head`. Both are drawn
    from outlines in a COCO file: a pixel belongs to an outline that encloses its centre. Where parts overlap, the one
    of the smaller area lies on top. The object is the super-category of its parts. What no part covers is unlabelled:
    it may be background, or another animal that was not outlined.

    * Layout, one of two: `train.json` and `train/<synset>/*.JPEG`; or, as in `PartImageNet_Seg.zip`,
      `annotations/train/train.json` and `images/train/*.JPEG`; val and test likewise. Folders per synset are optional
      in both. Layouts as of users' descriptions; file names in the JSON hold no folders that matter.
    * Splits: train 16,540, val 2,957 and test 4,598 pictures in the first layout, where no ImageNet class is in two
      splits (109, 19 and 30 classes). `PartImageNet_Seg` divides the same 24,095 pictures within classes.
    * Licence: annotations for research; pictures under the terms of ImageNet.
    * Get it: https://github.com/TACJu/PartImageNet.
    * Traps: some outlines have one or two points and enclose nothing; they are left out. `Tier` means tyre.
    """

    title: ClassVar[str] = "PartImageNet"
    published: ClassVar[Mapping[str, int]] = {"train": 16540, "val": 2957, "test": 4598}
    layout: ClassVar[str] = (
        "<split>.json and <split>/<synset>/*.JPEG, or annotations/<split>/<split>.json and images/<split>/*.JPEG"
    )
    origin: ClassVar[str] = "https://github.com/TACJu/PartImageNet"
    subfolders: ClassVar[tuple[tuple[str, ...], ...]] = (("annotations", "images"), ("train",), ("val",), ("test",))

    @cached_property
    def annotations(self) -> dict[str, Annotation]:
        return {"object": Annotation(tuple(PARTS), dense=True), "part": Annotation(part_names(PARTS), dense=True)}

    def list_split(self, split: str) -> Listing:
        folder = self.folder
        sorted_by_kind = (folder / "annotations").is_dir()
        images = folder / "images" / split if sorted_by_kind else folder / split
        path = folder / "annotations" / split / f"{split}.json" if sorted_by_kind else folder / f"{split}.json"
        if not path.is_file():
            raise UserError(f"{path}: no such file for split {split!r}; in {folder}, {self.expectation}")
        items = []
        for stem, image in read_coco(path).items():
            synset = images / stem.partition("_")[0]
            within = synset if synset.is_dir() else images
            items.append(Item(stem, within / image.file, {"object": path, "part": path}))
        return self.examine(split, items)

    def read(self, item: Item) -> tuple[Photograph, dict[str, Any]]:
        image = open_image(item.image)
        values: dict[str, Any] = {}
        for name, path in item.annotations.items():
            assert isinstance(path, Path)
            values[name] = self._draw(read_coco(path)[item.id], name, path)
            for fault in self._mask_faults(path, values[name], name, item, image.size):
                raise FaultError(fault)
        return image, values

    def _draw(self, image: CocoImage, annotation: str, path: Path) -> np.ndarray:
        shapes = sorted(image.shapes, key=lambda shape: -shape.area)
        return draw(shapes, image.size, OBJECT_IDS if annotation == "object" else PART_IDS, path)
