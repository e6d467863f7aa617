"""Dense Material Segmentation: what things are made of, indoors and outdoors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from upernet.data.faults import Fault, FaultError, Kind
from upernet.data.folder_source import FolderSource
from upernet.data.items import Annotation, Item, Listing
from upernet.data.masks import read_mask
from upernet.labels import IGNORE

FOLDERS = {"val": "validation"}
# fmt: off
TAXONOMY = {
    "No label": "#000000", "Animal skin": "#bcbc89", "Bone/teeth/horn": "#00bc00", "Brickwork": "#bcbc00",
    "Cardboard": "#0000bc", "Carpet/rug": "#bc00bc", "Ceiling tile": "#00bcbc", "Ceramic": "#f1f1f1",
    "Chalkboard/blackboard": "#008989", "Clutter": "#e10000", "Concrete": "#89bc00", "Cork/corkboard": "#e1bc00",
    "Engineered stone": "#8900bc", "Fabric/cloth": "#89bcbc", "Fiberglass wool": "#00e189", "Fire": "#e1bcbc",
    "Foliage": "#008900", "Food": "#bc8900", "Fur": "#89e1bc", "Gemstone/quartz": "#bc89bc", "Glass": "#0089bc",
    "Hair": "#bce100", "I cannot tell": "#00e1bc", "Ice": "#bce1bc", "Leather": "#898900",
    "Liquid, non-water": "#e18900", "Metal": "#89e100", "Mirror": "#e1e100", "Not on list": "#8989bc",
    "Paint/plaster/enamel": "#e189bc", "Paper": "#00e100", "Pearl": "#bc00e1", "Photograph/painting": "#000089",
    "Plastic, clear": "#bc0000", "Plastic, non-clear": "#00bc89", "Rubber/latex": "#bc0089", "Sand": "#0000e1",
    "Skin/lips": "#e1bc89", "Sky": "#00bce1", "Snow": "#bcbce1", "Soap": "#890089", "Soil/mud": "#e10089",
    "Sponge": "#89bc89", "Stone, natural": "#e1e1bc", "Stone, polished": "#8900e1", "Styrofoam": "#e100e1",
    "Tile": "#89bce1", "Wallpaper": "#e1bce1", "Water": "#0089e1", "Wax": "#bc8989", "Whiteboard": "#bcbcbc",
    "Wicker": "#bce189", "Wood": "#890000", "Wood, tree": "#bc89e1", "Bad polygon": "#00e1e1",
    "Multiple materials": "#bce1e1", "Asphalt": "#898989",
}
# fmt: on
"""The 57 names of the published taxonomy by pixel value, and its colours."""
NO_MATERIAL = ("No label", "I cannot tell", "Not on list", "Bad polygon", "Multiple materials")
"""Names that say nothing of a material."""
UNPREDICTED = ("Fiberglass wool", "Liquid, non-water", "Pearl", "Soap", "Sponge", "Styrofoam")
"""Materials that the benchmark does not predict."""
MATERIALS = tuple(name for name in TAXONOMY if name not in NO_MATERIAL)
DMS46 = tuple(name for name in MATERIALS if name not in UNPREDICTED)
ADVICE = (
    "get the picture from Open Images (info.json.gz names its address), or set faults: skip for the source, which "
    "leaves such images out"
)


@dataclass(kw_only=True)
class DMS(FolderSource):
    """The Dense Material Segmentation Dataset (Upchurch and Niu, ECCV 2022): materials of whole scenes.

    Annotation `material`: a grey PNG whose values are the positions of 57 names in `taxonomy.json`. The benchmark
    `dms46` predicts 46 of them. Six more materials, "I cannot tell", "Not on list", "Multiple materials", bad polygons
    and 0, no label, are unlabelled there. `Clutter` is one of the 46.

    * Layout: `labels/{train,validation,test}/<id>.png`, `images/{train,validation,test}/<id>.jpg`, `info.json.gz`,
      which lists the paths, sizes and Open Images records of all pictures.
    * Splits: train 24,255, val 10,139 and test 10,166 images in the paper; the published files describe 44,557 of
      these 44,560.
    * Licence: labels CC BY-NC 4.0; each picture has a licence of its own.
    * Get it: `dms_v1_labels.zip` (0.6 GB) from https://github.com/apple/ml-dms-dataset. The pictures are part of Open
      Images and must be fetched one by one, reduced to the size of their labels and put into `images/`; the scripts
      of that repository do this. Where pictures can no longer be had, `faults: skip` leaves their labels out.
    * Traps: a picture may have been turned since it was labelled, or hold an orientation that its label map does not
      follow. If its size then differs from the label map's, it is told as a fault; a half turn is not noticed.
    """

    taxonomy: Literal["dms46", "all"] = "dms46"
    """The labels: the 46 materials of the benchmark, or all 52."""

    title: ClassVar[str] = "DMS"
    classes: ClassVar[Mapping[str, str]] = {name: TAXONOMY[name] for name in DMS46}
    published: ClassVar[Mapping[str, int]] = {"train": 24255, "val": 10139, "test": 10166}
    layout: ClassVar[str] = "labels/{train,validation,test}/*.png and images/{train,validation,test}/*.jpg"
    origin: ClassVar[str] = (
        "dms_v1_labels.zip from https://github.com/apple/ml-dms-dataset, and its pictures from Open Images"
    )
    subfolders: ClassVar[tuple[tuple[str, ...], ...]] = (("labels",),)

    @cached_property
    def annotations(self) -> dict[str, Annotation]:
        return {"material": Annotation(DMS46 if self.taxonomy == "dms46" else MATERIALS, dense=True)}

    def list_split(self, split: str) -> Listing:
        name = FOLDERS.get(split, split)
        images = self.folder / "images" / name
        masks = self.find(f"labels/{name}", ".png")
        items = [Item(mask.stem, images / f"{mask.stem}.jpg", {"material": mask}) for mask in masks]
        listing = self.examine(split, items)
        faults = [replace(f, valid=ADVICE) if f.kind is Kind.MISSING_IMAGE else f for f in listing.faults]
        return replace(listing, faults=faults)

    def read_mask(self, path: Path, annotation: str) -> np.ndarray:
        values = read_mask(path)
        if values.max() >= len(TAXONOMY) or values.min() < 0:
            wrong = values[(values >= len(TAXONOMY)) | (values < 0)][0]
            raise FaultError(
                Fault(Kind.LABEL, path, f"value {wrong} is no label of DMS", f"valid: 0 to {len(TAXONOMY) - 1}")
            )
        return self._ids[values]

    @cached_property
    def _ids(self) -> np.ndarray:
        """The label id of each pixel value, int16."""
        labels = self.annotations["material"].labels
        return np.array([labels.index(name) if name in labels else IGNORE for name in TAXONOMY], np.int16)

    def prediction_ids(self, annotation: str) -> np.ndarray:
        """The pixel values of the annotation; 0 is unlabelled."""
        values = [*TAXONOMY]
        return np.array([*(values.index(name) for name in self.annotations[annotation].labels), 0])
