"""The table of published UPerNet weights, with their figures and addresses. Nothing here imports torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parent / "published.json"


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published model. A field is None if its publishers do not state it.

    Attributes:
        name: File name of the weights without date, hash and suffix, or the folder's name if there are several files.
        dataset: `cityscapes`, `ade20k`, `voc` or `broden_plus`.
        backbone: Name of the backbone as published, with the data that it was pre-trained on (such as IN-21K) if
            the zoo has several.
        classes: The data set whose classes the network has.
        addresses: The weights: one file, or the authors' pair of encoder and decoder.
        copies: The same files in a second place, in the same order; empty if there is none.
        sha256: First digits of the file's sha256, which its name carries.
        hub: Repository of the same weights, converted, on the Hugging Face hub.
        crop: Height and width of its training crops, in pixels.
        steps: Optimiser updates.
        miou: Mean IoU on the validation set in percent, at one scale.
        miou_ms_flip: The same, averaged over scales and mirror images.
        miou_ms: The same, averaged over scales only.
        memory_gb: Memory per GPU in training, in gigabytes.
        fps: Images per second on the publishers' GPU.
        reason: Why the weights cannot be read; None if they can.
    """

    name: str
    dataset: str
    backbone: str
    classes: str
    addresses: tuple[str, ...]
    copies: tuple[str, ...] = ()
    sha256: str | None = None
    hub: str | None = None
    crop: tuple[int, int] | None = None
    steps: int | None = None
    miou: float | None = None
    miou_ms_flip: float | None = None
    miou_ms: float | None = None
    memory_gb: float | None = None
    fps: float | None = None
    reason: str | None = None

    @property
    def loadable(self) -> bool:
        """Whether the weights can be read."""
        return self.reason is None


@cache
def _table() -> tuple[Published, ...]:
    rows: list[dict[str, Any]] = json.loads(TABLE.read_text(encoding="utf-8"))
    for row in rows:
        row.update({key: tuple(value) for key, value in row.items() if isinstance(value, list)})
    return tuple(Published(**row) for row in rows)


def published() -> list[Published]:
    """All published models, in the order of the tables they come from."""
    return list(_table())


def find_published(name: str) -> Published | None:
    """The published model of a name, or None if there is none."""
    return next((model for model in _table() if model.name == name), None)
