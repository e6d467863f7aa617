"""Networks of a few thousand weights, what they are shown, and a library that stands for another software."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from upernet.compare.implementation import Shown, Trial
from upernet.config import InferenceConfig, ModelConfig
from upernet.tasks import Semantic, Task

SMALL = {"channels": [8, 16, 32, 64], "layers": [1, 1, 1, 1]}
"""A ResNet of a few thousand weights."""


def semantic(labels: Any = ("sky", "road", "car"), auxiliary: bool = True) -> dict[str, Task]:
    labels = labels if isinstance(labels, str) else list(labels)
    tasks: dict[str, Task] = {"semantic": Semantic(labels=labels)}
    if auxiliary:
        tasks["auxiliary"] = Semantic(
            labels=labels, level="c4", convs=1, width=256, target="semantic", weight=0.4, auxiliary=True
        )
    return tasks


def tiny(**change: Any) -> ModelConfig:
    return ModelConfig(**({"backbone": "resnet18", "backbone_args": SMALL, "width": 8} | change))


def trial(size: tuple[int, int] = (64, 96), batch: int = 1, answer: tuple[int, int] | None = None, **how: Any) -> Trial:
    image = torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(1)) * 255
    return Trial(image, answer or size, InferenceConfig(**how))


def shown(size: tuple[int, int] = (64, 96), batch: int = 1, precision: str = "float32") -> Shown:
    return Shown(size, size, InferenceConfig(), batch, precision=precision)


THEIRS = """
import torch
import torch.nn.functional as F
from torch import nn

from upernet.store.loading import load_model

__version__ = "9.9"


class Theirs(nn.Module):
    def __init__(self, place):
        super().__init__()
        self.network = load_model(place)[0]

    def forward(self, x):
        logits = self.network(x * self.network.std + self.network.mean)["semantic"]
        return F.interpolate(logits, x.shape[-2:], mode="bilinear", align_corners=True)


from_pretrained = Theirs
"""
"""Ours as another library's network: a normalised image in, logits at its size out."""


def stand_in_library(folder: Path, monkeypatch: pytest.MonkeyPatch, change: str = "") -> None:
    """Write what stands for segmentation_models_pytorch; the other libraries are not installed then.

    Args:
        folder: Where modules are found first from now on, by processes that are started too.
        monkeypatch: Takes that back.
        change: Python code that ends the module.
    """
    (folder / "segmentation_models_pytorch.py").write_text(THEIRS + change)
    monkeypatch.delitem(sys.modules, "segmentation_models_pytorch", raising=False)
    monkeypatch.syspath_prepend(str(folder))
    for name in ("mmseg", "mmcv", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
