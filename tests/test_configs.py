"""Every shipped configuration is read, built with a tiny backbone, and takes a step from each of its sources."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from upernet.checkpoint import build_model
from upernet.cli import CONFIGS, read_options
from upernet.data.mixture import SourceMixture, bind_sources
from upernet.engine.trainer import Trainer

SHIPPED = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))


def command(name: str, folder: Path) -> list[str]:
    """The words of the `upernet train` line at the top of a shipped file."""
    text = (CONFIGS / name).read_text()
    line = next(line for line in text.splitlines() if line.startswith("#") and " upernet train " in line)
    words = line.split(" upernet train ")[1].split()
    return [{"<model>": "upp-mini", "<folder>": str(folder)}.get(word, word) for word in words]


@pytest.fixture(params=SHIPPED)
def options(
    request: pytest.FixtureRequest, fake_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """What the command of a shipped file asks for."""
    monkeypatch.setenv("UPERNET_DATA", str(fake_root))
    words = command(request.param, tmp_path)
    assert request.param in words
    return read_options("train", words)


def test_there_are_some() -> None:
    assert "upp/upp_mini.yaml" in SHIPPED


def test_is_read_and_its_labels_have_a_meaning(options: dict[str, Any]) -> None:
    assert options["run"].init or timm.is_model(options["model"].backbone)
    bound = bind_sources(options["data"], options["tasks"])
    measured = {key for source in bound.values() for key, target in source.targets.items() if target.evaluate}
    trained = {key for source in bound.values() for key in source.targets}
    for name, task in options["tasks"].items():
        assert (task.target or name) in trained
        assert task.auxiliary or (task.target or name) in measured


def test_takes_a_step_from_every_source_and_measures_every_task(options: dict[str, Any], tmp_path: Path) -> None:
    """The recipe as it is shipped, but for sizes: backbone, width, crop, batch."""
    tasks, alone = options["tasks"], options["optim"].train_only
    sources = {name: replace(s, augment=None, batch=None) for name, s in options["data"].sources.items()}
    augment = replace(options["data"].augment, crop=(64, 64), short_side=64)
    data = replace(options["data"], sources=sources, augment=augment, batch=2, workers=0)
    torch.manual_seed(0)
    model = build_model(replace(options["model"], backbone="test_efficientnet", width=8), tasks)
    trainer = Trainer(
        model,
        tasks,
        bind_sources(data, tasks),
        data=data,
        optim=options["optim"],
        run=replace(options["run"], out=str(tmp_path), device="cpu"),
        inference=replace(options["inference"], short_side=64),
    )
    before = {name: value.clone() for name, value in model.named_parameters()}
    for source in trainer.mixture.sources:
        batch = SourceMixture([source], data, steps=1, seed=0)[0]
        losses, _, _ = trainer._advance(iter([batch]))  # type: ignore[list-item]
        asked = {n for n, task in tasks.items() if (task.target or n) in source.targets and (not alone or n in alone)}
        assert set(losses) == asked
        assert all(0 < loss < 100 for loss in losses.values())
    still = {name for name, value in model.named_parameters() if torch.equal(value, before[name])}
    assert still == {name for name, value in model.named_parameters() if not value.requires_grad}
    results = trainer.validate()
    assert {(r.source, r.task) for r in results} == {
        (s.name, n) for s in trainer.sources.values() for n, t in tasks.items()
        if (target := s.targets.get(t.target or n)) and target.evaluate and not t.auxiliary and s.config.val
    }  # fmt: skip
    assert all(0 <= next(iter(r.values.values())) <= 1 for r in results)
