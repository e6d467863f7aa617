"""The data sets, one file each. A new one needs its file, its test and its lines in this list."""

from __future__ import annotations

from typing import cast

from upernet.data.label_tables import TAXONOMIES, taxonomy_classes
from upernet.data.sets.ade20k import ADE20K as ADE20K
from upernet.data.sets.ade20k_part234 import ADE20KPart234 as ADE20KPart234
from upernet.data.sets.broden_plus import BrodenPlus as BrodenPlus
from upernet.data.sets.broden_plus import broden_plus
from upernet.data.sets.camvid import CamVid as CamVid
from upernet.data.sets.carparts import CarParts as CarParts
from upernet.data.sets.cityscapes import Cityscapes as Cityscapes
from upernet.data.sets.dms import DMS as DMS
from upernet.data.sets.facade import Facade as Facade
from upernet.data.sets.part_imagenet import PartImageNet as PartImageNet
from upernet.data.sets.pascal_part116 import PascalPart116 as PascalPart116
from upernet.data.sets.unified_parsing import UnifiedParsing as UnifiedParsing
from upernet.data.sets.voc import VOC as VOC
from upernet.data.source import Source
from upernet.errors import UserError
from upernet.labels import Labels

SETS: dict[str, type[Source]] = {
    "ade20k": ADE20K,
    "ade20k_part234": ADE20KPart234,
    "broden_plus": BrodenPlus,
    "camvid": CamVid,
    "carparts": CarParts,
    "cityscapes": Cityscapes,
    "dms": DMS,
    "facade": Facade,
    "part_imagenet": PartImageNet,
    "pascal_part116": PascalPart116,
    "unified_parsing": UnifiedParsing,
    "voc": VOC,
}
"""Name of a data set in YAML files and in the table of published models → its class."""

_BRODEN_PLUS = ("object", "material", "scene", "texture")
"""The lists of Broden+ that are plain lists of classes; `published_parts` has the other one."""

__all__ = ["SETS", "published_classes", "published_parts"]
__all__ += [kind.__name__ for kind in SETS.values()]


def class_lists() -> tuple[str, ...]:
    """The names of all published lists of classes."""
    sets = tuple(key for key, kind in SETS.items() if kind.classes)
    return (*sets, *(f"broden_plus/{key}" for key in _BRODEN_PLUS), *TAXONOMIES)


def published_classes(name: str) -> dict[str, str]:
    """The published classes of a data set or a taxonomy.

    Args:
        name: `ade20k` (150), `camvid` (11), `cityscapes` (19), `dms` (46), `voc` (21, the first of them background), a
            list of Broden+ in the order of the released heads' channels: `broden_plus/object` (336) and
            `broden_plus/material` (26), the first of which, `-`, means unlabelled and is never a target,
            `broden_plus/scene` (365) or `broden_plus/texture` (47), or `mseg` (194).

    Returns:
        Class name → its colour, such as `"#804080"`, in the order of the class ids. Those of Broden+ and MSeg are our
        own.

    Raises:
        UserError: If there is no list of that name.
    """
    if name not in class_lists():
        valid = f"{', '.join(class_lists())}, or the names themselves, such as [sky, car]"
        raise UserError(f"no class list {name!r}; valid: {valid}")
    if name in SETS:
        return dict(SETS[name].classes)
    if name in TAXONOMIES:
        labels = Labels.of(taxonomy_classes(name))
    else:
        labels = Labels.of(cast(dict[str, list[str]], broden_plus())[name.partition("/")[2]])
    return {key: f"#{bytes(colour).hex()}" for key, colour in zip(labels.names, labels.colours, strict=True)}


def published_parts(name: str) -> dict[str, list[str]]:
    """The published parts of objects.

    Args:
        name: `broden_plus`: 350 parts of 77 objects.

    Returns:
        Object → names of its parts, in the order of the released head's channels.

    Raises:
        UserError: If there is no such list.
    """
    if name != "broden_plus":
        raise UserError(f"no list of parts {name!r}; valid: broden_plus, or the parts themselves, such as car: [wheel]")
    return broden_plus()["part"]
