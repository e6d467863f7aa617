"""What one image tells: how many pixels each class has, and how many pixels two classes share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from upernet.engine.knowledge.vocabulary import Vocabulary, is_scene
from upernet.labels import IGNORE

SLICE = 2**15
"""Number of pixels that are counted at once: their codes fit into a CPU's cache, however large the image is."""


class Origin(IntEnum):
    """Where an image's answer to a task comes from."""

    NONE = 0
    ANNOTATED = 1
    PREDICTED = 2


@dataclass(frozen=True)
class Answer:
    """An image's answer to one task.

    Attributes:
        origin: Where it comes from.
        ids: (H, W) class ids of any integer type, `IGNORE` where nothing is known; or one class id for the image.
    """

    origin: Origin
    ids: np.ndarray | int


@dataclass(frozen=True)
class Observation:
    """What one image tells. Tasks and relations are numbered as in the `Vocabulary`.

    Attributes:
        size: Number of its pixels; 0 if it could not be read.
        origins: (T,) int64, the `Origin` of each task's answer; `NONE` if nothing of it is known in this image.
        classes: (N, 3) int64, sorted: task, class and number of pixels of each class that is there; 0 pixels if the
            task answers once per image. "No part" of an object is a class here.
        pairs: (M, 4) int64, sorted: relation, class of its source, class of its target, and number of pixels that have
            both, of each pair that shares a pixel. Relations of scenes have none; they follow from `classes`.
        fault: Why it could not be read, in one line; empty if it could.
    """

    size: int
    origins: np.ndarray
    classes: np.ndarray
    pairs: np.ndarray
    fault: str = ""

    @classmethod
    def failed(cls, vocabulary: Vocabulary, fault: str) -> Observation:
        """An image that could not be read."""
        empty = np.zeros((0, 3), np.int64), np.zeros((0, 4), np.int64)
        return cls(0, np.zeros(len(vocabulary.tasks), np.int64), *empty, fault)


def observe(size: int, answers: Mapping[str, Answer], vocabulary: Vocabulary) -> Observation:
    """Count the classes of an image and the pixels that they share.

    Args:
        size: Number of its pixels.
        answers: Task → the answer; all maps have `size` pixels.
        vocabulary: The tasks and their classes.
    """
    origins = np.zeros(len(vocabulary.tasks), np.int64)
    classes: list[np.ndarray] = []
    compact: dict[str, _Compact] = {}
    for number, task in enumerate(vocabulary.tasks):
        if task not in answers:
            continue
        answer, lut = answers[task], vocabulary.answers[task]
        if isinstance(answer.ids, np.ndarray):
            compact[task] = _Compact.of(answer.ids.reshape(-1), lut)
            found, pixels = compact[task].present, compact[task].pixels
        else:
            found, pixels = np.array([i for i in (int(lut[answer.ids]),) if i != IGNORE], np.int64), np.zeros(1, int)
        if len(found):
            origins[number] = answer.origin
            classes.append(_table(np.full(len(found), number), found, pixels))
    wanted = {
        number: (kind.source, kind.target)
        for number, kind in enumerate(vocabulary.relations)
        if not is_scene(kind) and kind.source in compact and kind.target in compact
    }
    return Observation(size, origins, _stack(classes, 3), _stack(_count_pairs(size, compact, wanted), 4))


@dataclass(frozen=True)
class _Compact:
    """A label map with few numbers: only those of the classes that are there.

    Attributes:
        flat: (H·W,) class ids.
        codes: (K + 1,) int64: class id → its number, from 1, among those that are there; 0 if nothing is known.
        present: The classes that are there, sorted.
        pixels: The number of pixels of each.
    """

    flat: np.ndarray
    codes: np.ndarray
    present: np.ndarray
    pixels: np.ndarray

    @classmethod
    def of(cls, flat: np.ndarray, lut: np.ndarray) -> _Compact:
        counts = np.zeros(len(lut), np.int64)
        for part in _slices(len(flat)):
            counts += np.bincount(flat[part] + 1, minlength=len(lut))  # IGNORE is -1
        counts[1:][lut[:-1] == IGNORE] = 0
        present = np.flatnonzero(counts[1:])
        codes = np.zeros(len(lut), np.int64)
        codes[present] = np.arange(1, len(present) + 1)
        return cls(flat, codes, present, counts[1:][present])


def _count_pairs(size: int, maps: Mapping[str, _Compact], wanted: Mapping[int, tuple[str, str]]) -> list[np.ndarray]:
    """Tables as of `Observation.pairs`.

    Args:
        size: Number of pixels.
        maps: Task → its map.
        wanted: Number of a relation → its source and its target.
    """
    shapes = {n: tuple(len(maps[task].present) + 1 for task in ends) for n, ends in wanted.items()}
    counts = {n: np.zeros(rows * columns, np.int64) for n, (rows, columns) in shapes.items()}
    needed = {task for ends in wanted.values() for task in ends}
    for part in _slices(size):
        codes = {task: maps[task].codes[maps[task].flat[part]] for task in needed}
        for n, (source, target) in wanted.items():
            joint = codes[source] * shapes[n][1]
            joint += codes[target]
            counts[n] += np.bincount(joint, minlength=len(counts[n]))
    tables = []
    for n, (source, target) in wanted.items():
        common = counts[n].reshape(shapes[n])[1:, 1:]
        i, j = np.nonzero(common)
        tables.append(_table(np.full(len(i), n), maps[source].present[i], maps[target].present[j], common[i, j]))
    return tables


def _slices(size: int) -> Iterator[slice]:
    return (slice(start, start + SLICE) for start in range(0, size, SLICE))


def _table(*columns: np.ndarray) -> np.ndarray:
    return np.stack([np.asarray(column, np.int64) for column in columns], axis=1)


def _stack(tables: list[np.ndarray], width: int) -> np.ndarray:
    return np.concatenate([np.zeros((0, width), np.int64), *tables])
