"""A model of a few thousand weights with three tasks, and its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from refusals import told_by
from torch import Tensor

from upernet.config import InferenceConfig, ModelConfig
from upernet.model import UPerNet
from upernet.model.build import build_model
from upernet.store.loading import load_model
from upernet.store.native import CONFIG, save_model
from upernet.tasks import Object, Part, Scene, Task

INFERENCE = InferenceConfig(short_side=64, max_side=128, antialias=True)


def tasks(**changed: Task | None) -> dict[str, Task]:
    """A scene, an object and a part task; those given replace or join them, none leaves one out."""
    made: dict[str, Any] = {
        "scene": Scene(labels={"street": "#102030", "field": "#00ff00"}, width=8),
        "object": Object(labels=["car", "house"], width=8),
        "part": Part(parts={"car": ["wheel"]}, width=8),
    }
    return {name: task for name, task in (made | changed).items() if task is not None}


def network(seed: int = 0, **changed: Task | None) -> UPerNet:
    """A tiny network whose every tensor has been moved away from its start."""
    torch.manual_seed(seed)
    own = tasks(**changed)
    model = build_model(ModelConfig(backbone="test_resnet", width=8, mean=(0.1, 0.2, 0.3), pooling="precise"), own)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(torch.randint_like(value, 1, 5)) if not value.is_floating_point() else value.add_(
                torch.rand_like(value)
            )
    return model


def save(folder: Path) -> Path:
    """A model folder of that network."""
    save_model(folder, network(), tasks(), INFERENCE, info={"step": 7, "note": "höhe"})
    return folder


def moved(one: dict[str, Tensor], other: dict[str, Tensor]) -> set[str]:
    """Names of the tensors that differ."""
    assert one.keys() == other.keys()
    return {name for name in one if not torch.equal(one[name], other[name])}


def edit(folder: Path, change: Any) -> Path:
    """Change the content of a model's configuration."""
    path = folder / CONFIG
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))
    return path


def told(folder: str | Path) -> str:
    """The one line that says why a model cannot be opened."""
    return told_by(lambda: load_model(folder))
