"""A training file of somebody's own, with a task and a source of their own, and what a command says of a wrong one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from upernet.cli import main
from upernet.tasks import Scene


@dataclass(kw_only=True)
class Weather(Scene):
    """A stranger's task with a field of its own, known to nobody but its YAML."""

    months: int = 12


RECIPE: dict[str, Any] = {
    "model": {"backbone": "test_resnet", "width": 8, "pool_scales": [1, 2]},
    "tasks": {
        "object": {"class_path": "upernet.tasks.Object", "init_args": {"labels": ["sky", "car"]}},
        "weather": {"class_path": f"{__name__}.Weather", "init_args": {"labels": {"rain": "#0000ff"}, "months": 6}},
    },
    "data": {
        "batch": 2,
        "augment": {"crop": [64, 96]},
        "sources": {
            "town": {
                "dataset": {
                    "class_path": "upernet.data.ImageMaskFolder",
                    "init_args": {"root": "${NOWHERE}/town", "labels": ["a", "b", "c"], "ignore_value": None},
                },
                "targets": {"object": {"classes": {"a": "sky", "b": ["sky", "car"], "c": None}}},
                "weight": 2,
                "val": None,
            },
            "drawn": {
                "dataset": {"class_path": "fake_data.Memory", "init_args": {"labels": ["rain"], "dense": False}},
                "targets": {"weather": {}, "object": {"constant": ["sky"]}},
            },
        },
    },
    "optim": {"name": "adamw", "lr": 1.5e-3, "betas": [0.8, 0.9]},
    "run": {"out": "runs/mine", "steps": 3},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The file with one value changed.

    Args:
        path: Its keys, with dots between; blocks that are not there are made.
        value: The value.
    """
    content: dict[str, Any] = yaml.safe_load(yaml.safe_dump(RECIPE, sort_keys=False))
    *parents, last = path.split(".")
    block = content
    for key in parents:
        block = block.setdefault(key, {})
    block[last] = value
    return content


def write_recipe(folder: Path) -> Path:
    """The file, written."""
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    return path


def told(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """The one line on the error stream of a command that was used wrongly."""
    assert main([str(word) for word in words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("upernet: ")
    return err
