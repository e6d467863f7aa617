"""The option `--engine` of the commands that run a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_model
import yaml
from fake_data import image_mask_folder
from PIL import Image

from upernet.cli import main
from upernet.compare import costs
from upernet.compare.runner import Runner
from upernet.model import UPerNet
from upernet.runtimes import choice

COMMANDS = ("predict", "evaluate", "discover", "benchmark")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a `model`, a photograph, and a training file with one annotated image."""
    folder = tmp_path_factory.mktemp("engines")
    tiny_model.save(folder / "model")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    image_mask_folder(folder / "rooms", ["car", "house"], counts={"val": 1})
    own = {"root": str(folder / "rooms"), "labels": ["car", "house"]}
    dataset = {"class_path": "upernet.data.ImageMaskFolder", "init_args": own}
    content = {"data": {"sources": {"rooms": {"dataset": dataset, "targets": {"object": {}}}}}}
    (folder / "rooms.yaml").write_text(yaml.safe_dump(content))
    return folder


@pytest.fixture
def call(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs a command with further words."""
    monkeypatch.setattr(costs, "Apart", lambda opening, shown, threads: Runner(opening, shown))
    photo, out = str(place / "photo.png"), str(tmp_path / "out")
    words = {
        "predict": [photo, "--out", out],
        "evaluate": ["--config", str(place / "rooms.yaml")],
        "discover": [photo, "--out", out, "--workers", "1"],
        "benchmark": ["--images", "6", "--size", "32", "32", "--out", out],
    }

    def run(command: str, *more: str) -> int:
        fixed = ["--model", str(place / "model"), "--device", "cpu"]
        return main([command, *words[command], *fixed, *more])

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_the_engine_that_is_named_runs_the_network(
    command: str, call: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    def start(engine: Any, network: UPerNet, device: Any, key: str) -> UPerNet:
        started.append(engine.name)
        return network

    monkeypatch.setattr(choice, "_start", start)  # PyTorch computes in place of the engine
    monkeypatch.setattr(choice, "_is_installed", lambda engine: True)
    for engine in ("openvino", "onnxruntime"):
        started.clear()
        assert call(command, "--engine", engine) == 0
        assert set(started) == {engine}
    started.clear()
    assert call(command, "--engine", "torch") == 0
    assert started == []


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_ones_are_told_in_one_line(
    command: str, call: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(choice, "_is_installed", lambda engine: False)
    for engine, says in (("tensorrt", "tensorrt"), ("onnxruntime", "pip install 'upernet[onnxruntime]'")):
        capsys.readouterr()
        assert call(command, "--engine", engine) == 2
        line = capsys.readouterr().err
        assert says in line and "onnxruntime" in line and line.count("\n") == 1
