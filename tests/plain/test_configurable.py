"""Objects as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from upernet.config import ModelConfig
from upernet.data.config import AugmentConfig, DataConfig, SourceConfig, TargetConfig
from upernet.data.sets.voc import VOC
from upernet.plain import Configurable, to_plain
from upernet.tasks import Scene


@dataclass(kw_only=True)
class Square(Configurable):
    """A stranger's configurable class."""

    sides: int = 4
    colour: tuple[int, ...] = (1, 2)
    options: dict[str, Any] = field(default_factory=dict)
    secret: int = field(default=0, init=False)


def test_plain_values() -> None:
    assert to_plain(ModelConfig(pool_scales=(1, 2), backbone_args={"a": (1, 2)}))["pool_scales"] == [1, 2]
    assert to_plain({"path": Path("a/b"), 1: (None, True, 1.5)}) == {"path": "a/b", "1": [None, True, 1.5]}
    assert to_plain(Square()) == {
        "class_path": f"{__name__}.Square",
        "init_args": {"sides": 4, "colour": [1, 2], "options": {}},
    }


def test_classes_of_ours_are_named_by_their_public_room() -> None:
    assert Scene.class_path() == "upernet.tasks.Scene"
    assert VOC.class_path() == "upernet.data.VOC"


def test_a_whole_data_block_is_plain() -> None:
    source = SourceConfig(dataset=VOC(root="~/voc"), targets={"object": TargetConfig(classes={"cat": None})})
    data = DataConfig(sources={"voc": source}, augment=AugmentConfig(crop=(64, 96)))
    plain = to_plain(data)
    assert yaml.safe_load(yaml.safe_dump(plain)) == plain
    assert plain["sources"]["voc"]["dataset"]["class_path"] == "upernet.data.VOC"
    assert plain["sources"]["voc"]["targets"]["object"]["classes"] == {"cat": None}
    assert plain["augment"]["crop"] == [64, 96]
