"""The command `convert`: what it writes, and what it refuses before anything is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_files import LABELS, RESNET, change_json, network, saved, toolbox

from upernet.cli import main
from upernet.config import InferenceConfig, ModelConfig
from upernet.contract import Task
from upernet.model.build import build_model
from upernet.store.foreign import open_checkpoint, read_foreign, write_foreign
from upernet.store.native import save_model
from upernet.tasks import Scene, Semantic


def test_an_auxiliary_head_is_left_out_where_there_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ModelConfig(backbone="resnet18", backbone_args=RESNET, width=8, level_norm=True, logits_align_corners=True)
    ours = saved(tmp_path, *network(config))
    assert main(["convert", str(ours), str(tmp_path / "theirs"), "--to", "smp"]) == 2
    assert "--drop auxiliary" in capsys.readouterr().err
    assert not (tmp_path / "theirs").exists()
    assert main(["convert", str(ours), str(tmp_path / "theirs"), "--to", "smp", "--drop", "auxiliary"]) == 0
    assert (tmp_path / "theirs" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("change", "to", "says"),
    [
        ({"pooling": "precise"}, "mmseg", "pooling 'precise'"),
        ({"ppm_order": "upsample_conv"}, "huggingface", "ppm_order 'upsample_conv'"),
        ({"align_corners": True}, "huggingface", "align_corners"),
        ({"level_norm": True}, "mmseg", "level_norm True"),
        ({"backbone": "test_efficientnet", "backbone_args": {}}, "mmseg", "'test_efficientnet'"),
        ({"backbone": "resnet50s", "backbone_args": {"channels": [8, 16, 32, 64]}}, "smp", "level_norm"),
        ({"backbone_args": {**RESNET, "output_stride": 16}}, "mmseg", "output_stride"),
        ({"logits_align_corners": True}, "mmseg", "logits"),
    ],
)
def test_what_other_software_has_not_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], to: str, says: str
) -> None:
    config = ModelConfig(**{"backbone": "resnet18", "backbone_args": RESNET, "width": 8} | change)
    ours = saved(tmp_path, *network(config, auxiliary=False))
    theirs = tmp_path / ("theirs.pth" if to == "mmseg" else "theirs")
    assert main(["convert", str(ours), str(theirs), "--to", to]) == 2
    line = capsys.readouterr().err.strip()
    assert says in line and "\n" not in line
    assert not theirs.exists()


def test_several_tasks_stay_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks: dict[str, Task] = {"semantic": Semantic(labels=LABELS), "scene": Scene(labels=["street", "coast"], width=8)}
    model = build_model(ModelConfig(backbone="resnet18", backbone_args=RESNET, width=8), tasks)
    ours = saved(tmp_path, model, tasks)
    assert main(["convert", str(ours), str(tmp_path / "x.pth"), "--to", "mmseg"]) == 2
    assert "this model has semantic, scene" in capsys.readouterr().err
    assert main(["convert", str(ours), str(tmp_path / "x.pth"), "--to", "mmseg", "--drop", "scene"]) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["only.pth"], "only.pth is not followed by a path to write"),
        (["a", "b", "--half", "--to", "smp"], "--half"),
        (["a", "b", "--to", "mmseg"], "model.pth"),
        (["a", "b", "--drop", "depth"], "a: no such model"),
    ],
)
def test_wrong_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["convert", *words]) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor is what is being read."""
    ours = saved(tmp_path, *network(toolbox("plain")))
    before = (ours / "model.safetensors").read_bytes()
    (tmp_path / "there.pth").write_bytes(b"mine")
    for place, to in (("ours", "native"), ("ours", "huggingface"), ("there.pth", "mmseg"), ("ours", "smp")):
        assert main(["convert", str(ours), str(tmp_path / place), "--to", to]) == 2
        assert "exists already, and the last path is the one to write" in capsys.readouterr().err
    assert (ours / "model.safetensors").read_bytes() == before
    assert (tmp_path / "there.pth").read_bytes() == b"mine"


def test_what_other_layouts_cannot_hold_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for to, config in (
        ("mmseg", replace(toolbox("convnext"), level_norm_eps=1e-5)),
        ("smp", ModelConfig(backbone="resnet18", backbone_args=RESNET, width=8, level_norm=True,
                            logits_align_corners=True, mean=(0.5, 0.5, 0.5))),
    ):  # fmt: skip
        save_model(tmp_path / to, *network(config, auxiliary=False), InferenceConfig())
        assert main(["convert", str(tmp_path / to), str(tmp_path / f"{to}.pth"), "--to", to]) == 2
        assert "cannot hold " in capsys.readouterr().err
        assert not (tmp_path / f"{to}.pth").exists()


def test_names_cannot_move_the_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_foreign(tmp_path / "hub", "huggingface", *network(toolbox("plain")), InferenceConfig())
    change_json(tmp_path / "hub" / "config.json", id2label={"0": "\x1b[2Jsky", "1": "a\nroad", "2": "car\u202e"})
    tasks = read_foreign([tmp_path / "hub"])[1].tasks
    assert tasks["semantic"].classes.names == ("\\x1b[2Jsky", "a road", "car\\u202e")
    model, _ = network(toolbox("plain"), auxiliary=False)
    odd: dict[str, Task] = {"a\x1b[2Jb\n": Semantic(labels=LABELS)}
    save_model(tmp_path / "odd", build_model(model.config, odd), odd, InferenceConfig())
    assert main(["convert", str(tmp_path / "odd"), str(tmp_path / "again")]) == 0
    out = capsys.readouterr().out
    assert "a\\x1b[2Jb\\n (3 classes)" in out and out.count("\n") == 1


@pytest.mark.parametrize("folder", ["mmseg_tiny", "mmseg_tiny_11"])
def test_real_files_of_the_toolbox_there_and_back(fixtures_dir: Path, tmp_path: Path, folder: str) -> None:
    path = fixtures_dir / folder / "checkpoint.pth"
    assert read_foreign([path])[0] == "mmseg"
    assert main(["convert", str(path), str(tmp_path / "ours")]) == 0
    assert main(["convert", str(tmp_path / "ours"), str(tmp_path / "again.pth"), "--to", "mmseg"]) == 0
    before, after = open_checkpoint([path]).tensors, open_checkpoint([tmp_path / "again.pth"]).tensors
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
