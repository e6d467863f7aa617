"""The paper's own figures on Broden+ (Xiao et al. 2018, section 4). Nothing here imports torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).parent / "paper.json"


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """The figures of one of the paper's networks, in percent; None for a task that it was not trained on.

    Attributes:
        trained_on: Initials of its tasks: object, part, scene, material and texture.
        object_miou: Mean IoU of objects.
        object_pa: Pixel accuracy of objects.
        part_miou_bg: Mean IoU of parts, with predictions on the background counted.
        part_pa: Pixel accuracy of parts.
        scene_top1: Share of the images whose scene is right.
        material_miou: Mean IoU of materials.
        material_pa: Pixel accuracy of materials.
        texture_top1: Share of the images whose texture is right.
    """

    trained_on: str
    object_miou: float | None = None
    object_pa: float | None = None
    part_miou_bg: float | None = None
    part_pa: float | None = None
    scene_top1: float | None = None
    material_miou: float | None = None
    material_pa: float | None = None
    texture_top1: float | None = None


@cache
def paper_rows() -> tuple[PaperRow, ...]:
    """The six rows of the table, in its order."""
    return tuple(PaperRow(**row) for row in json.loads(TABLE.read_text(encoding="utf-8")))
