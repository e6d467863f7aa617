"""Published tables from the labels of data sets to the classes of a common taxonomy, by name.

A table is a `classes` block of a target that need not be written out: `classes: mseg/cityscapes`.

MSeg (Lambert et al., CVPR 2020): 194 universal classes for seven data sets. Its authors also had the masks of some
labels divided by hand, such as the riders of Cityscapes into bicyclists, motorcyclists and other riders. The files that
the data sets publish are not divided. There, such a label stands for the set of its classes. Corrections of single
wrong masks, such as a tent that is a window, make no set. A label that MSeg leaves unlabelled is null.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from upernet.errors import UserError

TAXONOMIES = ("mseg",)
"""Names of the taxonomies; each has a file beside this one with its classes and tables."""

Table = dict[str, str | list[str] | None]
"""Label → its class, several classes ("one of these"), or None for unlabelled."""


def taxonomy_classes(name: str) -> tuple[str, ...]:
    """The classes of a taxonomy in the order of their ids.

    Args:
        name: One of `TAXONOMIES`.
    """
    return tuple(_content(name)["classes"])


def table_names() -> tuple[str, ...]:
    """The names of all tables, such as `mseg/cityscapes`."""
    return tuple(f"{taxonomy}/{table}" for taxonomy in TAXONOMIES for table in _content(taxonomy)["tables"])


def label_table(name: str) -> Table:
    """A published table.

    Args:
        name: Taxonomy and data set, such as `mseg/cityscapes`.

    Returns:
        The meaning of every label of the data set, under the data set's names and in the order of its ids. Those of
        COCO-Panoptic, whose ids leave gaps, are in the order of MSeg's label maps.

    Raises:
        UserError: If there is no table of that name.
    """
    if name not in table_names():
        valid = f"{', '.join(table_names())}, or a mapping such as {{Pavement: sidewalk}}"
        raise UserError(f"classes: no table {name!r}; valid: {valid}")
    taxonomy, _, table = name.partition("/")
    return {label: list(v) if isinstance(v, list) else v for label, v in _content(taxonomy)["tables"][table].items()}


@cache
def _content(taxonomy: str) -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads(Path(__file__).with_name(f"{taxonomy}.json").read_text(encoding="utf-8"))
    return content
