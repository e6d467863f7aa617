"""The command `benchmark`: sizes, the report, and what it says of other software."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_networks import SMALL, semantic, stand_in_library, tiny

import upernet
from upernet.cli import main
from upernet.commands.benchmark import _out_of_memory, _sizes
from upernet.compare import costs
from upernet.compare.implementation import Trial
from upernet.compare.ours import seeded_network
from upernet.compare.runner import Runner
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
def library(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the library's module."""
    folder = tmp_path_factory.mktemp("library")
    stand_in_library(folder, monkeypatch)
    return folder


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything runs in this process; `tests/compare/test_costs.py` starts others."""
    monkeypatch.setattr(costs, "Apart", lambda opening, shown, threads: Runner(opening, shown))


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
    assert (
        main(
            ["benchmark", "--images", "7", "--device", "cpu", "--engine", "torch", "--out", str(out), *map(str, words)]
        )
        == 0
    )
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
    assert (ours["engine"], ours["form"], ours["threads"]) == ("torch", "fused", 1)
    assert ours["first_use_s"] > 0
    assert ours["process_gib"] > ours["memory_gib"]
    assert ours["disagreement"] < 1e-3
    assert ours["equal_classes"] > 0.999
    assert ours["relative_times"] == {}
    assert told["layers"] is None
    assert ours["parameters"] == told["parameters"]["total"]
    assert 0 < ours["multiply_adds"] < told["multiply_adds"]["total"]
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
    library: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("onnxruntime", "openvino", "MNN"):
        monkeypatch.setitem(sys.modules, module, None)
    told = report(tmp_path, "--config", recipe, "--size", "64", "64", "--compare")
    assert [c["name"] for c in told["contenders"]] == ["upernet", "plain", "smp"]
    for other in told["contenders"][1:]:
        assert other["cpu_time_ratio"] > 0
        assert other["disagreement"] < 1e-4
    assert told["not_compared"].keys() == {"mmseg", "transformers", "onnxruntime", "openvino", "mnn"}
    assert told["contenders"][0]["relative_times"].keys() == {"plain", "smp"}
    out = " ".join(capsys.readouterr().out.split())
    assert "smp 9.9: logits_align_corners True, not False" in out
    for name in ("mmseg", "transformers"):
        assert f"{name}: not installed ({name} is missing); pip install 'upernet[peers]'" in out
    assert "mnn: not installed (MNN is missing); pip install MNN" in out


@pytest.mark.parametrize("error", ["RuntimeError('wrong\\nshape')", "ImportError('too old')"])
def test_a_peer_that_breaks_is_left_out(
    error: str,
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    noisy = f"def from_pretrained(place):\n    print('their own noise')\n    raise {error}\n"
    stand_in_library(tmp_path, monkeypatch, noisy)
    told = report(tmp_path, "--config", recipe, "--size", "64", "64", "--compare", "smp")
    raised = eval(error)
    assert told["not_compared"] == {"smp": f"{type(raised).__name__}: {' '.join(str(raised).split())}"}
    assert "their own noise" not in capsys.readouterr().out


def test_every_number_of_threads_is_measured(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.get_num_threads()
    words = ["--config", recipe, "--size", "64", "64", "--threads", "1", "2", "--reference"]
    told = report(tmp_path, *words)
    assert torch.get_num_threads() == before
    assert [(c["name"], c["form"], c["threads"]) for c in told["contenders"]] == [
        ("upernet", "plain", 1),
        ("upernet", "plain", 2),
    ]
    assert told["machine"]["threads"] == 2
    assert [c["multiply_adds"] for c in told["contenders"]] == [told["multiply_adds"]["total"]] * 2
    out = capsys.readouterr().out
    assert "\n1 thread\n" in out
    assert "\n2 threads\n" in out
    assert max(map(len, out.splitlines())) <= 100


def test_layers_add_up(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = report(tmp_path, "--config", recipe, "--size", "64", "64", "--layers")
    layers = {row["name"]: row for row in told["layers"]}
    assert (
        sum(row["before"]["multiply_adds"] for row in told["layers"] if row["before"])
        == (told["multiply_adds"]["total"])
    )
    after = sum(row["after"]["multiply_adds"] for row in told["layers"] if row["after"])
    assert after == told["contenders"][0]["multiply_adds"]
    assert layers["decoder.fusion"]["after"]["multiply_adds"] < layers["decoder.fusion"]["before"]["multiply_adds"]
    assert layers["tail"]["before"]["multiply_adds"] == 0
    assert layers["tail"]["before"]["cpu_ms"] > 0
    assert "decoder.fusion" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_an_engine_that_cannot_compute_so_is_refused(
    name: str, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--config", str(recipe), "--device", "cpu", "--precision", "bf16", "--out", str(tmp_path / "report.json")]
    assert main(["benchmark", *words, "--engine", name]) == 2
    assert f"--engine {name}: is measured on a CPU in float32 only; valid here: torch" in capsys.readouterr().err
    assert main(["benchmark", "--config", str(recipe), "--device", "cpu", "--reference", "--engine", name]) == 2
    assert f"--reference is the plain network in PyTorch; try --compare {name}" in capsys.readouterr().err


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


def test_a_peer_that_breaks_in_mixed_precision_alone_is_left_out(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_hearted = """
def refuse(module, given):
    if torch.is_autocast_enabled("cpu"):
        raise NotImplementedError("not implemented for 'BFloat16'")

def from_pretrained(place):
    network = Theirs(place)
    network.register_forward_pre_hook(refuse)
    return network
"""
    stand_in_library(tmp_path, monkeypatch, half_hearted)
    words = ["--config", recipe, "--size", "64", "64", "--compare", "smp", "--precision"]
    assert report(tmp_path, *words, "float32")["not_compared"] == {}
    told = report(tmp_path, *words, "bf16")["not_compared"]
    assert told == {"smp": "NotImplementedError: not implemented for 'BFloat16'"}
