"""The command `export`, and the commands that run what it writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from upernet.cli import main
from upernet.inference.views import network_input
from upernet.runtimes.graph import MapsOf
from upernet.store import exporting
from upernet.store.loading import load_model, open_model
from upernet.store.native import save_model

onnx = pytest.importorskip("onnx")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i, size in enumerate([(90, 120), (70, 50)]):
        coarse = Image.fromarray(draw.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        coarse.resize(size[::-1], Image.Resampling.BICUBIC).save(tmp_path / "photos" / f"{i}.png")
    return tmp_path / "photos"


def test_predict_answers_as_with_the_model(exported: Path, photos: Path, tmp_path: Path) -> None:
    for name in ("model", "model.onnx"):
        words = ["predict", str(photos), "--model", str(exported / name), "--out", str(tmp_path / name)]
        assert main([*words, "--device", "cpu"]) == 0
    for i in range(2):
        one, other = (json.loads((tmp_path / n / f"{i}.json").read_text()) for n in ("model", "model.onnx"))
        assert one["tasks"].keys() == other["tasks"].keys() if "tasks" in one else one.keys() == other.keys()
        for task in ("object", "part"):
            maps = [np.array(Image.open(tmp_path / n / f"{i}.{task}.png")) for n in ("model", "model.onnx")]
            assert len(np.unique(maps[0])) > 1 and (maps[0] != maps[1]).mean() < 1e-3


def test_commands_that_change_a_network_say_what_they_need(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(exported / "model.onnx")
    for words in (["convert", path, str(tmp_path / "x")], ["export", path, str(tmp_path / "y.onnx")]):
        assert main(words) == 2
        line = capsys.readouterr().err
        assert "exported graph" in line and len(line.splitlines()) == 1
    assert main(["predict", "x.png", "--model", path, "--engine", "openvino"]) in (1, 2)


BY_PYTORCH_ALONE = """
import sys, torch
sys.modules["upernet"] = None
torch.set_num_threads(1)
path, image, answers = sys.argv[1:]
texts = dict.fromkeys(("upernet", "classes", "card"), "")
run = torch.export.load(path, extra_files=texts).module()
try:
    run(torch.zeros(1, 3, 20, 70, dtype=torch.uint8))
    small = "taken"
except (RuntimeError, AssertionError):
    small = "refused"
torch.save((texts, small, run(torch.load(image))), answers)
"""


def test_a_program_is_loaded_by_pytorch_alone(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    words = ["export", str(exported / "model"), str(path), "--output", "maps", "--tasks", "part", "--checks", "2"]
    assert main(words) == 0
    image = (torch.rand(1, 3, 50, 70) * 255).to(torch.uint8)
    torch.save(image, tmp_path / "image.pt")
    call = [sys.executable, "-c", BY_PYTORCH_ALONE, path, tmp_path / "image.pt", tmp_path / "answers.pt"]
    subprocess.run(call, check=True, timeout=300)
    texts, small, answers = torch.load(tmp_path / "answers.pt")
    about = yaml.safe_load(texts["upernet"])["info"]["export"]
    assert about["tasks"] == ["object", "part"] and about["form"] == "taps" and about["output"] == "maps"
    assert json.loads(texts["classes"])["part"][:3] == ["car/-", "car/wheel", "car/door"]
    assert small == "refused"
    network, tasks, _ = load_model(exported / "model")
    with torch.no_grad():
        expected = MapsOf(network, tasks, about["tasks"])(image)
    for found, own in zip(answers, expected, strict=True):
        assert found.shape == (1, 50, 70) and len(found.unique()) > 1 and (found != own).float().mean() < 1e-2


def test_a_file_is_measured_as_a_model_is(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = str(exported / "model.onnx"), tmp_path / "report.json"
    words = ["benchmark", "--model", path, "--size", "64", "96", "--images", "6"]
    assert main([*words, "--out", str(out)]) == 0
    (found,) = json.loads(out.read_text())["contenders"]
    assert (found["engine"], found["form"], found["disagreement"]) == ("onnxruntime", "exported", None)
    assert found["latency_ms"]["median"] > 0
    assert "upernet onnxruntime" in capsys.readouterr().out
    for more, told in (
        (["--compare", "plain"], f"--compare: {path} is an exported graph without its network; give the model it was"),
        (["--engine", "torch"], f"--engine torch: {path} is an exported graph; valid here: onnxruntime"),
        (["--precision", "bf16"], f"{path}: an exported graph computes on the CPU in float32; try --device cpu"),
    ):
        assert main([*words, *more]) == 2
        assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "winograd"),
    [
        (["x.onnx"], [False]),
        (["x.pt2"], [False]),
        (["x.onnx", "--form", "winograd"], [True]),
        (["x.onnx", "--form", "plain"], []),
        (["x.pt2", "--form", "plain"], []),
    ],
)
def test_the_form_that_is_traced(
    words: list[str], winograd: list[bool], exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewritten: list[bool] = []
    traced: list[Any] = []

    def rewrite(network: Any, winograd: bool) -> str:
        rewritten.append(winograd)
        return "rewritten"

    def stop(module: Any) -> None:
        traced.append(module.network)
        raise RuntimeError("far enough")

    monkeypatch.setattr(exporting, "fuse", rewrite)
    monkeypatch.setattr(exporting, "trace", stop)
    assert main(["export", str(exported / "model"), str(tmp_path / words[0]), *words[1:]]) == 1
    assert rewritten == winograd and (traced == ["rewritten"]) == bool(winograd) and len(traced) == 1


@pytest.fixture
def ready(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command take the graph of `model.onnx` in place of making one, which takes ten seconds."""

    def no_levels(module: Any) -> None:
        if isinstance(module, exporting.LevelsOf):
            raise RuntimeError("this graph is not there")

    monkeypatch.setattr(exporting, "trace", no_levels)
    monkeypatch.setattr(exporting, "_onnx", lambda *_: (exported / "model.onnx").read_bytes())


@pytest.mark.usefixtures("ready")
def test_a_graph_with_other_answers_is_not_written(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, tasks, inference = load_model(exported / "model")
    with torch.no_grad():
        network.heads["object"].classifier.weight *= 1.01
    save_model(tmp_path / "other", network, tasks, inference)
    path = tmp_path / "out" / "model.onnx"
    assert main(["export", str(tmp_path / "other"), str(path)]) == 1
    line = capsys.readouterr().err
    assert "not written" in line and "at 32×32 px, batch 1, task 'object'" in line and len(line.splitlines()) == 1
    assert not list(path.parent.glob("*"))


@pytest.mark.usefixtures("ready")
def test_quantised(exported: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "int8.onnx"
    assert main(["export", str(exported / "model"), str(path), "--int8", str(photos)]) == 0
    assert "int8: object: the class of the float model at" in capsys.readouterr().out
    model = onnx.load(path)
    weights = {w.name: w for w in model.graph.initializer}
    scaled = [n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in weights]
    int8 = [n for n in scaled if weights[n.input[0]].data_type == onnx.TensorProto.INT8]
    per_channel = [n for n in int8 if weights[n.input[1]].dims and weights[n.input[1]].dims[0] > 1]
    assert len(int8) > 10 and len(per_channel) > 10
    texts = {entry.key: entry.value for entry in model.metadata_props}
    about = yaml.safe_load(texts["upernet"])["info"]["export"]["int8"]
    assert about["pictures"] == 2 and 0.8 < about["agreement"]["object"] <= 1
    network, tasks, inference = open_model(path)
    pixels = torch.from_numpy(np.array(Image.open(photos / "0.png"))).permute(2, 0, 1)[None]
    image = network_input(pixels, inference)
    exact = load_model(exported / "model")[0](image, ["object"])["object"]
    found = network(image, list(tasks))["object"]
    assert not torch.equal(found, exact)
    assert (found - exact).square().mean() < 0.05 * exact.var()


def test_openvino_reads_the_same_file(exported: Path) -> None:
    openvino = pytest.importorskip("openvino")
    network, tasks, _ = open_model(exported / "model.onnx")
    run = openvino.Core().compile_model(
        str(exported / "model.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    )
    for shape in [(1, 3, 32, 32), (2, 3, 77, 141)]:
        image = torch.rand(shape)
        answers = run(image.numpy())
        for i, (name, expected) in enumerate(network(image, list(tasks)).items()):
            np.testing.assert_allclose(answers[i], expected.numpy(), atol=2e-3, rtol=2e-3, err_msg=name)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["upp-mini"], "is not followed by a file"),
        (["upp-mini", "x.pth"], "ends with .onnx or .pt2"),
        (["upp-mini", "x.onnx", "--checks", "0"], "--checks: 0"),
        (["upp-mini", "x.onnx", "--opset", "9"], "--opset: 9"),
        (["upp-mini", "x.pt2", "--form", "winograd"], "--form winograd is only for .onnx"),
        (
            ["upp-mini", "x.onnx", "--form", "winograd", "--int8", "photos"],
            "--form winograd leaves few",
        ),
        (["upp-mini", "x.onnx", "--form", "fused"], "fused"),
        (["upp-mini", "x.pt2", "--int8", "photos"], "--int8 photos"),
        (["upp-mini", "x.onnx", "--tasks", "sky"], "--tasks sky"),
    ],
)
def test_words_that_are_no_use(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", *words]) == 2
    line = capsys.readouterr().err
    assert says in line and len(line.splitlines()) == 1
