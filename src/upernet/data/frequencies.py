"""The share of the training data that each class covers, and the class weights that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from upernet.contract import Task
from upernet.data.items import Item
from upernet.data.mixture import LabelledSource
from upernet.data.source import Source
from upernet.errors import UserError, WorkError
from upernet.labels import IGNORE
from upernet.screen import progress


@dataclass(frozen=True)
class Frequencies:
    """Pixel counts of a task's classes over its training images.

    The pixels of a label that stands for several classes are spread evenly over them.

    Attributes:
        pixels: Class name → number of its pixels.
        beside: Class name → number of labelled pixels, of whatever class, in the images that show it.
        images: Number of images with a label.
    """

    pixels: dict[str, float]
    beside: dict[str, float]
    images: int

    def weights(self, method: str, beta: float) -> dict[str, float]:
        """Class name → weight, to four digits. A class without pixels gets the largest weight.

        * `inverse_frequency`: 1 / pixels of the class, scaled to a mean of 1.
        * `median_frequency` (Eigen and Fergus 2015, section 6.3.2): the median of all classes' frequencies, divided by
          the class's own. A class's frequency is its pixels divided by all labelled pixels of the images that show it.
        * `effective_number` (Cui et al. 2019, section 4): (1 − β) / (1 − β^n), scaled to a mean of 1. Neighbouring
          pixels are hardly independent samples, so n is a number of images: the class's pixels divided by the mean
          number of labelled pixels per image.

        Raises:
            UserError: If no pixel was labelled.
        """
        counted = {name: pixels for name, pixels in self.pixels.items() if pixels > 0}
        if not counted:
            raise UserError(
                f"class_weights: {method!r}, but no training image has a label; give a list such as [1.0, 2.0]"
            )
        pixels = np.array(list(counted.values()))
        if method == "inverse_frequency":
            values = 1 / pixels
        elif method == "effective_number":
            values = (1 - beta) / (1 - beta ** (pixels / (pixels.sum() / self.images)))
        else:
            frequencies = pixels / np.array([self.beside[name] for name in counted])
            values = np.median(frequencies) / frequencies
        if method != "median_frequency":
            values = values / values.mean()
        by_name = dict(zip(counted, values.tolist(), strict=True))
        return {name: float(f"{by_name.get(name, values.max()):.4g}") for name in self.pixels}


def count_classes(
    sources: Mapping[str, LabelledSource], target: str, task: Task, limit: int | None = None
) -> Frequencies:
    """Count the pixels of each class over the training splits of all sources of one target.

    An image with one label counts as many pixels as the mean label map has.

    Args:
        sources: The sources bound to the tasks.
        target: Key of the training target.
        task: A task that reads the target.
        limit: Most images to count per source, evenly spaced; None counts all.
    """
    names = task.classes.names
    maps, images = _Counts(len(names)), _Counts(len(names))
    for source in sources.values():
        if source.config.train is None or target not in source.supervision:
            continue
        supervision = source.supervision[target]
        share = np.zeros((len(supervision.sets.labels), len(names)))
        for label, members in enumerate(supervision.sets.members):
            share[label, list(members)] = 1 / max(len(members), 1)
        items = source.items(source.config.train)
        if limit is not None and limit < len(items):
            items = [items[i * len(items) // limit] for i in range(limit)]
        into = maps if supervision.dense else images
        with progress(f"counting {target} in {source.name}", len(items)) as advance:
            for item in items:
                try:
                    into.add(_count_labels(source, item, supervision.annotation, len(share)) @ share)
                except WorkError:
                    if source.config.faults == "stop":
                        raise
                advance()
    # The pixels that an image with one label counts as; where a task has no maps, any number will do.
    unit = maps.pixels.sum() / maps.images if maps.images else 1.0
    pixels, beside = maps.pixels + unit * images.pixels, maps.beside + unit * images.beside
    by_name = [dict(zip(names, values.tolist(), strict=True)) for values in (pixels, beside)]
    return Frequencies(by_name[0], by_name[1], maps.images + images.images)


class _Counts:
    """Sums over images: pixels of each class, all labelled pixels of the images that show it, images with a label."""

    def __init__(self, classes: int) -> None:
        self.pixels, self.beside, self.images = np.zeros(classes), np.zeros(classes), 0

    def add(self, pixels: np.ndarray) -> None:
        self.pixels += pixels
        self.beside += np.where(pixels > 0, pixels.sum(), 0)
        self.images += bool(pixels.any())


def _count_labels(source: LabelledSource, item: Item, annotation: str | None, count: int) -> np.ndarray:
    """(count,) int64: pixels of each of the source's labels in an image, or 1 for an image's only label."""
    dataset = source.config.dataset
    value: Any = 0 if annotation is None else item.annotations.get(annotation, IGNORE)
    try:
        if annotation is not None and type(dataset).read is not Source.read:
            value = dataset.read(item)[1].get(annotation, IGNORE)
        elif isinstance(value, Path):
            value = dataset.read_mask(value, str(annotation))  # the image is not needed
    except UserError as error:
        raise WorkError(f"source {source.name!r}: {error}") from error
    values = np.asarray(value).ravel()
    counts = np.bincount(values[values >= 0], minlength=count)
    if len(counts) > count:
        wrong = f"{item.annotations.get(str(annotation))}: value {len(counts) - 1} is no label"
        raise WorkError(f"source {source.name!r}: {wrong}; valid: 0 to {count - 1}")
    return counts
