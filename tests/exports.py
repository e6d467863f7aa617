"""A network of a few thousand weights with clear answers, and files that were exported from it."""

from __future__ import annotations

import torch
from small_networks import SMALL
from torch import nn

from upernet.config import InferenceConfig, ModelConfig
from upernet.contract import Task
from upernet.model import UPerNet
from upernet.model.build import build_model, for_inference
from upernet.tasks import Object, Part, Scene, Semantic

INFERENCE = InferenceConfig(short_side=64, max_side=128, antialias=True)


def parsing_tasks() -> dict[str, Task]:
    return {
        "scene": Scene(labels=["street", "field", "coast"], width=8),
        "object": Object(labels={"car": "#102030", "house": "#00ff00", "tree": "#0000ff"}, width=8),
        "part": Part(parts={"car": ["wheel", "door"], "house": ["roof"]}, width=8),
        "auxiliary": Semantic(labels=["one", "two"], level="c4", auxiliary=True),
    }


def network_of(tasks: dict[str, Task], backbone: str = "resnet18", **args: object) -> UPerNet:
    """A network whose classifiers find every class somewhere."""
    torch.manual_seed(0)
    args = args or (dict(SMALL) if backbone == "resnet18" else {})
    config = ModelConfig(backbone=backbone, backbone_args=args, width=8, pool_scales=(1, 3), mean=(0.1, 0.2, 0.3))
    network = for_inference(build_model(config, tasks))
    for head in network.heads.values():
        nn.init.normal_(head.classifier.weight, std=3.0)
        # Around the middle of the level, so that no class wins everywhere.
        centre = head.classifier.weight.flatten(1).sum(1) * 0.4
        nn.init.zeros_(head.classifier.bias)
        head.classifier.bias.data -= centre
    return network


def levels_as_tasks() -> dict[str, Task]:
    """A task on every level of the backbone, with nothing but a classifier."""
    return {level: Semantic(labels=["a", "b", "c"], level=level, convs=0) for level in ("c2", "c3", "c4", "c5")}
