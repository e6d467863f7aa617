"""From files on disk to batches: sources, label spaces, transforms and their mixture."""

from upernet.data.folder import ClassFolder, ImageMaskFolder
from upernet.data.items import Annotation, Item
from upernet.data.sets import *  # noqa: F403
from upernet.data.sets import SETS
from upernet.data.source import Source

__all__ = ["Annotation", "ClassFolder", "ImageMaskFolder", "Item", "Source"]
__all__ += [kind.__name__ for kind in SETS.values()]
