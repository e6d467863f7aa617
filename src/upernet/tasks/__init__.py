"""The questions asked about an image, one file each, on the contract of `upernet.contract`, and terms of their losses.

Names are loaded on first use, so that naming `Task` in a type does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from upernet.contract import LEVELS, Loss, SummaryLoss, Task

if TYPE_CHECKING:
    from upernet.tasks.dense import DenseTask as DenseTask
    from upernet.tasks.image import ImageTask as ImageTask
    from upernet.tasks.losses import OHEM as OHEM
    from upernet.tasks.losses import CrossEntropy as CrossEntropy
    from upernet.tasks.losses import Dice as Dice
    from upernet.tasks.losses import Focal as Focal
    from upernet.tasks.losses import Lovasz as Lovasz
    from upernet.tasks.losses import RegionLoss as RegionLoss
    from upernet.tasks.losses import WeightedLoss as WeightedLoss
    from upernet.tasks.material import Material as Material
    from upernet.tasks.object import Object as Object
    from upernet.tasks.part import Part as Part
    from upernet.tasks.scene import Scene as Scene
    from upernet.tasks.semantic import Semantic as Semantic
    from upernet.tasks.texture import Texture as Texture

_FILES = {
    "DenseTask": "dense",
    "ImageTask": "image",
    "Scene": "scene",
    "Object": "object",
    "Part": "part",
    "Material": "material",
    "Texture": "texture",
    "Semantic": "semantic",
    "CrossEntropy": "losses",
    "OHEM": "losses",
    "Focal": "losses",
    "Dice": "losses",
    "Lovasz": "losses",
    "WeightedLoss": "losses",
    "RegionLoss": "losses",
}

__all__ = ["LEVELS", "Loss", "SummaryLoss", "Task", *_FILES]


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(import_module(f"upernet.tasks.{_FILES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
