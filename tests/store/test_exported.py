"""`store/exported.py`: what an exported file says about itself, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from exports import INFERENCE
from refusals import told_by

from upernet.errors import WorkError
from upernet.store.loading import load_model, open_model

onnx = pytest.importorskip("onnx")


def changed(path: Path, target: Path, change: Callable[[Any], Any]) -> Path:
    model = onnx.load(path)
    change(model)
    onnx.save(model, target)
    return target


def described(path: Path, target: Path, change: Callable[[Any], Any]) -> Path:
    """A copy of a file whose description is changed."""

    def edit(model: Any) -> None:
        texts = {entry.key: entry.value for entry in model.metadata_props}
        content = yaml.safe_load(texts["upernet"])
        change(content)
        onnx.helper.set_model_props(model, texts | {"upernet": yaml.safe_dump(content)})

    return changed(path, target, edit)


def test_a_file_gives_the_answers_and_settings_of_its_model(exported: Path) -> None:
    plain, tasks, inference = load_model(exported / "model")
    network, own, own_inference = open_model(exported / "model.onnx")
    assert own_inference == inference == INFERENCE
    assert list(own) == ["scene", "object", "part"] and own == {name: tasks[name] for name in own}
    assert network.upsampling_align_corners == plain.upsampling_align_corners
    image = torch.rand(2, 3, 45, 131).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = plain(image, ["part", "scene"])
    answers = network(image, ["part", "scene"])
    assert list(answers) == ["part", "scene"]
    for name, logits in expected.items():
        torch.testing.assert_close(answers[name], logits, atol=1e-3, rtol=1e-3)


def test_programs_can_read_it_without_this_package(exported: Path) -> None:
    model = onnx.load(exported / "model.onnx")
    texts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(texts["classes"])["object"] == ["car", "house", "tree"]
    assert json.loads(texts["colours"])["object"] == ["#102030", "#00ff00", "#0000ff"]
    assert texts["card"] == "# Made up for tests"
    content = yaml.safe_load(texts["upernet"])
    assert content["info"]["export"] | {"version": ""} == {
        "version": "",
        "output": "logits",
        "form": "taps",
        "tasks": ["scene", "object", "part"],
    }
    assert content["inference"]["short_side"] == 64
    sizes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input]
    assert sizes == [["batch", 3, "height", "width"]] and model.producer_name == "upernet"
    assert not any(node.metadata_props for node in model.graph.node)


def test_what_has_no_network_to_change_is_refused(exported: Path, tmp_path: Path) -> None:
    assert "exported graph" in told_by(lambda: load_model(exported / "model.onnx"))
    other = tmp_path / "program.pt2"
    other.write_bytes(b"")
    assert "torch.export" in told_by(lambda: open_model(other))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.ClearField("metadata_props"), "upernet export"),
        (lambda m: m.functions.add(name="f"), "functions"),
        (lambda m: m.graph.initializer[0].external_data.add(key="location", value="/etc/passwd"), "another file"),
        (lambda m: m.graph.node.add(op_type="If"), "'If'"),
        (lambda m: m.graph.node.add(op_type="Run", domain="evil"), "evil"),
        (lambda m: m.graph.output.pop(), "outputs"),
        (lambda m: setattr(m.graph.node[0], "op_type", "NoSuch"), "cannot be opened"),
    ],
)
def test_graphs_that_no_export_writes_are_refused(
    exported: Path, tmp_path: Path, change: Callable[[Any], Any], says: str
) -> None:
    path = changed(exported / "model.onnx", tmp_path / "x.onnx", change)
    line = told_by(lambda: open_model(path))
    assert line.startswith(f"{path}: ") and says in line


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c["info"]["export"].update(output="maps"), "'maps'"),
        (lambda c: c.pop("info"), "None"),
        (lambda c: c.pop("model"), "keys model and tasks"),
        (lambda c: c["model"].update(width="wide"), "model.width"),
        (lambda c: c["model"].update(width=2**40), "x.onnx"),
        (lambda c: c["tasks"]["object"].update(class_path="antigravity.Task"), "--trust antigravity"),
    ],
)
def test_descriptions_are_checked_like_those_of_a_folder(
    exported: Path, tmp_path: Path, change: Callable[[Any], Any], says: str
) -> None:
    path = described(exported / "model.onnx", tmp_path / "x.onnx", change)
    line = told_by(lambda: open_model(path))
    assert line.startswith(f"{path}: ") and says in line


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\xff" * 100])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    assert str(path) in told_by(lambda: open_model(path))


def test_a_file_cut_short_is_refused(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes((exported / "model.onnx").read_bytes()[:-100])
    assert str(path) in told_by(lambda: open_model(path), WorkError)
