"""From files on disk to batches: sources, label spaces, transforms and their mixture."""

from upernet.data.folder import ClassFolder, ImageMaskFolder
from upernet.data.sets.ade20k import ADE20K
from upernet.data.sets.camvid import CamVid
from upernet.data.sets.carparts import CarParts
from upernet.data.sets.cityscapes import Cityscapes
from upernet.data.sets.facade import Facade
from upernet.data.sets.voc import VOC
from upernet.data.source import Annotation, Item, Source

__all__ = [
    "ADE20K",
    "VOC",
    "Annotation",
    "CamVid",
    "CarParts",
    "Cityscapes",
    "ClassFolder",
    "Facade",
    "ImageMaskFolder",
    "Item",
    "Source",
]
