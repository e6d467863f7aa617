"""Ctrl-C during training: noted, finished, saved."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest
import torch
from small_training import (
    at_step,
    fit,
    interrupt,
    make,
    moved,
    weights,
)

from upernet.engine.interrupts import interruptible
from upernet.store.loading import load_model


def test_ctrl_c_finishes_the_step_saves_and_stops(tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGINT)
    trainer = make(tmp_path, save_every=1000)
    at_step(trainer, 2, interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(trainer)
    assert signal.getsignal(signal.SIGINT) is handler
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.csv", "state.pt", "tensorboard"]
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 2

    again, whole = make(tmp_path), make(tmp_path / "whole")
    fit(again)
    fit(whole)
    assert not moved(weights(whole.plain_model), weights(again.plain_model))
    assert not moved(weights(whole.plain_model), weights(load_model(tmp_path / "model")[0]))


def test_ctrl_c_in_the_last_step_still_leaves_a_model_in_the_end(tmp_path: Path) -> None:
    trainer = make(tmp_path, steps=2)
    at_step(trainer, 2, interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(trainer)
    again = make(tmp_path, steps=2)
    results = fit(again)
    assert not moved(weights(trainer.plain_model), weights(load_model(tmp_path / "model")[0]))
    assert [result.task for result in results] == ["object", "scene"]


def test_the_first_ctrl_c_is_noted_and_the_second_acts_at_once() -> None:
    handler = signal.getsignal(signal.SIGINT)
    with interruptible() as interrupted:
        assert not interrupted()
        interrupt()
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            interrupt()
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_run_in_a_thread_cannot_be_interrupted_but_works(tmp_path: Path) -> None:
    trainer = make(tmp_path, steps=1)
    thread = threading.Thread(target=fit, args=(trainer,))
    thread.start()
    thread.join(120)
    assert trainer.step == 1
    assert not moved(weights(trainer.plain_model), weights(load_model(tmp_path / "model")[0]))
