"""The five lists of classes of Broden+, the unified data set of Xiao et al. 2018."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict

TITLE = "Broden+"


class BrodenPlus(TypedDict):
    """Class names in the order of the released heads' channels.

    A name occurs once in its list (and a part once in its object), so no name had to be changed.
    """

    object: list[str]
    """336 names; the first, `-`, stands for "unlabelled" and is never a target."""
    part: dict[str, list[str]]
    """77 objects → names of their parts, without the background, which is the first of each object's channels: 350
    parts and 77 backgrounds are 427 channels."""
    material: list[str]
    """26 names; the first, `-`, stands for "unlabelled" and is never a target."""
    scene: list[str]
    """365 names of Places."""
    texture: list[str]
    """47 names of the Describable Textures Dataset."""


def broden_plus() -> BrodenPlus:
    """The classes of Broden+: objects, parts by object, materials, scenes and textures."""
    content: BrodenPlus = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    return content
