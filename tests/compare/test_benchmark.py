"""The command `benchmark`: what it counts, what it times and in which order, and what it says of other software."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

import upernet
from upernet import tasks as kinds
from upernet.cli import main
from upernet.commands.benchmark import _out_of_memory, _sizes
from upernet.compare.contenders import (
    DISCARDED,
    SOFTWARE,
    Contender,
    Scene,
    _peak_memory,
    count_multiply_adds,
    count_parameters,
    fresh_network,
    measure,
    our_contender,
    peer_contender,
    training_peak,
)
from upernet.config import InferenceConfig, ModelConfig, OptimConfig
from upernet.model import UPerNet
from upernet.model.build import build_model
from upernet.options import read_options
from upernet.parse.parser import Parser
from upernet.store.loading import load_model
from upernet.store.native import save_model
from upernet.tasks import Object, Semantic, Task

CPU = torch.device("cpu")
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


def scene(size: tuple[int, int] = (64, 96), batch: int = 1, answer: tuple[int, int] | None = None, **how: Any) -> Scene:
    image = torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(1)) * 255
    return Scene(image, answer or size, InferenceConfig(**how))


# --- what is counted ------------------------------------------------------------------------------------------------

R18C = {"backbone": "resnet18", "backbone_args": {"stem_type": "deep", "stem_width": 32}}


@pytest.mark.parametrize(
    ("backbone", "data", "total", "parts"),
    [
        ({"backbone": "resnet50c"}, "ade20k", 66_516_108, (23_527_264, 40_590_486, 2_398_358)),
        ({"backbone": "resnet50c"}, "cityscapes", 66_415_238, (23_527_264, 40_523_283, 2_364_691)),
        ({"backbone": "resnet50c"}, "voc", 66_416_778, (23_527_264, 40_524_309, 2_365_205)),
        ({"backbone": "resnet101c"}, "ade20k", 85_508_236, (42_519_392, 40_590_486, 2_398_358)),
        ({"backbone": "resnet101c"}, "cityscapes", 85_407_366, (42_519_392, 40_523_283, 2_364_691)),
        ({"backbone": "resnet101c"}, "voc", 85_408_906, (42_519_392, 40_524_309, 2_365_205)),
        (R18C, "ade20k", 41_503_372, (11_195_744, 29_678_742, 628_886)),
    ],
)
def test_parameters_are_those_of_the_specification(
    backbone: dict[str, Any], data: str, total: int, parts: tuple[int, int, int]
) -> None:
    with torch.device("meta"):
        found = count_parameters(build_model(ModelConfig(**backbone), semantic(data)))
    assert found["total"] == total
    assert (found["backbone"], found["decoder"] + found["heads"], found["auxiliary"]) == parts


@pytest.mark.parametrize(
    ("backbone", "data", "size", "giga"),
    [
        ("resnet50c", "ade20k", (512, 512), "237.9"),
        ("resnet50c", "cityscapes", (512, 1024), "473.5"),
        ("resnet50c", "cityscapes", (769, 769), "540.8"),
        ("resnet50c", "cityscapes", (1024, 2048), "1893.7"),
        ("resnet101c", "ade20k", (512, 512), "257.3"),
        ("resnet101c", "cityscapes", (512, 1024), "512.3"),
        ("resnet101c", "cityscapes", (769, 769), "586.2"),
        ("resnet101c", "cityscapes", (1024, 2048), "2048.9"),
    ],
)
def test_multiply_adds_are_those_of_the_specification(
    backbone: str, data: str, size: tuple[int, int], giga: str
) -> None:
    with torch.device("meta"):
        network = build_model(ModelConfig(backbone=backbone, align_corners=size == (769, 769)), semantic(data)).eval()
    found = count_multiply_adds(network, size)
    assert f"{found['total'] / 1e9:.1f}" == giga
    assert found["total"] == found["backbone"] + found["decoder"] + found["heads"]


def test_multiply_adds_of_matrix_products_count_except_those_of_pooling() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.line = nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.line(self.conv(x).mean(dim=(2, 3)))
            return y

    assert count_multiply_adds(Two(), (6, 7)) == {"total": 6 * 7 * 3 * 4 + 4 * 5}


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
    assert Scene(torch.empty(1, 3, *shown, device="meta"), answer, options["inference"]).windows == windows


# --- what is timed --------------------------------------------------------------------------------------------------


def test_contenders_take_turns_and_the_first_five_do_not_count() -> None:
    seen: list[str] = []

    def contender(name: str) -> Contender:
        def run() -> None:
            assert not torch.is_grad_enabled()
            assert not torch.backends.cudnn.benchmark
            seen.append(name)

        return Contender(name, "1", nn.Linear(1, 1), run, 0)

    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        costs = measure([contender("a"), contender("b")], CPU, "float32", DISCARDED + 3, lambda: seen.append("|"))
        assert torch.backends.cudnn.benchmark
    finally:
        torch.backends.cudnn.benchmark = before
    assert "".join(seen) == "a|b|" * (DISCARDED + 3)
    assert [len(c.seconds) for c in costs.values()] == [3, 3]
    assert [len(c.cpu_seconds) for c in costs.values()] == [3, 3]


def test_precision_is_that_of_the_arithmetic() -> None:
    line, x = nn.Linear(2, 2), torch.ones(1, 2)
    kinds: dict[str, set[torch.dtype]] = {}
    for precision in ("float32", "bf16"):
        seen = kinds.setdefault(precision, set())
        measure([Contender("a", "1", line, lambda seen=seen: seen.add(line(x).dtype), 0)], CPU, precision, 2)
    assert kinds == {"float32": {torch.float32}, "bf16": {torch.bfloat16}}


def test_peak_memory_is_what_is_held_at_once() -> None:
    mega = 2**18  # float32 values of a MiB

    def run() -> None:
        a = torch.ones(4 * mega)
        b = a + 1
        del a
        _ = b.sum(), torch.ones(2 * mega)

    peak = _peak_memory(run, CPU)
    assert peak is not None
    assert 8 * 2**20 <= peak < 8.1 * 2**20
    costs = measure([Contender("a", "1", nn.Linear(mega, 3, bias=False), run, 0)], CPU, "float32", 2)
    assert costs["a"].memory is not None
    assert 11 * 2**20 <= costs["a"].memory < 11.1 * 2**20


@torch.inference_mode()
def labels_of(model: UPerNet, tasks: dict[str, Task], shown: Scene) -> Any:
    return our_contender(model, tasks, shown, "1").run()


def test_our_answer_is_the_networks_brought_to_size() -> None:
    tasks = semantic()
    model = fresh_network(tiny(align_corners=True), tasks)
    shown = scene(answer=(45, 70))
    with torch.inference_mode():
        logits = model(shown.image / 255)["semantic"]
        for size in (shown.shape, shown.size):
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=True)
    assert (labels_of(model, tasks, shown)[0]["semantic"] == logits[0].argmax(0)).float().mean() > 0.999


def test_several_images_answer_as_each_alone() -> None:
    tasks = semantic()
    model, both = fresh_network(tiny(), tasks), scene(batch=2)
    together = labels_of(model, tasks, both)
    assert len(together) == 2
    for i, found in enumerate(together):
        (alone,) = labels_of(model, tasks, Scene(both.image[i : i + 1], both.size, both.inference))
        assert (found["semantic"] == alone["semantic"]).float().mean() > 0.999


def test_windows_slide_as_in_parsing() -> None:
    tasks = semantic(auxiliary=False)
    model = fresh_network(tiny(), tasks)
    how = {"window": (48, 48), "stride": (32, 32)}
    shown = scene(**how)
    assert (shown.windows, shown.window) == (6, (48, 48))
    (found,) = labels_of(model, tasks, shown)
    parsed = Parser(model, tasks, InferenceConfig(**how), "m")(shown.image[0] / 255)
    assert (found["semantic"].numpy() == parsed["semantic"]).mean() > 0.999
    whole = count_multiply_adds(model, (48, 48))["total"]
    assert our_contender(model, tasks, shown, "1").multiply_adds == 6 * whole


def test_all_tasks_of_a_model_are_answered() -> None:
    tasks: dict[str, Task] = {
        "scene": kinds.Scene(labels=["a", "b"], width=8),
        "object": Object(labels=["c", "d"], width=8),
    }
    (found,) = labels_of(fresh_network(tiny(), tasks), tasks, scene(answer=(32, 40)))
    assert {name: tuple(value.shape) for name, value in found.items()} == {"scene": (1,), "object": (32, 40)}


def test_a_training_step_moves_every_weight() -> None:
    network = fresh_network(tiny(), semantic())
    before = {name: value.clone() for name, value in network.named_parameters()}
    assert training_peak(network, OptimConfig(momentum=0.9), 2, (64, 64), "float32") is None  # no GPU's memory
    assert [name for name, value in network.named_parameters() if torch.equal(value, before[name])] == []


# --- other software -------------------------------------------------------------------------------------------------


class Theirs(nn.Module):
    """Ours as another library's network: a normalised image in, logits at its size out."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.network = load_model(place)[0]

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(x * self.network.std + self.network.mean)["semantic"]
        return F.interpolate(logits, x.shape[-2:], mode="bilinear", align_corners=True)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stands for segmentation_models_pytorch; the other two are not installed."""
    module: Any = ModuleType("segmentation_models_pytorch")
    module.__version__, module.from_pretrained = "9.9", Theirs
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", module)
    for name in ("mmseg", "mmcv", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    return module


def test_a_peer_has_our_weights_and_answers_the_same(library: Any) -> None:
    tasks = semantic()
    model = fresh_network(tiny(), tasks)
    peer = peer_contender("smp", model, tasks, scene())
    assert (peer.name, peer.version) == ("smp", "9.9")
    assert peer.differs == ("logits_align_corners True, not False", "level_norm True, not False", "no auxiliary head")
    assert peer.disagreement is not None
    assert peer.disagreement < 1e-4
    theirs: Any = peer.module
    assert torch.equal(theirs.network.decoder.fusion.conv.weight, model.decoder.fusion.conv.weight)
    assert peer.multiply_adds == count_multiply_adds(theirs, (64, 96))["total"]
    with torch.inference_mode():
        labels: Any = peer.run()
    assert labels.shape == (1, 64, 96)


def test_a_peer_that_answers_otherwise_is_found_out(library: Any) -> None:
    class Wrong(Theirs):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.flip(1))  # BGR

    library.from_pretrained = Wrong
    tasks = semantic(auxiliary=False)
    peer = peer_contender("smp", fresh_network(tiny(), tasks), tasks, scene())
    assert peer.disagreement is not None
    assert peer.disagreement > 0.01


REAL = {"mmseg": "mmseg", "transformers": "transformers", "smp": "segmentation_models_pytorch"}


@pytest.mark.parametrize("name", SOFTWARE)
def test_real_peers_answer_the_same(name: str) -> None:
    pytest.importorskip("mmengine" if name == "mmseg" else REAL[name])
    tasks = semantic()
    peer = peer_contender(name, fresh_network(ModelConfig(backbone="resnet18", width=16), tasks), tasks, scene())
    assert peer.disagreement is not None
    assert peer.disagreement < 1e-4


# --- the command ----------------------------------------------------------------------------------------------------


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
    assert told["training"] == {"batch": 3, "crop": [64, 96], "not_measured": "only PyTorch on a GPU tells it"}
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
    save_model(tmp_path / "model", fresh_network(tiny(), tasks), tasks, inference)
    told = report(tmp_path, "--model", tmp_path / "model", "--size", "64", "160")
    assert (told["model"], told["input"]) == (str(tmp_path / "model"), [64, 160])
    assert (told["windows"], told["window"]) == (3, [64, 64])
    assert "not_measured" in told["training"]
    assert "64×160 in 3 windows of 64×64" in capsys.readouterr().out
    assert main(["benchmark", "--model", str(tmp_path / "model"), "--batch", "2"]) == 2
    assert "--batch 2: one image is 2 windows already; valid: 1" in capsys.readouterr().err


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


def test_other_networks_have_no_peer(library: Any) -> None:
    tasks: dict[str, Task] = {"object": Object(labels=["c", "d"], width=8)}
    with pytest.raises(upernet.UserError, match="object"):
        peer_contender("smp", fresh_network(tiny(), tasks), tasks, scene())
    tasks = semantic()
    windows = scene(window=(64, 64), stride=(32, 32))
    with pytest.raises(upernet.UserError, match="slides no windows"):
        peer_contender("smp", fresh_network(tiny(), tasks), tasks, windows)


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
        (["--model.backbone", "resnet50"], "tasks: none given; valid: --config"),
        (["--config", "voc/upernet_r50_512x512_20k.yaml", "--model", "upp-mini"], "--model upp-mini is a network"),
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
