"""From files on disk to batches: sources, label spaces, transforms and their mixture."""

from upernet.data.carparts import CarParts
from upernet.data.facade import Facade
from upernet.data.folder import ClassFolder, ImageMaskFolder
from upernet.data.source import Annotation, Item, Source
from upernet.data.voc import VOC

__all__ = ["VOC", "Annotation", "CarParts", "ClassFolder", "Facade", "ImageMaskFolder", "Item", "Source"]
