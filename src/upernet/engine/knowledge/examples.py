"""Example images: for each concept, the few images in which its share is largest, made small."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, overload

import cv2
import numpy as np

from upernet.engine.knowledge.findings import Concept, Example
from upernet.engine.knowledge.observation import Answer, Observation
from upernet.engine.knowledge.vocabulary import Vocabulary
from upernet.files import write_whole
from upernet.resize import Size, fit

THUMBNAIL = 160
"""Longer side of a thumbnail, in pixels. Smaller images keep their size."""

Class = tuple[str, int]
"""A class: its task and its id."""


class Best:
    """The images in which each concept's share is largest, of all that were offered, in whatever order.

    Ties go to the image whose name comes first, and then to the one that comes first in the list of images.
    """

    def __init__(self, count: int, vocabulary: Vocabulary) -> None:
        """Start without images.

        Args:
            count: Most images of each concept.
            vocabulary: The tasks and their classes.
        """
        self._count, self._vocabulary = count, vocabulary
        self._ranks: dict[Class, list[tuple[float, str, int]]] = {}
        self._uses: Counter[int] = Counter()

    def offer(self, number: int, name: str, seen: Observation) -> tuple[list[Class], list[int]]:
        """Take an image in wherever it is among the best.

        Args:
            number: Its place in the list of images.
            name: Its name.
            seen: What it tells.

        Returns:
            The concepts of which it is now an example, and the numbers of the images that are no example any more.
        """
        taken, dropped = [], []
        for task_number, class_id, pixels in seen.classes.tolist():
            task = self._vocabulary.tasks[task_number]
            if not (self._count and self._vocabulary.concepts[task][class_id]):
                continue
            share = pixels / seen.size if self._vocabulary.is_map(task) else 1.0
            ranks = self._ranks.setdefault((task, class_id), [])
            rank = (-share, name, number)
            if len(ranks) == self._count and ranks[-1] < rank:
                continue
            insort(ranks, rank)
            taken.append((task, class_id))
            self._uses[number] += 1
            if len(ranks) > self._count:
                last = ranks.pop()[2]
                self._uses[last] -= 1
                if not self._uses[last]:
                    del self._uses[last]
                    dropped.append(last)
        return taken, dropped

    def ranked(self, concept: Class) -> list[tuple[float, str, int]]:
        """Share, name and number of the best images of a concept, the best first."""
        return [(-negative, name, number) for negative, name, number in self._ranks.get(concept, [])]


def write_example(path: Path, pixels: np.ndarray, answers: Mapping[str, Answer], concepts: Sequence[Class]) -> None:
    """Write an image's thumbnail, and the regions of the concepts of which it may become an example.

    Args:
        path: The file.
        pixels: (H, W, 3) uint8 RGB.
        answers: Task → its answer.
        concepts: The concepts.
    """
    whole = pixels.shape[0], pixels.shape[1]
    size = whole if max(whole) <= THUMBNAIL else fit(whole, (THUMBNAIL, THUMBNAIL))
    regions = {
        f"{task}.{class_id}": np.packbits(_region(answer.ids == class_id, size))
        for task, class_id in concepts
        if isinstance((answer := answers[task]).ids, np.ndarray)
    }
    content: dict[str, Any] = {"thumbnail": _shrink(pixels, size), **regions}
    write_whole(path, lambda file: np.savez_compressed(file, **content), durable=False)


def _region(mask: np.ndarray, size: Size) -> np.ndarray:
    """A mask (H, W) made small: where it covers half of a pixel, or, if that is nowhere, where it covers any of it."""
    covered = _shrink(mask.astype(np.uint8) * 255, size)
    return covered >= 128 if (covered >= 128).any() else covered > 0


def _shrink(pixels: np.ndarray, size: Size) -> np.ndarray:
    """Pixels (H, W) or (H, W, 3) averaged over the area of each pixel of the smaller size (h, w)."""
    return np.asarray(cv2.resize(np.ascontiguousarray(pixels), size[::-1], interpolation=cv2.INTER_AREA))


class ExampleFiles(Mapping[int, Sequence[Example]]):
    """The examples of each concept by its id. Each is read from its file whenever it is asked for.

    A concept without an example file is no key.
    """

    def __init__(self, concepts: Sequence[Concept], classes: Mapping[int, Class], best: Best, folder: Path) -> None:
        """Look up which files there are.

        Args:
            concepts: The concepts.
            classes: Concept id → its class.
            best: The best images.
            folder: Where `write_example` has put their files, see `example_file`.
        """
        self._classes = classes
        self._found = {
            concept.id: [r for r in best.ranked(classes[concept.id]) if example_file(folder, r[2]).is_file()]
            for concept in concepts
        }
        self._folder = folder

    def __getitem__(self, concept: int) -> Sequence[Example]:
        if not self._found.get(concept):
            raise KeyError(concept)
        return _Ranked(self._found[concept], partial(self._read, concept))

    def __iter__(self) -> Iterator[int]:
        return (concept for concept, ranks in self._found.items() if ranks)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _read(self, concept: int, share: float, name: str, number: int) -> Example:
        task, class_id = self._classes[concept]
        with np.load(example_file(self._folder, number)) as content:
            thumbnail, packed = content["thumbnail"], content.get(f"{task}.{class_id}")
        height, width = thumbnail.shape[:2]
        region = None if packed is None else np.unpackbits(packed, count=height * width).reshape(height, width) > 0
        return Example(concept, name, share, thumbnail, region)


class _Ranked(Sequence[Example]):
    """The examples of a concept, the best first."""

    def __init__(self, ranks: Sequence[tuple[float, str, int]], read: Callable[[float, str, int], Example]) -> None:
        self._ranks, self._read = ranks, read

    @overload
    def __getitem__(self, rank: int) -> Example: ...

    @overload
    def __getitem__(self, rank: slice) -> Sequence[Example]: ...

    def __getitem__(self, rank: int | slice) -> Example | Sequence[Example]:
        if isinstance(rank, slice):
            return _Ranked(self._ranks[rank], self._read)
        return self._read(*self._ranks[rank])

    def __len__(self) -> int:
        return len(self._ranks)


def example_file(folder: Path, number: int) -> Path:
    """The file of an image, by its number."""
    return folder / f"example-{number:09d}.npz"
