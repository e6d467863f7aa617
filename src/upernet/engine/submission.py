"""Predicted maps as PNG files, in the numbering and under the names that each data set's benchmark reads."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from upernet.data.mixture import LabelledSource, Supervision
from upernet.files import file_part, write_whole


def writer(folder: Path, source: LabelledSource) -> Callable[[str, str, Supervision, Tensor], None]:
    """Make a function that writes a source's predicted maps to `<folder>/<source>/<task>/`.

    Pixel values and file names are those of the source's `prediction_ids` and `prediction_file`.

    Returns:
        A function of an image's id, the task, its supervision, and the predicted groups (H, W) int64.
    """
    dataset = source.config.dataset

    @cache
    def pixel_values(supervision: Supervision) -> np.ndarray:
        """(G + 1,): the value of each group, that of the first label which uses it, and last that of `IGNORE`."""
        sets = supervision.sets
        ids = dataset.prediction_ids(str(supervision.annotation))
        return ids[[*(sets.members.index(group) for group in sets.groups), -1]]

    def save(item: str, task: str, supervision: Supervision, groups: Tensor) -> None:
        values = pixel_values(supervision)
        mask = values[groups.cpu().numpy()]  # IGNORE is -1, the last
        picture = Image.fromarray(mask.astype(np.uint8 if values.max() <= 255 else np.uint16))
        path = folder / file_part(source.name) / file_part(task) / dataset.prediction_file(item)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda file: picture.save(file, format="PNG"), durable=False)

    return save
