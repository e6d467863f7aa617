"""How much of the training data each class covers, and class weights that follow from it.

Counted once at the start of a training run and kept in the run folder, so that a run taken up again does not count.
Weights that were computed replace the name of the method in the tasks, hence in every `config.yaml` written later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from rich.console import Console
from rich.progress import track

from upernet.config import UserError, WorkError
from upernet.data.labels import IGNORE
from upernet.data.mixture import LabelledSource
from upernet.data.source import Item, Source
from upernet.tasks.base import Task

if TYPE_CHECKING:
    from upernet.tasks.losses import WeightedLoss

FILE = "frequencies.yaml"


@dataclass(frozen=True)
class Frequencies:
    """What was counted over the training images of a task.

    The pixels of a label that stands for several classes are spread evenly over them.

    Attributes:
        pixels: Class name → its pixels.
        beside: Class name → labelled pixels of the images that show it.
        images: Images with any label.
    """

    pixels: dict[str, float]
    beside: dict[str, float]
    images: int

    def weights(self, method: str, beta: float) -> dict[str, float]:
        """Class name → weight, to four digits; a class that was never met has the largest.

        * `inverse_frequency`: 1 / pixels of the class, scaled to a mean of 1.
        * `median_frequency` (Eigen and Fergus 2015, section 6.3.2): the median over classes of a class's frequency,
          by its own frequency, which is its pixels by all labelled pixels of the images that show it.
        * `effective_number` (Cui et al. 2019, section 4): (1 − β) / (1 − β^n), scaled to a mean of 1. Neighbouring
          pixels are hardly samples of their own, so n is in images: the class's pixels by the mean labelled pixels of
          an image.

        Raises:
            UserError: If nothing was labelled.
        """
        met = {name: pixels for name, pixels in self.pixels.items() if pixels > 0}
        if not met:
            raise UserError(f"class_weights: {method!r}, but no training image has a label; give [1.0, 2.0, …]")
        pixels = np.array(list(met.values()))
        if method == "inverse_frequency":
            values = 1 / pixels
        elif method == "effective_number":
            values = (1 - beta) / (1 - beta ** (pixels / (pixels.sum() / self.images)))
        else:
            frequencies = pixels / np.array([self.beside[name] for name in met])
            values = np.median(frequencies) / frequencies
        if method != "median_frequency":
            values = values / values.mean()
        by_name = dict(zip(met, values.tolist(), strict=True))
        return {name: float(f"{by_name.get(name, values.max()):.4g}") for name in self.pixels}


def weigh_classes(
    tasks: Mapping[str, Task], sources: Mapping[str, LabelledSource], known: Path | None = None
) -> dict[str, Frequencies]:
    """Count for every term of a loss that asks for it, and put the weights in the place of the method's name.

    Counted is the training split of every source that says something about the task. An image with one label for the
    whole of it counts like the mean image with a map.

    Args:
        tasks: The tasks; their losses are changed.
        sources: The sources bound to them.
        known: Run folder whose counts are taken where it holds a run and they are of the same classes.

    Returns:
        What was counted or known, by target and number of images; for `write_frequencies`.

    Raises:
        UserError: If a mask cannot be read, or nothing is labelled.
        WorkError: If the run folder's counts are damaged.
    """
    from upernet.tasks.losses import WeightedLoss

    found: dict[str, Frequencies] = {}
    earlier: dict[str, Frequencies] | None = None
    for name, task in tasks.items():
        for loss in getattr(task, "losses", ()):
            if not isinstance(loss, WeightedLoss) or not isinstance(loss.class_weights, str):
                continue
            earlier = _read(known) if earlier is None else earlier
            target = task.target or name
            key = f"{target}, {_asked(loss)}"
            if key not in found:
                counts = earlier.get(key)
                same = counts is not None and tuple(counts.pixels) == task.classes.names
                found[key] = counts if counts and same else count_classes(sources, target, task, loss.count_images)
            loss.class_weights = found[key].weights(loss.class_weights, loss.beta)
    return found


def count_classes(
    sources: Mapping[str, LabelledSource], target: str, task: Task, limit: int | None = None
) -> Frequencies:
    """Count one target over the training splits; see `weigh_classes`.

    Args:
        sources: The sources bound to the tasks.
        target: Key of the training target.
        task: A task that reads it.
        limit: Images per source, evenly spaced; all if none.
    """
    names = task.classes.names
    maps, labels = _Sum(len(names)), _Sum(len(names))
    for source in sources.values():
        if source.config.train is None or target not in source.targets:
            continue
        supervision = source.targets[target]
        share = np.zeros((len(supervision.sets.labels), len(names)))
        for label, members in enumerate(supervision.sets.members):
            share[label, list(members)] = 1 / max(len(members), 1)
        items = source.items(source.config.train)
        if limit is not None and limit < len(items):
            items = [items[i * len(items) // limit] for i in range(limit)]
        into = maps if supervision.dense else labels
        for item in _shown(items, f"counting {target} in {source.name}"):
            into.add(_labels(source, item, supervision.annotation, len(share)) @ share)
    # What an image with one label counts; where a task has no maps, any unit will do.
    unit = maps.pixels.sum() / maps.images if maps.images else 1.0
    pixels, beside = maps.pixels + unit * labels.pixels, maps.beside + unit * labels.beside
    by_name = [dict(zip(names, values.tolist(), strict=True)) for values in (pixels, beside)]
    return Frequencies(by_name[0], by_name[1], maps.images + labels.images)


def write_frequencies(folder: Path, found: Mapping[str, Frequencies]) -> None:
    """Keep what `weigh_classes` counted in a run folder; nothing is written where nothing was."""
    from upernet.files import write_whole

    if found:
        text = yaml.safe_dump({k: asdict(v) for k, v in found.items()}, sort_keys=False, allow_unicode=True)
        write_whole(folder / FILE, lambda file: file.write(text.encode()))


class _Sum:
    """Counts over images: pixels by class, labelled pixels of the images that show it, images."""

    def __init__(self, classes: int) -> None:
        self.pixels, self.beside, self.images = np.zeros(classes), np.zeros(classes), 0

    def add(self, pixels: np.ndarray) -> None:
        self.pixels += pixels
        self.beside += np.where(pixels > 0, pixels.sum(), 0)
        self.images += bool(pixels.any())


def _labels(source: LabelledSource, item: Item, annotation: str | None, count: int) -> np.ndarray:
    """(count,) int64: pixels of each of the source's labels in an image, or 1 for the one label it has."""
    dataset = source.config.dataset
    value: Any = 0 if annotation is None else item.annotations.get(annotation, IGNORE)
    try:
        if annotation is not None and type(dataset).read is not Source.read:
            value = dataset.read(item)[1].get(annotation, IGNORE)
        elif isinstance(value, Path):
            value = dataset.read_mask(value)  # the image is not needed
    except UserError as error:
        raise WorkError(f"source {source.name!r}: {error}") from error
    values = np.asarray(value).ravel()
    counts = np.bincount(values[values >= 0], minlength=count)
    if len(counts) > count:
        wrong = f"{item.annotations.get(str(annotation))}: value {len(counts) - 1} is no label"
        raise WorkError(f"source {source.name!r}: {wrong}; valid: 0 to {count - 1}")
    return counts


def _asked(loss: WeightedLoss) -> str:
    return "all images" if loss.count_images is None else f"{loss.count_images} images a source"


def _shown(items: list[Item], title: str) -> Iterable[Item]:
    console = Console(stderr=True)
    return track(items, title, console=console, transient=True, disable=not console.is_terminal)


def _read(folder: Path | None) -> dict[str, Frequencies]:
    if folder is None or not (folder / "state.pt").is_file() or not (folder / FILE).is_file():
        return {}
    try:
        content = yaml.safe_load((folder / FILE).read_text())
        return {key: Frequencies(**values) for key, values in content.items()}
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, AttributeError) as error:
        raise WorkError(f"{folder / FILE}: damaged; delete it, and the classes are counted again") from error
