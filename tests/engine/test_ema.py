"""The moving average: what it follows, and where it is used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_training import (
    at_step,
    both_tasks,
    fit,
    make,
    moved,
    weights,
)
from torch import Tensor

from upernet.config import InferenceConfig
from upernet.store.loading import load_model


@pytest.mark.parametrize(
    "kind",
    [
        "weights",
        "statistics",
    ],
)
def test_the_moving_average_is_what_is_measured_and_saved(tmp_path: Path, kind: str) -> None:
    trainer = make(tmp_path, optim={"ema": 0.75, "lr": 0.1}, steps=3)
    seen: list[dict[str, Tensor]] = []
    for step in (1, 2, 3):
        at_step(trainer, step, lambda: seen.append(weights(trainer.plain_model)))
    fit(trainer)
    expected = seen[0]
    for state in seen[1:]:
        expected = {k: 0.75 * v + 0.25 * state[k] for k, v in expected.items()}
    saved = weights(load_model(tmp_path / "model")[0])
    names = {name for name in saved if name.endswith(("running_mean", "running_var")) == (kind == "statistics")}
    for name in names:
        if name.endswith("num_batches_tracked"):
            assert torch.equal(saved[name], seen[-1][name])
        else:
            torch.testing.assert_close(saved[name], expected[name], atol=1e-6, rtol=1e-5)
    assert moved(saved, seen[-1]) & names
    assert trainer.ema is not None
    assert trainer._evaluated_model() is trainer.ema.module
    assert not trainer.ema.module.training


def test_without_a_moving_average_the_weights_themselves_are_saved(tmp_path: Path) -> None:
    trainer = make(tmp_path, steps=1)
    fit(trainer)
    saved, tasks, inference = load_model(tmp_path / "model")
    assert not moved(weights(trainer.plain_model), weights(saved))
    assert tasks == both_tasks()
    assert inference == InferenceConfig(short_side=32)
