"""Predicted maps in the numbering that benchmarks read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from upernet.data.mixture import Supervision
from upernet.engine.submission import CITYSCAPES_IDS, file_name, numbering, writer
from upernet.errors import UserError
from upernet.labels import IGNORE, ClassSets, Labels
from upernet.vocabulary import vocabulary


def own(name: str) -> ClassSets:
    names = list(vocabulary(name))
    return ClassSets.of(names, Labels.of(names))


def test_cityscapes_gets_its_label_ids(spec_dir: Path) -> None:
    table = json.loads((spec_dir / "cityscapes.json").read_text())
    train_ids = {int(train): int(number) for number, train in table["id_to_trainId"].items() if 0 <= train < 255}
    kind, numbers = numbering(own("cityscapes"))
    assert kind == "cityscapes"
    assert numbers[:19].tolist() == [train_ids[i] for i in range(19)]
    assert list(CITYSCAPES_IDS) == table["classes"]


def test_ade20k_counts_from_1() -> None:
    kind, numbers = numbering(own("ade20k"))
    assert (kind, numbers.tolist()) == ("ade20k", [*range(1, 151), 0])


def test_others_keep_their_sources_ids() -> None:
    sets = ClassSets.of(
        ["sky", "cloud", "car", "void"], Labels.of(["air", "car"]), {"sky": "air", "cloud": "air", "void": None}
    )
    kind, numbers = numbering(sets)
    assert (kind, numbers.tolist()) == ("own", [0, 2, 255])
    many = [str(i) for i in range(300)]
    assert numbering(ClassSets.of(many, Labels.of(many)))[1][-1] == 65535


def test_file_names() -> None:
    for item in ("frankfurt_000000_000294", "val/frankfurt/frankfurt_000000_000294_leftImg8bit"):
        assert file_name("cityscapes", item) == "frankfurt_000000_000294_predicted.png"
    assert file_name("ade20k", "validation/ADE_val_00000001") == "ADE_val_00000001.png"
    assert file_name("own", "/a/../../b") == "a/b.png"
    with pytest.raises(
        UserError, match="image 'street' has no name of Cityscapes; for example frankfurt_000000_000294"
    ):
        file_name("cityscapes", "street")


@pytest.mark.parametrize(("count", "mode", "void"), [(3, "L", 255), (300, "I;16", 65535)])
def test_files(count: int, mode: str, void: int, tmp_path: Path) -> None:
    names = [str(i) for i in range(count)]
    supervision = Supervision("mask", ClassSets.of(names, Labels.of(names)), dense=True, evaluate=True, average=None)
    save = writer(tmp_path, "my/town")
    save("deep/one", "../object", supervision, torch.tensor([[0, count - 1, IGNORE]]))
    path = tmp_path / "my_town" / "___object" / "deep" / "one.png"
    with Image.open(path) as image:
        assert image.mode == mode
        assert np.asarray(image).tolist() == [[0, count - 1, void]]
