"""From files on disk to batches: sources, label spaces, transforms and their mixture."""

from upernet.data.ade20k import ADE20K
from upernet.data.camvid import CamVid
from upernet.data.carparts import CarParts
from upernet.data.cityscapes import Cityscapes
from upernet.data.facade import Facade
from upernet.data.folder import ClassFolder, ImageMaskFolder
from upernet.data.source import Annotation, Item, Source
from upernet.data.voc import VOC

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
