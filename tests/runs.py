"""A training of seconds on made-up data, as YAML, and what it leaves."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import yaml
from fake_data import SCENE15


def recipe(fake_root: Path, out: Path) -> dict[str, Any]:
    """A configuration of three tasks and two sources: four steps, validated at the second and the last.

    Args:
        fake_root: Where `fake_data.everything` has put its data.
        out: The run's folder.
    """
    mini = fake_root / "mini_multitask"
    facade = {"class_path": "upernet.data.Facade", "init_args": {"root": str(mini / "facade")}}
    parts = {"building": "building/-", "door": "building/door", "window": "building/window"}
    others = dict.fromkeys(["various", "car", "pavement", "road", "sky", "vegetation"])
    return {
        "model": {"backbone": "test_resnet", "width": 8},
        "tasks": {
            "object": {"class_path": "upernet.tasks.Object", "init_args": {"labels": ["building", "else"], "width": 8}},
            "part": {
                "class_path": "upernet.tasks.Part",
                "init_args": {"parts": {"building": ["door", "window"]}, "width": 8},
            },
            "scene": {"class_path": "upernet.tasks.Scene", "init_args": {"labels": SCENE15, "width": 8}},
        },
        "data": {
            "batch": 2,
            "workers": 0,
            "augment": {"crop": [32, 32], "brightness": 0.2},
            "sources": {
                "fronts": {
                    "dataset": facade,
                    "targets": {
                        "object": {"classes": dict.fromkeys(others, "else") | dict.fromkeys(parts, "building")},
                        "part": {"classes": others | parts},
                    },
                },
                "places": {
                    "dataset": {"class_path": "upernet.data.ClassFolder", "init_args": {"root": str(mini / "scene15")}},
                    "targets": {"scene": {}},
                },
            },
        },
        "optim": {"lr": 0.02, "ema": 0.5},
        "run": {"out": str(out), "steps": 4, "device": "cpu", "log_every": 1, "save_every": 1, "val_every": 2},
        "inference": {"short_side": 48},
    }


def write(path: Path, content: dict[str, Any]) -> str:
    """The path, as a word of a command line, of the YAML file that it then is."""
    path.write_text(yaml.safe_dump(content))
    return str(path)


def steps_of(folder: Path, metric: str) -> list[int]:
    """The steps for which a run's table holds a metric."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row["metric"] == metric]
