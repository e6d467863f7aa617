"""The schema of every YAML file, and its way to plain values and back."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import upernet
import upernet.config
import upernet.data.config
from upernet.config import InferenceConfig, ModelConfig, OptimConfig, RunConfig
from upernet.data.config import AugmentConfig, DataConfig, SourceConfig, TargetConfig
from upernet.data.sets.voc import VOC
from upernet.errors import UserError
from upernet.plain import Configurable, from_class_path, from_plain, to_plain
from upernet.tasks import Scene, Task


@dataclass(kw_only=True)
class Shape(Configurable):
    """A stranger's configurable class."""

    sides: int
    name: str = "none"
    colour: tuple[int, ...] = (1, 2)
    options: dict[str, Any] = field(default_factory=dict)
    secret: int = field(default=0, init=False)


@dataclass(kw_only=True)
class Square(Shape):
    sides: int = 4


# --- to plain values ------------------------------------------------------------------------------------------------


def test_plain_values() -> None:
    assert to_plain(ModelConfig(pool_scales=(1, 2), backbone_args={"a": (1, 2)}))["pool_scales"] == [1, 2]
    assert to_plain({"path": Path("a/b"), 1: (None, True, 1.5)}) == {"path": "a/b", "1": [None, True, 1.5]}
    assert to_plain(Square(name="unit")) == {
        "class_path": f"{__name__}.Square",
        "init_args": {"sides": 4, "name": "unit", "colour": [1, 2], "options": {}},
    }


def test_a_whole_data_block_is_plain() -> None:
    source = SourceConfig(dataset=VOC(root="~/voc"), targets={"object": TargetConfig(classes={"cat": None})})
    data = DataConfig(sources={"voc": source}, augment=AugmentConfig(crop=(64, 96)))
    plain = to_plain(data)
    assert yaml.safe_load(yaml.safe_dump(plain)) == plain
    assert plain["sources"]["voc"]["dataset"]["class_path"] == "upernet.data.VOC"
    assert plain["sources"]["voc"]["targets"]["object"]["classes"] == {"cat": None}
    assert plain["augment"]["crop"] == [64, 96]


# --- and back -------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(
    width=st.integers(1, 999),
    scales=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    mean=st.tuples(*[st.floats(0, 1)] * 3),
    norm=st.booleans(),
    options=st.dictionaries(st.text("abc", min_size=1), st.one_of(st.integers(), st.booleans(), st.text())),
)
def test_a_network_comes_back_from_yaml(
    width: int, scales: list[int], mean: tuple[float, float, float], norm: bool, options: dict[str, Any]
) -> None:
    config = ModelConfig(
        width=width, pool_scales=tuple(scales), mean=mean, level_norm=norm, backbone_args=options, pooling="precise"
    )
    plain = yaml.safe_load(yaml.safe_dump(to_plain(config)))
    assert from_plain(ModelConfig, plain, "here") == config


SLIDING = InferenceConfig(window=(64, 96), stride=(32, 48), scales=(0.5, 1.0), flip=True, scale_of="image")


@pytest.mark.parametrize("config", [ModelConfig(), InferenceConfig(short_side=64), SLIDING, OptimConfig(), RunConfig()])
def test_every_block_comes_back(config: Any) -> None:
    assert from_plain(type(config), to_plain(config), "here") == config


def test_what_is_left_out_has_its_default() -> None:
    assert from_plain(InferenceConfig, {"max_side": 70}, "here") == InferenceConfig(max_side=70)


def test_an_unknown_key_is_told() -> None:
    with pytest.raises(UserError) as caught:
        from_plain(InferenceConfig, {"short": 3}, "m.yaml: inference")
    assert str(caught.value) == (
        "m.yaml: inference: unknown key 'short' for InferenceConfig; valid keys: short_side, max_side, antialias, "
        "window, stride, resize_twice, scales, flip, scale_of"
    )
    with pytest.raises(UserError, match=r"unknown key 'secret' for Square; valid keys: sides, name, colour, options$"):
        from_plain(Square, {"secret": 1}, "here")


@pytest.mark.parametrize("values", [None, 3, "text", [1]])
def test_what_is_no_mapping_is_told(values: Any) -> None:
    with pytest.raises(UserError, match="here: expected a mapping for ModelConfig, found"):
        from_plain(ModelConfig, values, "here")


def test_a_class_is_found_by_its_path() -> None:
    spec = {"class_path": f"{__name__}.Square", "init_args": {"name": "unit", "colour": [9]}}
    assert from_class_path(Shape, spec, "here") == Square(name="unit", colour=(9,))
    assert from_class_path(Task, {"class_path": "upernet.tasks.Scene"}, "here") == Scene()  # type: ignore[type-abstract]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (None, "here: expected class_path: package.module.Class, found None"),
        ({}, "here: expected class_path: package.module.Class, found {}"),
        ({"class_path": "Scene"}, "here: expected class_path"),
        ({"class_path": 3}, "here: expected class_path"),
        ({"class_path": "no_such_package.Scene"}, "here: cannot import 'no_such_package.Scene'"),
        ({"class_path": "upernet.tasks.Scnee"}, "here: cannot import 'upernet.tasks.Scnee'"),
        ({"class_path": "upernet.data.VOC"}, "here: 'upernet.data.VOC' is no Task"),
        ({"class_path": "os.system"}, "here: 'os.system' is no Task"),
        ({"class_path": "upernet.tasks.Scene", "init_args": {"label": []}}, "here: unknown key 'label' for Scene"),
        ({"class_path": "upernet.tasks.Scene", "init_args": [1]}, "here: expected a mapping for Scene"),
    ],
)
def test_a_class_that_cannot_be_had_is_told(spec: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        from_class_path(Task, spec, "here")  # type: ignore[type-abstract]
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("base", "spec"),
    [
        (Shape, {"class_path": f"{__name__}.Shape"}),
        (Task, {"class_path": "upernet.tasks.Task"}),
        (Task, {"class_path": ".Scene"}),
    ],
    ids=["required argument missing", "abstract class", "no module"],
)
def test_a_class_that_refuses_is_told(base: type, spec: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^here: "):
        from_class_path(base, spec, "here")


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: OptimConfig(lr=0), "optim.lr: 0 is not at least 1e-12; for example 0.01"),
        (lambda: OptimConfig(lr=0.01, min_lr=0.1), "optim.min_lr: 0.1 is not from 0 to 0.01; for example 0"),
        (lambda: OptimConfig(ema=1.5), "optim.ema: 1.5 is not from 0 to 1; for example 0.999"),
        (lambda: OptimConfig(accumulate=0), "optim.accumulate: 0 is not at least 1; for example 1"),
        (lambda: RunConfig(steps=0), "run.steps: 0 is not at least 1; for example 80000"),
        (lambda: RunConfig(save_every=0), "run.save_every: 0 is not at least 1; for example 1000"),
        (lambda: RunConfig(log_every=0), "run.log_every: 0 is not at least 1; for example 50"),
        (lambda: InferenceConfig(short_side=31), "inference.short_side: 31 is not at least 32; for example 512"),
        (lambda: ModelConfig(width=0), "model.width: 0 is not at least 1; for example 512"),
        (
            lambda: ModelConfig(pool_scales=(1, 0)),
            "model.pool_scales: [1, 0] are no numbers of bins; for example [1, 2, 3, 6]",
        ),
        (
            lambda: ModelConfig(std=(0.2, 0.0, 0.2)),
            "model.std: 0.0 is not at least 1e-06; for example [0.229, 0.224, 0.225]",
        ),
        (lambda: DataConfig(batch=0), "data.batch: 0 is not at least 1; for example 8"),
        (lambda: DataConfig(workers=-1), "data.workers: -1 is not at least 0; for example 2"),
    ],
)
def test_numbers_out_of_range_are_told(make: Callable[[], Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        make()
    assert str(caught.value) == line


def test_weights_come_from_one_place() -> None:
    with pytest.raises(UserError, match=r"run\.init 'upp-mini' already holds the backbone"):
        RunConfig(init="upp-mini", backbone_weights="timm")


# --- the schema itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [upernet.config, upernet.data.config], ids=lambda m: m.__name__)
def test_every_key_has_a_line_of_help(module: Any) -> None:
    for node in ast.parse(Path(module.__file__).read_text()).body:
        if isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
            documented = {
                a.target.id  # type: ignore[union-attr]
                for a, b in zip(node.body, node.body[1:], strict=False)
                if isinstance(a, ast.AnnAssign) and isinstance(b, ast.Expr) and isinstance(b.value, ast.Constant)
            }
            assert {f.name for f in fields(getattr(module, node.name))} == documented


@pytest.mark.parametrize(
    "names",
    [
        "upernet",
        "upernet.config",
        "upernet.plain",
        "upernet.contract",
        "upernet.labels",
        "upernet.data",
        "upernet.data.config",
        "upernet.cli",
        "upernet.commands.train",
    ],
)
def test_the_schema_imports_nothing_heavy(names: str) -> None:
    code = (
        f"import sys, {names}; "
        "print(*sorted({'torch', 'lightning', 'jsonargparse', 'gradio', 'timm', 'torchvision'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == []


def test_public_names_are_had_on_first_use() -> None:
    assert upernet.UserError is UserError
    assert upernet.Task is Task
    assert upernet.IGNORE == -1
    assert all(getattr(upernet, name) is not None for name in upernet.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Upernet'"):
        _ = upernet.Upernet
