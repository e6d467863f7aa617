"""Training runs of a few steps on a tiny network with two tasks and two sources, shared by the tests of `engine`."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from fake_data import Memory
from torch import Tensor, nn

from upernet.config import InferenceConfig, ModelConfig, OptimConfig, RunConfig
from upernet.data.config import AugmentConfig, DataConfig, SourceConfig, TargetConfig
from upernet.data.mixture import bind_sources
from upernet.data.sample import Batch
from upernet.engine.evaluator import Result
from upernet.engine.trainer import Trainer
from upernet.model.build import build_model
from upernet.tasks import Scene, Semantic, Task

LEVELS = ["low", "middle", "high"]


def both_tasks() -> dict[str, Task]:
    return {"object": Semantic(labels=LEVELS, dropout=0.5), "scene": Scene(labels=LEVELS, width=8)}


def both_sources() -> dict[str, SourceConfig]:
    return {
        "maps": SourceConfig(dataset=Memory(salt=1), targets={"object": TargetConfig()}),
        "whole": SourceConfig(dataset=Memory(salt=2, dense=False), targets={"scene": TargetConfig()}),
    }


def make(
    out: Path,
    tasks: dict[str, Task] | None = None,
    sources: dict[str, SourceConfig] | None = None,
    optim: dict[str, Any] | None = None,
    backbone: str = "test_resnet",
    **run: Any,
) -> Trainer:
    tasks = tasks or both_tasks()
    torch.manual_seed(0)
    model = build_model(ModelConfig(backbone=backbone, width=8), tasks)
    data = DataConfig(
        sources=sources or both_sources(), augment=AugmentConfig(crop=(32, 32), brightness=0.2), batch=2, workers=0
    )
    options: dict[str, Any] = {"steps": 4, "device": "cpu", "log_every": 1, "val_every": 0} | run
    return Trainer(
        model,
        tasks,
        bind_sources(data, tasks),
        data=data,
        optim=OptimConfig(**(optim or {})),
        run=RunConfig(out=str(out), **options),
        inference=InferenceConfig(short_side=32),
    )


def fit(trainer: Trainer) -> list[Result]:
    """As the command does."""
    trainer.folder.mkdir(parents=True, exist_ok=True)
    trainer.resume()
    return trainer.fit()


def batches_of(trainer: Trainer, *names: str) -> Iterator[Batch]:
    """The mixture's batches of these sources, one after the other."""
    found: dict[str, list[int]] = {}
    for step, number in enumerate(trainer.mixture.choices):
        found.setdefault(trainer.mixture.sources[number].name, []).append(step)
    for name in names:
        yield trainer.mixture[found[name].pop(0)]


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def at_step(trainer: Trainer, step: int, act: Callable[[], None]) -> None:
    """Do something within a step, once its update is made."""
    advance = trainer._train_step

    def advance_and_act(batches: Iterator[Batch]) -> Any:
        answer = advance(batches)
        if trainer.step == step:
            act()
        return answer

    trainer._train_step = advance_and_act  # type: ignore[method-assign]


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


OPTIMISERS: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd", "momentum": 0.9, "weight_decay": 0.1},
    "adamw": {"name": "adamw", "weight_decay": 0.1},
}
