"""UPerNet and Unified Perceptual Parsing: scene, objects, parts, materials and textures in one look.

import upernet

parser = upernet.load("upp-mini")
prediction = parser("photo.jpg")
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from upernet.contract import Task as Task
    from upernet.errors import UserError as UserError
    from upernet.errors import WorkError as WorkError
    from upernet.labels import IGNORE as IGNORE
    from upernet.model import UPerNet as UPerNet
    from upernet.parse.parser import Parser as Parser
    from upernet.parse.parser import load as load
    from upernet.parse.prediction import Prediction as Prediction
    from upernet.parse.segmenter import UnifiedParsingSegmenter as UnifiedParsingSegmenter

    __version__: str

# Loaded on first use: the command line asks for its version and help without importing torch. The version too: until
# `__main__` runs, `python -m` lets files in the working folder pass for modules that are imported here.
_HOMES = {
    "IGNORE": "upernet.labels",
    "Parser": "upernet.parse.parser",
    "Prediction": "upernet.parse.prediction",
    "Task": "upernet.contract",
    "UPerNet": "upernet.model",
    "UnifiedParsingSegmenter": "upernet.parse.segmenter",
    "UserError": "upernet.errors",
    "WorkError": "upernet.errors",
    "load": "upernet.parse.parser",
}

__all__ = ["__version__", *_HOMES]


if "UPERNET_MODULES" in os.environ:
    # A process that a command has started, such as one that reads images, must find the user's modules too.
    import_module("upernet.working_folder").find_again()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("upernet")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
