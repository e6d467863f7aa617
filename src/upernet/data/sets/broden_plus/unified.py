"""What the sources of Broden+ share: their subsets and the labels of their annotations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from upernet.data.faults import Fault, FaultError, Kind
from upernet.data.folder_source import FolderSource
from upernet.data.items import Annotation
from upernet.data.sets.broden_plus.tables import SUBSETS, UNLABELLED_PART, broden_plus, part_channels
from upernet.labels import IGNORE

ANNOTATIONS = {
    "object": ("ade20k", "pascal"),
    "part": ("ade20k", "pascal"),
    "scene": ("ade20k",),
    "material": ("opensurfaces",),
    "texture": ("dtd",),
}
"""Annotation → the subsets that have it."""


@dataclass(kw_only=True)
class UnifiedSource(FolderSource):
    """Images of Broden+ with their unified labels."""

    subsets: list[str] = field(default_factory=list)
    """Which collections to use: `ade20k`, `pascal`, `opensurfaces`, `dtd`; if empty, all that are there."""

    @cached_property
    def annotations(self) -> dict[str, Annotation]:
        """Those that the chosen subsets have, each with its labels of Broden+ without the entry "unlabelled"."""
        lists = broden_plus()
        labels: dict[str, Sequence[str]] = {
            "object": lists["object"][1:],
            "part": part_channels(),
            "scene": lists["scene"],
            "material": lists["material"][1:],
            "texture": lists["texture"],
        }
        chosen = set(self.subsets or SUBSETS)
        return {
            name: Annotation(tuple(labels[name]), dense=name not in ("scene", "texture"))
            for name, having in ANNOTATIONS.items()
            if chosen & set(having)
        }

    def chosen_subsets(self, there: Sequence[str], remedy: str) -> list[str]:
        """The subsets to use.

        Args:
            there: The subsets that the folder holds.
            remedy: What to do about one that it does not hold.

        Raises:
            FaultError: If a chosen subset does not exist or is not in the folder.
        """
        for name in self.subsets:
            if name not in SUBSETS:
                raise FaultError(
                    Fault(Kind.LISTING, self._path, f"subset {name!r} does not exist", f"valid: {', '.join(SUBSETS)}")
                )
            if name not in there:
                problem = f"subset {name!r} is not in it (there are {', '.join(there) or 'none'})"
                raise FaultError(Fault(Kind.LISTING, self._path, problem, remedy))
        return [name for name in SUBSETS if name in (self.subsets or there)]

    def prediction_ids(self, annotation: str) -> np.ndarray:
        """The pixel values of the prepared label maps."""
        if annotation not in ("object", "part", "material"):
            return super().prediction_ids(annotation)
        return stored_values(annotation)


_UNLABELLED: dict[str, int] = {"object": 0, "material": 0, "part": UNLABELLED_PART}


def stored_values(annotation: str) -> np.ndarray:
    """The pixel values of label maps of an annotation: (L + 1,) int64, label by label, and last that of unlabelled."""
    count = len(part_channels()) if annotation == "part" else len(_classes(annotation)) - 1
    first = 0 if annotation == "part" else 1
    return np.array([*range(first, first + count), _UNLABELLED[annotation]])


def _classes(annotation: str) -> list[str]:
    lists = broden_plus()
    return lists["object"] if annotation == "object" else lists["material"]


def to_label_ids(values: np.ndarray, annotation: str) -> np.ndarray:
    """Label ids (H, W) of a signed type, `IGNORE` where unlabelled, from the pixel values of a label map."""
    ids = values.astype(np.int32)
    if annotation == "part":
        ids[ids == UNLABELLED_PART] = IGNORE
    else:
        ids -= 1  # 0, unlabelled, becomes `IGNORE`
    return ids
