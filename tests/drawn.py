"""Five tasks on pictures of a few pixels: label maps written by hand or drawn at random, and a source that has them."""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from upernet.data.items import Annotation, Item
from upernet.data.source import Source
from upernet.engine.knowledge.observation import Answer, Observation, Origin, observe
from upernet.engine.knowledge.vocabulary import Vocabulary
from upernet.errors import UserError
from upernet.tasks import Material, Object, Part, Scene, Task, Texture

CLASSES: dict[str, list[str]] = {
    "scene": ["street", "kitchen"],
    "object": ["car", "wall", "sky"],
    "part": ["car/-", "car/wheel", "car/door", "wall/-", "wall/crack"],
    "material": ["metal", "glass", "brick"],
    "texture": ["striped", "smooth"],
}
PARTS = {"car": ["wheel", "door"], "wall": ["crack"]}


def tasks() -> dict[str, Task]:
    """The five tasks, in another order than that of the paper."""
    return {
        "material": Material(labels=CLASSES["material"], width=8),
        "object": Object(labels=CLASSES["object"], width=8),
        "part": Part(parts=PARTS, width=8),
        "scene": Scene(labels=CLASSES["scene"], width=8),
        "texture": Texture(labels=CLASSES["texture"], convs=1, width=8),
    }


VOCABULARY = Vocabulary.of(tasks())

Maps = Mapping[str, np.ndarray | int]
"""Task → label map or label, of one image."""


def seen(maps: Maps, vocabulary: Vocabulary = VOCABULARY) -> Observation:
    """What annotated maps tell."""
    size = next(np.size(value) for value in maps.values() if np.ndim(value) == 2)
    answers = {task: Answer(Origin.ANNOTATED, value) for task, value in maps.items()}
    return observe(size, answers, vocabulary)


def named(task: str, rows: str) -> np.ndarray:
    """A label map in words, rows divided by `|`; `?` is unknown.

    Args:
        task: The task.
        rows: Such as `car car | wall ?`. Of a part, its object may be left out.
    """
    names = CLASSES[task]
    short = {name.rpartition("/")[2]: i for i, name in reversed(list(enumerate(names)))}
    ids = {"?": -1} | short | {name: i for i, name in enumerate(names)}
    return np.array([[ids[word] for word in row.split()] for row in rows.split("|")])


def at_random(name: str, size: tuple[int, int] = (12, 16), *, unknown: float = 0.2) -> dict[str, np.ndarray | int]:
    """Maps of an image, the same for the same name; of some images, some tasks are unknown."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    maps: dict[str, np.ndarray | int] = {}
    for task, names in CLASSES.items():
        if rng.random() < unknown:
            continue
        if task == "scene":
            maps[task] = int(rng.integers(len(names)))
            continue
        # Some classes only, in blocks, so that not everything occurs with everything.
        few = rng.choice([-1, *range(len(names))], int(rng.integers(1, 4)))
        coarse = rng.choice(few, (-(-size[0] // 4), -(-size[1] // 4)))
        maps[task] = np.kron(coarse, np.ones((4, 4), np.int64))[: size[0], : size[1]]
    return maps


@dataclass(kw_only=True)
class Drawn(Source):
    """A source whose images have annotations of some of the five tasks, at random."""

    root: str = "."
    names: list[str] = field(default_factory=list)
    """Names of the images; `image <n>` if empty."""
    count: int = 7
    broken: list[str] = field(default_factory=list)
    """Names of images that cannot be read."""
    unknown: float = 0.2
    """Probability that an image has no annotation of a task."""
    gate: str = ""
    """A file; while it exists, images from the fourth on are not read."""

    @property
    def annotations(self) -> dict[str, Annotation]:
        return {task: Annotation(tuple(names), task != "scene") for task, names in CLASSES.items()}

    def items(self, split: str) -> list[Item]:
        names: Sequence[str] = self.names or [f"image {i}" for i in range(self.count)]
        return [Item(f"{split}/{name}", Path(__file__)) for name in names]

    def read(self, item: Item) -> tuple[np.ndarray, dict[str, Any]]:
        if item.id.partition("/")[2] in self.broken:
            raise UserError(f"{item.id}.png: cannot be read")
        while self.gate and item.id[-1] not in "012" and Path(self.gate).exists():
            time.sleep(0.05)
        maps = at_random(item.id, unknown=self.unknown)
        colour = np.random.default_rng(zlib.crc32(item.id.encode())).integers(0, 256, (3, 4, 3), np.uint8)
        return np.kron(colour, np.ones((4, 4, 1), np.uint8)), dict(maps)
