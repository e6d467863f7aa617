"""Pixels of classes are counted over all sources, and weights follow from the counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_data import image_mask_folder
from PIL import Image

from upernet.data.config import DataConfig, SourceConfig, TargetConfig
from upernet.data.folder import ClassFolder, ImageMaskFolder
from upernet.data.frequencies import Frequencies, count_classes
from upernet.data.mixture import bind_sources
from upernet.data.source import Source
from upernet.errors import UserError, WorkError
from upernet.tasks import Task, Texture
from upernet.tasks.dense import DenseTask


def test_weights_by_hand() -> None:
    """100 images of 10 pixels in the mean: c covers 100 pixels, that is 10 images' worth; d was never met."""
    counts = Frequencies(
        {"a": 600.0, "b": 300.0, "c": 100.0, "d": 0.0}, {"a": 1000.0, "b": 600.0, "c": 1000.0, "d": 0.0}, 100
    )
    # 1/6 : 1/3 : 1 = 1 : 2 : 6, of mean 1.
    assert counts.weights("inverse_frequency", 0) == {"a": 0.3333, "b": 0.6667, "c": 2.0, "d": 2.0}
    # .6, .5, .1; the median is .5.
    assert counts.weights("median_frequency", 0) == {"a": 0.8333, "b": 1.0, "c": 5.0, "d": 5.0}
    terms = [0.1 / (1 - 0.9**n) for n in (60, 30, 10)]
    expected = [3 * t / sum(terms) for t in terms]
    given = counts.weights("effective_number", 0.9)
    assert list(given.values()) == pytest.approx([*expected, expected[-1]], rel=1e-3)
    assert set(counts.weights("effective_number", 0).values()) == {1.0}
    with pytest.raises(UserError, match="no training image has a label"):
        Frequencies({"a": 0.0}, {"a": 0.0}, 0).weights("inverse_frequency", 0)


def masks(root: Path, *values: Any, labels: Sequence[str] = ("a", "b", "c")) -> ImageMaskFolder:
    """Images of 2 × 2 pixels and their masks, as the training split."""
    image_mask_folder(root, labels, counts={"train": len(values)}, size=(2, 2))
    for i, value in enumerate(values):
        Image.fromarray(np.array(value, np.uint8)).save(root / "annotations" / "train" / f"train_{i}.png")
    return ImageMaskFolder(root=str(root), labels=list(labels))


def count(own: Task, limit: int | None = None, **sources: tuple[Source, TargetConfig]) -> Frequencies:
    config = DataConfig(
        sources={n: SourceConfig(dataset=d, targets={"t": target}) for n, (d, target) in sources.items()}
    )
    return count_classes(bind_sources(config, {"t": own}), "t", own, limit)


def test_pixels_are_counted_by_class(tmp_path: Path) -> None:
    """ "ab" is spread over a and b; 255 and void count nowhere; an image without labels is none."""
    own = DenseTask(labels=["c", "a", "b"])
    dataset = masks(tmp_path, [[0, 0], [1, 255]], [[1, 1], [1, 2]], [[2, 2], [255, 2]], labels=["ab", "c", "void"])
    target = TargetConfig(classes={"ab": ["a", "b"], "void": None})
    assert count(own, town=(dataset, target)) == Frequencies(
        {"c": 4.0, "a": 1.0, "b": 1.0}, {"c": 6.0, "a": 3.0, "b": 3.0}, 2
    )
    twice = count(own, town=(dataset, target), again=(dataset, target))
    assert twice == Frequencies({"c": 8.0, "a": 2.0, "b": 2.0}, {"c": 12.0, "a": 6.0, "b": 6.0}, 4)


def test_a_limit_takes_images_at_even_distances(tmp_path: Path) -> None:
    dataset = masks(tmp_path, *([[i % 3, i % 3], [i % 3, i % 3]] for i in range(6)))
    own = DenseTask(labels=["a", "b", "c"])
    assert list(count(own, 2, town=(dataset, TargetConfig())).pixels.values()) == [4.0 + 4, 0, 0]  # images 0 and 3
    assert list(count(own, 9, town=(dataset, TargetConfig())).pixels.values()) == [8, 8, 8]


def test_one_label_per_image_counts_like_the_mean_image_with_a_map(tmp_path: Path) -> None:
    rooms = tmp_path / "rooms" / "images" / "train"
    for name in ("a/1.png", "a/2.png", "b/3.png"):
        (rooms / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(rooms / name)
    folder = ClassFolder(root=str(tmp_path / "rooms"))
    own = Texture(labels=["a", "b", "c"])
    assert count(own, rooms=(folder, TargetConfig())) == Frequencies(
        {"a": 2.0, "b": 1.0, "c": 0.0}, {"a": 2.0, "b": 1.0, "c": 0.0}, 3
    )
    maps = masks(tmp_path / "town", [[2, 2], [2, 255]])
    assert count(own, rooms=(folder, TargetConfig()), town=(maps, TargetConfig())) == Frequencies(
        {"a": 6.0, "b": 3.0, "c": 3.0}, {"a": 6.0, "b": 3.0, "c": 3.0}, 4
    )
    everywhere = count(own, rooms=(folder, TargetConfig(constant=["b", "c"])))
    assert everywhere.pixels == {"a": 0.0, "b": 1.5, "c": 1.5}


def test_a_mask_that_says_no_label_is_told(tmp_path: Path) -> None:
    dataset = masks(tmp_path, [[0, 7], [0, 0]])
    with pytest.raises(WorkError) as caught:
        count(DenseTask(labels=["a", "b", "c"]), town=(dataset, TargetConfig()))
    mask = tmp_path / "annotations" / "train" / "train_0.png"
    assert str(caught.value) == f"source 'town': {mask}: value 7 is no label; valid: 0 to 2"
