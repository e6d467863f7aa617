"""Class weights computed from the training data, which is counted once at the start of a run.

The counts are kept in the run folder, so that a resumed run does not count again. The computed weights replace the name
of the method in the tasks, and so in every `config.yaml` that is written later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import yaml

from upernet.contract import Task
from upernet.data.frequencies import Frequencies, count_classes
from upernet.data.mixture import LabelledSource
from upernet.errors import WorkError
from upernet.files import write_whole
from upernet.tasks.losses import WeightedLoss

FILE = "frequencies.yaml"


def weigh_classes(
    tasks: Mapping[str, Task], sources: Mapping[str, LabelledSource], known: Path | None = None
) -> dict[str, Frequencies]:
    """Compute the class weights of every loss term that names a method for them, and replace the name.

    The pixels in the training split of every source that supervises the task are counted. An image with one label for
    the whole image counts as many pixels as the mean label map has.

    Args:
        tasks: The tasks; their losses are changed.
        sources: The sources bound to the tasks.
        known: A run folder; if it holds a run with counts of the same classes, these are used instead.

    Returns:
        The counts by target and number of images, for `write_frequencies`.

    Raises:
        UserError: If a mask cannot be read, or nothing is labelled.
        WorkError: If the run folder's counts are damaged.
    """
    found: dict[str, Frequencies] = {}
    earlier: dict[str, Frequencies] | None = None
    for name, task in tasks.items():
        for loss in getattr(task, "losses", ()):
            if not isinstance(loss, WeightedLoss) or not isinstance(loss.class_weights, str):
                continue
            earlier = _read(known) if earlier is None else earlier
            target = task.target or name
            key = f"{target}, {_counted_images(loss)}"
            if key not in found:
                counts = earlier.get(key)
                same = counts is not None and tuple(counts.pixels) == task.classes.names
                found[key] = counts if counts and same else count_classes(sources, target, task, loss.count_images)
            loss.class_weights = found[key].weights(loss.class_weights, loss.beta)
    return found


def write_frequencies(folder: Path, found: Mapping[str, Frequencies]) -> None:
    """Write the counts of `weigh_classes` to a run folder; without counts, no file is written."""
    if found:
        text = yaml.safe_dump({k: asdict(v) for k, v in found.items()}, sort_keys=False, allow_unicode=True)
        write_whole(folder / FILE, lambda file: file.write(text.encode()))


def _counted_images(loss: WeightedLoss) -> str:
    return "all images" if loss.count_images is None else f"{loss.count_images} images a source"


def _read(folder: Path | None) -> dict[str, Frequencies]:
    if folder is None or not (folder / "state.pt").is_file() or not (folder / FILE).is_file():
        return {}
    try:
        content = yaml.safe_load((folder / FILE).read_text())
        return {key: Frequencies(**values) for key, values in content.items()}
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, AttributeError) as error:
        raise WorkError(f"{folder / FILE}: damaged; delete it, and the classes are counted again") from error
