"""The data sets, one file each. A new one needs its file, its test and its lines in this list."""

from __future__ import annotations

from upernet.data.sets.ade20k import ADE20K as ADE20K
from upernet.data.sets.broden_plus import BrodenPlus as BrodenPlus
from upernet.data.sets.camvid import CamVid as CamVid
from upernet.data.sets.carparts import CarParts as CarParts
from upernet.data.sets.cityscapes import Cityscapes as Cityscapes
from upernet.data.sets.facade import Facade as Facade
from upernet.data.sets.unified_parsing import UnifiedParsing as UnifiedParsing
from upernet.data.sets.voc import VOC as VOC
from upernet.data.source import Source
from upernet.errors import UserError

SETS: dict[str, type[Source]] = {
    "ade20k": ADE20K,
    "broden_plus": BrodenPlus,
    "camvid": CamVid,
    "carparts": CarParts,
    "cityscapes": Cityscapes,
    "facade": Facade,
    "unified_parsing": UnifiedParsing,
    "voc": VOC,
}
"""Name of a data set in YAML files and in the table of published models → its class."""

__all__ = ["SETS", "published_classes"]
__all__ += [kind.__name__ for kind in SETS.values()]


def published_classes(name: str) -> dict[str, str]:
    """The published classes of a data set.

    Args:
        name: `ade20k` (150), `camvid` (11), `cityscapes` (19) or `voc` (21, the first of them background).

    Returns:
        Class name → its colour, such as `"#804080"`, in the order of the class ids.

    Raises:
        UserError: If no data set of that name has such a list.
    """
    lists = {key: kind.classes for key, kind in SETS.items() if kind.classes}
    if name not in lists:
        valid = f"{', '.join(lists)}, or the names themselves, such as [sky, car]"
        raise UserError(f"no class list {name!r}; valid: {valid}")
    return dict(lists[name])
