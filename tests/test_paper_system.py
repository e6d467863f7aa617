"""The paper's own system, command by command, on look-alikes of its four collections."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_broden
import pytest

from upernet.cli import main

SMALL = [
    *("--model.backbone", "test_efficientnet", "--model.width", "8", "--run.device", "cpu", "--run.steps", "4"),
    *("--run.backbone_weights", "null", "--data.workers", "0", "--run.val_every", "0", "--run.save_every", "2"),
]
"""A network for two cores, and a run that is over soon. Everything else is as the recipe is shipped."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Broden+, whose preparation was killed on the way and run again."""
    folder = tmp_path_factory.mktemp("unified")
    root = folder / "broden_plus"
    words = ["prepare", "broden_plus", str(root), *fake_broden.words(fake_broden.collections(folder / "originals"))]
    with subprocess.Popen([sys.executable, "-m", "upernet", *words, "--workers", "1"]) as first:
        while first.poll() is None and not any(root.rglob("object/*/*.png")):
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
    assert main([*words, "--workers", "1"]) == 0
    return root


@pytest.fixture(scope="module")
def model(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network trained on all five tasks: four at once, then texture on what it has become."""
    out = tmp_path_factory.mktemp("runs")
    joint = ["train", "--config", "broden_plus/upp_r50.yaml", "--config", str(prepared / "recipe.yaml"), *SMALL]
    sizes = ["--data.augment.short_sides", "[48,64]", "--data.augment.long_side", "96", "--optim.accumulate", "2"]
    assert main([*joint, *sizes, "--inference.short_side", "64", "--run.out", str(out / "joint")]) == 0
    texture = ["train", "--config", "broden_plus/texture_stage.yaml", "--config", str(prepared / "recipe_texture.yaml")]
    start = ["--run.init", str(out / "joint" / "model"), "--run.out", str(out / "texture")]
    assert main([*texture, *SMALL, *start]) == 0
    return out / "texture" / "model"


def test_all_five_tasks_are_measured_as_in_the_paper(
    prepared: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    sizes = ["--short_side", "64", "--max_side", "96", "--out", str(report)]
    words = ["evaluate", "--config", str(prepared / "sources.yaml"), "--model", str(model), "--paper"]
    assert main([*words, *sizes]) == 0
    printed = capsys.readouterr().out
    assert "paper, O+P+S+M+T" in printed and "this model" in printed
    content = json.loads(report.read_text())
    measured = {(r["source"], r["task"]): r["images"] for r in content["results"]}
    assert measured.keys() == {
        ("scene_parsing", "object"), ("scene_parsing", "part"), ("scene_parsing", "scene"), ("materials", "material"),
        ("textures", "texture"),
    }  # fmt: skip
    assert min(measured.values()) >= 1
    own = content["paper"]["rows"][str(model)]
    assert own.keys() == {"O mIoU", "O P.A.", "P mIoU-bg", "P P.A.", "S top-1", "M mIoU", "M P.A.", "T top-1"}
    assert all(0 <= value <= 100 for value in own.values())


def test_the_trained_network_tells_what_it_knows_from_two_processes_as_from_one(
    prepared: Path, model: Path, tmp_path: Path
) -> None:
    words = [
        "discover",
        "--config",
        str(prepared / "sources.yaml"),
        "--model",
        str(model),
        "--split",
        "train",
        "--min_images",
        "1",
    ]
    for workers in ("1", "2"):
        out = ["--out", str(tmp_path / workers), "--workers", workers, "--chunk", "8", "--min_images", "1"]
        assert main([*words, *out]) == 0
    one, two = (
        {p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*") if p.is_file()} for n in "12"
    )
    assert one == two
    knowledge = json.loads(one[Path("knowledge.json")])
    assert {r["kind"] for r in knowledge["relations"]} == {
        "scene-object", "object-part", "object-material", "part-material", "material-texture",
    }  # fmt: skip
    assert knowledge["answers"]["object"]["annotated"] > 0 < knowledge["answers"]["object"]["predicted"]
    assert os.linesep not in knowledge["model"]
