"""Predicted maps in the numbering that benchmarks read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fake_data import Memory
from PIL import Image

from upernet.data import ADE20K, Cityscapes, Source
from upernet.data.config import DataConfig, SourceConfig, TargetConfig
from upernet.data.mixture import LabelledSource, bind_sources
from upernet.engine.submission import writer
from upernet.labels import IGNORE
from upernet.tasks import Object, Semantic, Task


def bound(dataset: Source, task: Task, classes: dict[str, str | list[str] | None] | None = None) -> LabelledSource:
    config = SourceConfig(dataset=dataset, targets={"it": TargetConfig(classes=classes or {})})
    return bind_sources(DataConfig(sources={"my/town": config}), {"it": task})["my/town"]


def written(source: LabelledSource, folder: Path, item: str, groups: list[int]) -> tuple[str, str, list[int]]:
    """Place, mode and values of the map that is written for a row of predicted groups."""
    save = writer(folder, source)
    save(item, "../object", source.supervision["it"], torch.tensor([groups]))
    (path,) = folder.rglob("*.png")
    with Image.open(path) as image:
        return path.relative_to(folder).as_posix(), image.mode, np.asarray(image)[0].tolist()


def test_a_data_set_says_numbers_and_names(tmp_path: Path) -> None:
    cityscapes = bound(Cityscapes(root=""), Semantic(labels="cityscapes"))
    place = "my%2Ftown/%2E%2E%2Fobject/ulm_000000_000019_predicted.png"
    told = written(cityscapes, tmp_path / "1", "ulm_000000_000019", [0, 13, 18, IGNORE])
    assert told == (place, "L", [7, 26, 33, 0])
    ade20k = bound(ADE20K(root=""), Semantic(labels="ade20k"))
    told = written(ade20k, tmp_path / "2", "validation/ADE_val_1", [0, 149, IGNORE])
    assert told == ("my%2Ftown/%2E%2E%2Fobject/ADE_val_1.png", "L", [1, 150, 0])


def test_a_group_has_the_number_of_the_first_label_that_uses_it(tmp_path: Path) -> None:
    dataset = Memory(labels=["sky", "cloud", "car", "void"])
    source = bound(dataset, Object(labels=["air", "car"]), {"sky": "air", "cloud": "air", "void": None})
    told = written(source, tmp_path, "one", [0, 1, IGNORE])
    assert told == ("my%2Ftown/%2E%2E%2Fobject/one.png", "L", [0, 2, 255])


@pytest.mark.parametrize(("count", "mode", "void"), [(3, "L", 255), (300, "I;16", 65535)])
def test_more_labels_than_a_byte_holds_make_16_bit_files(count: int, mode: str, void: int, tmp_path: Path) -> None:
    names = [str(i) for i in range(count)]
    source = bound(Memory(labels=names), Object(labels=names))
    told = written(source, tmp_path, "deep/one", [0, count - 1, IGNORE])
    assert told == ("my%2Ftown/%2E%2E%2Fobject/deep/one.png", mode, [0, count - 1, void])
