"""Broden+ made up on request: the subsets, annotations and labels that the recipes name, at thumbnail size."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fake_data import blocks, picture

from upernet.data.items import Annotation, Item
from upernet.data.sets.broden_plus import broden_plus
from upernet.data.source import Source
from upernet.labels import IGNORE

TABLES = broden_plus()
PARTS = [f"{thing}/{part}" for thing, parts in TABLES["part"].items() for part in ("-", *parts)]
LABELS = {
    "object": Annotation(tuple(TABLES["object"][1:]), dense=True),
    "part": Annotation(tuple(PARTS), dense=True),
    "scene": Annotation(tuple(TABLES["scene"]), dense=False),
    "material": Annotation(tuple(TABLES["material"][1:]), dense=True),
    "texture": Annotation(tuple(TABLES["texture"]), dense=False),
}
CAR = TABLES["object"].index("car") - 1
CAR_PARTS = [number for number, name in enumerate(PARTS) if name.startswith("car/")][:3]
KNOWN = {
    "ade20k": ("object", "part", "scene"),
    "pascal": ("object", "part"),
    "opensurfaces": ("material",),
    "dtd": ("texture",),
}


@dataclass(kw_only=True)
class BrodenPlus(Source):
    """Stands in the place of the class of this name in `upernet.data`."""

    root: str = "."
    subsets: list[str] = field(default_factory=lambda: ["ade20k"])

    @property
    def annotations(self) -> dict[str, Annotation]:
        return LABELS

    def items(self, split: str) -> list[Item]:
        count = 4 if split == "train" else 2
        return [
            Item(
                f"{subset}/{split}_{i}",
                Path(__file__),
                dict.fromkeys(KNOWN[subset], i),
                (72, 40) if i % 3 == 0 else (40, 56),
            )
            for subset in self.subsets
            for i in range(count)
        ]

    def read(self, item: Item) -> tuple[np.ndarray, dict[str, Any]]:
        assert item.size is not None
        things = blocks(item.id, [0, 1, CAR], item.size)
        parts = blocks(f"{item.id} parts", CAR_PARTS, item.size)
        values: dict[str, Any] = {
            "object": things,
            "part": np.where(things == CAR, parts, IGNORE),
            "material": blocks(f"{item.id} material", [IGNORE, 0, 3, 24], item.size),
        }
        pixels = picture(blocks(item.id, range(0, 4000, 100), item.size))
        return pixels, {name: values.get(name, number) for name, number in item.annotations.items()}
