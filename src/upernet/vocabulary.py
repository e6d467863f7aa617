"""Published lists of classes by name: those of ADE20K, CamVid, Cityscapes and PASCAL VOC, and the five of Broden+."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TypedDict

from upernet.errors import UserError

FOLDER = Path(__file__).parent / "vocabularies"
FLAT = ("ade20k", "camvid", "cityscapes", "voc")


class BrodenPlus(TypedDict):
    """Class names of the unified data set of Xiao et al. 2018, in the order of the released heads' channels.

    A name occurs once in its list (and a part once in its object), so no name had to be changed.
    """

    object: list[str]
    """336 names; the first, `-`, stands for "unlabelled" and is never a target."""
    part: dict[str, list[str]]
    """77 objects → names of their parts, without the background that opens each object's channels: 350 parts and 77
    backgrounds are 427 channels."""
    material: list[str]
    """26 names; the first, `-`, stands for "unlabelled" and is never a target."""
    scene: list[str]
    """365 names of Places."""
    texture: list[str]
    """47 names of the Describable Textures Dataset."""


def vocabulary(name: str) -> dict[str, str]:
    """The classes of a data set in the order of their ids, with its colours.

    Args:
        name: `ade20k` (150), `camvid` (11), `cityscapes` (19) or `voc` (21, the first of them background).

    Returns:
        Class name → `"#rrggbb"`.

    Raises:
        UserError: If there is no such list.
    """
    if name not in FLAT:
        raise UserError(
            f"no class list {name!r}; valid: {', '.join(FLAT)}, or the names themselves, such as [sky, car]"
        )
    content: dict[str, str] = json.loads(_text(name))
    return content


def broden_plus() -> BrodenPlus:
    """The classes of Broden+: objects, parts by object, materials, scenes and textures."""
    content: BrodenPlus = json.loads(_text("broden_plus"))
    return content


@cache
def _text(name: str) -> str:
    return (FOLDER / f"{name}.json").read_text(encoding="utf-8")
