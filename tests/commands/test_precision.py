"""The option --precision of the commands that run a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_model
import torch
from PIL import Image

import upernet
from upernet.cli import main
from upernet.runtimes import pytorch
from upernet.runtimes.pytorch import TorchNetwork


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save("photo.png")
    return ["photo.png", "--model", str(tiny_model.save(tmp_path / "model")), "--device", "cpu", "--out", "results"]


@pytest.mark.parametrize("command", ["predict", "discover"])
def test_commands_take_it(
    command: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    used = []
    arithmetic = pytorch.arithmetic
    monkeypatch.setattr(
        pytorch, "arithmetic", lambda device, precision: used.append(precision) or arithmetic(device, precision)
    )
    if command == "discover":
        pytest.importorskip("plotly")
        words = [*words, "--workers", "1"]
    assert main([command, *words, "--precision", "tf32"]) == 2
    told = "precision tf32: cpu has no such arithmetic; valid: float32, bf16, fp16"
    assert capsys.readouterr().err == f"upernet: {told}\n"
    assert used == [] and main([command, *words, "--precision", "bf16"]) == 0
    assert set(used) == {"bf16"}


def test_a_parser_takes_it(tmp_path: Path) -> None:
    parser = upernet.load(tiny_model.save(tmp_path / "model"), device="cpu", precision="bf16")
    assert isinstance(parser.model, TorchNetwork) and parser.device == torch.device("cpu")
    exact = upernet.load(tmp_path / "model", device="cpu", reference=True)
    photo = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    assert (parser(photo)["object"] == exact(photo)["object"]).mean() > 0.9
