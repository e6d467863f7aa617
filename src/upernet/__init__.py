"""UPerNet and Unified Perceptual Parsing: scene, objects, parts, materials and textures in one look.

import upernet

parser = upernet.load("upp-mini")
prediction = parser("photo.jpg")
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from upernet.config import UserError as UserError
    from upernet.config import WorkError as WorkError
    from upernet.data.labels import IGNORE as IGNORE
    from upernet.model import UPerNet as UPerNet
    from upernet.parser import Parser as Parser
    from upernet.parser import load as load
    from upernet.prediction import Prediction as Prediction
    from upernet.tasks.base import Task as Task

__version__ = version("upernet")

# Loaded on first use: the command line asks for its version and help without importing torch.
_HOMES = {
    "IGNORE": "upernet.data.labels",
    "Parser": "upernet.parser",
    "Prediction": "upernet.prediction",
    "Task": "upernet.tasks.base",
    "UPerNet": "upernet.model",
    "UserError": "upernet.config",
    "WorkError": "upernet.config",
    "load": "upernet.parser",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
