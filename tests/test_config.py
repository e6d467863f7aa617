"""The schema of every YAML file: bounds, help and what it imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import upernet
import upernet.config
import upernet.data.config
from upernet.config import InferenceConfig, ModelConfig, OptimConfig, RunConfig
from upernet.data.config import DataConfig
from upernet.errors import UserError
from upernet.tasks import Task


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
        (lambda: RunConfig(checkpoint="some"), "run.checkpoint: 'some' is not one of none, backbone, all"),  # type: ignore
        (lambda: InferenceConfig(short_side=31), "inference.short_side: 31 is not at least 32; for example 512"),
        (lambda: ModelConfig(width=0), "model.width: 0 is not at least 1; for example 512"),
        (
            lambda: ModelConfig(pool_scales=(1, 0)),
            "model.pool_scales: [1, 0] is not a list of bins, each at least 1; for example [1, 2, 3, 6]",
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
