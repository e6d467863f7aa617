"""The command `benchmark`: sizes, the report, and what it says of other software."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_networks import SMALL, semantic, stand_in_library, tiny
from torch import nn

import upernet
from upernet.cli import main
from upernet.commands.benchmark import _out_of_memory, _sizes
from upernet.compare.implementation import Trial
from upernet.compare.ours import seeded_network
from upernet.config import InferenceConfig
from upernet.options import read_options
from upernet.store.native import save_model


@pytest.mark.parametrize(
    ("recipe", "shown", "answer", "windows"),
    [
        ("cityscapes/upernet_r50_512x1024_40k.yaml", (1024, 2048), (1024, 2048), 1),
        ("cityscapes/upernet_r50_769x769_40k.yaml", (1025, 2049), (1024, 2048), 8),
        ("ade20k/upernet_r101_512x512_80k.yaml", (512, 683), (512, 683), 1),
        ("voc/upernet_r50_512x512_20k.yaml", (512, 683), (375, 500), 1),
    ],
)
def test_a_recipe_is_measured_at_its_test_size(
    recipe: str, shown: tuple[int, int], answer: tuple[int, int], windows: int
) -> None:
    options = read_options("benchmark", ["--config", recipe])
    assert _sizes(None, options["tasks"], options["inference"]) == (shown, answer)
    assert _sizes((96, 64), options["tasks"], options["inference"]) == ((96, 64), (96, 64))
    assert Trial(torch.empty(1, 3, *shown, device="meta"), answer, options["inference"]).window_count == windows


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    return stand_in_library(monkeypatch)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    content = {
        "model": {"backbone": "resnet18", "backbone_args": SMALL, "width": 8},
        "tasks": {
            name: {"class_path": "upernet.tasks.Semantic", "init_args": {"labels": ["sky", "road", "car"], **init}}
            for name, init in (("semantic", {}), ("auxiliary", {"level": "c4", "convs": 1, "auxiliary": True}))
        },
        "data": {"batch": 3, "augment": {"crop": [64, 96]}},
        "inference": {"short_side": 64},
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def report(tmp_path: Path, *words: str | Path) -> dict[str, Any]:
    out = tmp_path / "new" / "report.json"
    assert main(["benchmark", "--images", "7", "--device", "cpu", "--out", str(out), *map(str, words)]) == 0
    assert [p.name for p in out.parent.iterdir()] == ["report.json"]
    content: dict[str, Any] = json.loads(out.read_text())
    return content


def test_the_report_says_what_was_measured_and_how(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = report(tmp_path, "--config", recipe, "--threads", "1")
    assert told["version"] == upernet.__version__
    assert told["machine"]["torch"] == torch.__version__
    assert told["machine"]["threads"] == 1
    assert told["machine"]["cpu"]
    # A photograph of 512×683, fitted to a shorter side of 64.
    assert (told["input"], told["answer"]) == ([64, 85], [512, 683])
    assert (told["batch"], told["precision"], told["images"], told["discarded"]) == (1, "float32", 7, 5)
    assert told["network"]["backbone"] == "resnet18"
    assert told["parameters"]["auxiliary"] > 0
    assert told["training"] == {"batch": 3, "crop": [64, 96], "not_measured": "PyTorch reports it on a GPU only"}
    (ours,) = told["contenders"]
    assert (ours["name"], ours["version"]) == ("upernet", upernet.__version__)
    assert ours["parameters"] == told["parameters"]["total"]
    assert ours["multiply_adds"] == told["multiply_adds"]["total"]
    assert (ours["time_ratio"], ours["cpu_time_ratio"]) == (1, 1)
    spread = ours["latency_ms"]
    assert 0 < spread["5 %"] <= spread["median"] <= spread["95 %"]
    assert ours["memory_gib"] > 4 * ours["parameters"] / 2**30
    out, err = capsys.readouterr()
    assert err == ""  # no bar where nobody looks
    assert f"{ours['parameters']:,}" in out
    assert f"report: {tmp_path / 'new' / 'report.json'}" in out


def test_a_model_is_measured_with_its_own_windows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = semantic(auxiliary=False)
    inference = InferenceConfig(short_side=64, window=(64, 64), stride=(48, 48))
    save_model(tmp_path / "model", seeded_network(tiny(), tasks), tasks, inference)
    told = report(tmp_path, "--model", tmp_path / "model", "--size", "64", "160")
    assert (told["model"], told["input"]) == (str(tmp_path / "model"), [64, 160])
    assert (told["windows"], told["window"]) == (3, [64, 64])
    assert "not_measured" in told["training"]
    assert "64×160 in 3 windows of 64×64" in capsys.readouterr().out
    assert main(["benchmark", "--model", str(tmp_path / "model"), "--batch", "2"]) == 2
    assert "--batch 2: one image makes 2 sliding windows already; valid: 1" in capsys.readouterr().err


def test_options_change_a_recipe(recipe: Path, tmp_path: Path) -> None:
    words = ("--config", recipe, "--model.width", "4", "--size", "64", "64", "--batch", "2", "--precision", "bf16")
    told = report(tmp_path, *words)
    assert (told["network"]["width"], told["input"], told["batch"]) == (4, [64, 64], 2)


def test_what_cannot_be_compared_is_one_line_and_the_rest_goes_on(
    library: Any, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = report(tmp_path, "--config", recipe, "--size", "64", "64", "--compare")
    assert [c["name"] for c in told["contenders"]] == ["upernet", "smp"]
    assert told["contenders"][1]["cpu_time_ratio"] > 0
    assert told["contenders"][1]["disagreement"] < 1e-4
    assert told["not_compared"].keys() == {"mmseg", "transformers"}
    out = " ".join(capsys.readouterr().out.split())
    assert "smp 9.9: logits_align_corners True, not False" in out
    for name in ("mmseg", "transformers"):
        assert f"{name}: not installed ({name} is missing); pip install 'upernet[peers]'" in out


@pytest.mark.parametrize("error", [RuntimeError("wrong\nshape"), ImportError("too old")])
def test_a_peer_that_breaks_is_left_out(
    error: Exception, library: Any, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(place: str) -> nn.Module:
        print("their own noise")
        raise error

    library.from_pretrained = broken
    told = report(tmp_path, "--config", recipe, "--size", "64", "64", "--compare", "smp")
    assert told["not_compared"] == {"smp": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    assert "their own noise" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--images", "5"], "--images: 5 is not at least 6; for example 200"),
        (["--batch", "0"], "--batch: 0 is not at least 1"),
        (["--threads", "0"], "--threads: 0 is not at least 1"),
        (["--size", "16", "512"], "--size: 16 is not at least 32; for example 512 1024"),
        (["--size", "512"], "512"),
        (["--size", "tall", "wide"], "tall"),
        (["--compare", "keras"], "keras"),
        (["--precision", "int8"], "int8"),
        (["--out", "."], "--out . is a folder; valid: a file, such as report.json"),
        (["--model", "nowhere"], "nowhere"),
        (["--model.backbone", "resnet50"], "tasks: there are none; give a recipe, such as --config"),
        (
            ["--config", "voc/upernet_r50_512x512_20k.yaml", "--model", "upp-mini"],
            "--model upp-mini and --config both give a network",
        ),
        (["--config", "voc/nowhere.yaml"], "nowhere.yaml"),
    ],
    ids=" ".join,
)
def test_wrong_use_is_told_in_one_line(
    words: list[str], part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["benchmark", *words]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert part in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "compare"),
    [
        ([], None),
        (["--compare"], []),
        (["--compare", "smp"], ["smp"]),
        (["--compare", "mmseg", "smp", "--batch", "1"], ["mmseg", "smp"]),
        (["--compare=[mmseg,smp]"], ["mmseg", "smp"]),
    ],
    ids=str,
)
def test_several_words_are_a_list(words: list[str], compare: list[str] | None) -> None:
    options = read_options("benchmark", ["--size", "64", "96", *words])
    assert (options["size"], options["compare"]) == ((64, 96), compare)


def test_only_want_of_memory_is_told_as_such() -> None:
    for error in (NotImplementedError("not implemented for 'Half'"), RecursionError("too deep")):
        with pytest.raises(type(error)), _out_of_memory("too large"):
            raise error
    for error in (MemoryError(), torch.OutOfMemoryError("CUDA"), RuntimeError("can't allocate memory: 9 bytes")):
        with pytest.raises(upernet.WorkError, match="too large"), _out_of_memory("too large"):
            raise error


def test_a_peer_that_breaks_in_mixed_precision_alone_is_left_out(library: Any, recipe: Path, tmp_path: Path) -> None:
    original = library.from_pretrained

    def half_hearted(place: str) -> nn.Module:
        network = original(place)
        network.register_forward_pre_hook(refuse)
        return network

    def refuse(module: nn.Module, given: Any) -> None:
        if torch.is_autocast_enabled("cpu"):
            raise NotImplementedError("not implemented for 'BFloat16'")

    library.from_pretrained = half_hearted
    words = ["--config", recipe, "--size", "64", "64", "--compare", "smp", "--precision"]
    assert report(tmp_path, *words, "float32")["not_compared"] == {}
    told = report(tmp_path, *words, "bf16")["not_compared"]
    assert told == {"smp": "NotImplementedError: not implemented for 'BFloat16'"}
