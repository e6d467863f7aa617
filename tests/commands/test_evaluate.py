"""The command `evaluate`: options, report, predicted maps, and several processes that give the numbers of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from fake_data import cityscapes
from PIL import Image
from processes import Starter, by_srun, by_torchrun, in_two_processes

import upernet
import upernet.files as files
from upernet.cli import main
from upernet.config import InferenceConfig, ModelConfig
from upernet.data.sets.cityscapes import CLASSES
from upernet.model import UPerNet
from upernet.store.native import save_model
from upernet.tasks import Semantic


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `town` (five pictures of Cityscapes' layout), `town.yaml` and `model`."""
    folder = tmp_path_factory.mktemp("evaluate")
    cityscapes(folder / "town", counts={"val": 5, "test": 1})
    dataset = {"class_path": "upernet.data.Cityscapes", "init_args": {"root": str(folder / "town")}}
    content = {"data": {"sources": {"town": {"dataset": dataset, "targets": {"semantic": {}}}}}}
    (folder / "town.yaml").write_text(yaml.safe_dump(content))
    torch.manual_seed(0)
    tasks = {"semantic": Semantic(labels="cityscapes")}
    model = UPerNet(ModelConfig(backbone="test_resnet", width=8), tasks)
    save_model(folder / "model", model, tasks, InferenceConfig(short_side=48, window=(40, 40), stride=(24, 24)))
    return folder


def words(place: Path, *more: str | Path) -> list[str]:
    fixed = ["--config", place / "town.yaml", "--model", place / "model", "--device", "cpu"]
    return ["evaluate", *(str(word) for word in (*fixed, *more))]


def report(place: Path, out: Path, *more: str) -> dict[str, Any]:
    assert main(words(place, "--out", out, *more)) == 0
    content: dict[str, Any] = json.loads(out.read_text())
    return content


def test_a_report_says_how_it_was_made(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = report(place, tmp_path / "slide.json", "--further")
    assert told["model"] == str(place / "model")
    assert told["version"] == upernet.__version__
    assert told["date"].endswith("+00:00")
    assert told["protocol"] == "windows of 40×40 every 24×24, one scale, no flip"
    assert told["ignored"] == "arg-max among the labels of the source, unlabelled pixels ignored"
    assert told["sizes"] == "shorter side 48, longer side at most 2048, aspect kept, halves rounded up"
    assert told["inference"]["window"] == [40, 40]
    assert told["precision"] == "float32"
    (result,) = told["results"]
    assert result["data"] == {"class_path": "upernet.data.Cityscapes", "root": str(place / "town")}
    masks = [np.asarray(Image.open(path)) for path in (place / "town").rglob("val/**/*_labelTrainIds.png")]
    labelled = sum(bool((mask != 255).any()) for mask in masks)
    assert (result["source"], result["split"], result["task"], result["images"]) == (
        "town",
        "val",
        "semantic",
        labelled,
    )
    assert list(result["values"]) == ["mIoU", "mAcc", "PA"]
    assert list(result["further"]) == ["mDice", "mF-score", "mPrecision", "mRecall", "mIoU, absent 0", "SceneParse150"]
    assert list(result["per_class"]["road"]) == ["IoU", "Acc", "Dice", "F-score", "Precision", "Recall", "averaged"]
    screen = "".join(capsys.readouterr().out.split())
    assert "windowsof40×40every24×24" in screen
    assert "SceneParse150" in screen


def test_each_option_changes_the_procedure(place: Path, tmp_path: Path) -> None:
    whole = report(place, tmp_path / "whole.json", "--whole")
    assert (whole["inference"]["window"], whole["inference"]["flip"]) == (None, False)
    assert whole["protocol"].startswith("whole image, one scale, no flip")
    other = report(place, tmp_path / "other.json", "--window", "[64,48]", "--stride", "[32,48]")
    assert other["protocol"].startswith("windows of 64×48 every 32×48, one scale")
    tta = report(place, tmp_path / "tta.json", "--whole", "--tta")
    assert tta["protocol"].startswith(
        "whole image, scales 0.5, 0.75, 1, 1.25, 1.5, 1.75 of the box, averaged, plain and flipped, averaged"
    )
    recent = report(place, tmp_path / "recent.json", "--whole", "--scales", "[1,2]", "--protocol", "recent")
    assert recent["protocol"].startswith("whole image, scales 1, 2 of the image, averaged, no flip")
    assert recent["sizes"] == "the image's own size times the scale, aspect kept"
    values = [r["results"][0]["values"]["PA"] for r in (whole, other, tta, recent)]
    assert len(set(values)) == 4


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--whole", "--window", "[40,40]"], "--whole contradicts windows of [40, 40]; leave one of them out"),
        (
            ["--protocol", "recent"],
            "--protocol recent needs scales; give --tta or --scales too, such as --scales [0.5,1,2]",
        ),
        (["--window", "[40,20]"], "inference.window: [40, 20] is not a height and width of at least 32 pixels"),
        (["--stride", "[41,24]"], "inference.stride: [41, 24] leaves gaps between windows of [40, 40]"),
        (["--scales", "[0]"], "inference.scales: [0.0] is not a list of factors from 0.05 to 20; for example [1.0]"),
        (["--scales", "[]"], "inference.scales: [] is not a list of factors from 0.05 to 20"),
        (["--precision", "tf32", "--device", "cpu"], "precision tf32: cpu has no such arithmetic; valid: float32"),
        (["--short_side", "8"], "inference.short_side: 8 is not at least 32; for example 512"),
        (["--save_predictions", __file__], f"--save_predictions {__file__} is a file; valid: a folder"),
    ],
)
def test_wrong_options_are_told(more: list[str], line: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(place, *more)) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"upernet: {line}")
    assert err.count("\n") == 1


def test_maps_for_the_server_of_cityscapes(place: Path, tmp_path: Path) -> None:
    assert main(words(place, "--split", "test", "--save_predictions", tmp_path / "maps")) == 0
    (path,) = (tmp_path / "maps").rglob("*.png")
    assert path.relative_to(tmp_path) == Path("maps/town/semantic/testtown0_000000_000019_predicted.png")
    with Image.open(path) as image:
        assert (image.mode, image.size) == ("L", (32, 24))
        assert set(np.unique(np.asarray(image)).tolist()) <= {label.id for label in CLASSES}


# --- several processes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [by_torchrun, by_srun])
def test_two_processes_report_what_one_does(start: Starter, place: Path, tmp_path: Path) -> None:
    one = report(place, tmp_path / "one.json")
    codes, errors = in_two_processes(words(place, "--out", tmp_path / "two.json"), start)
    assert codes == [0, 0], errors
    two = json.loads((tmp_path / "two.json").read_text())
    assert two["results"] == one["results"]
    assert two["results"][0]["images"] > 2


def test_srun_must_say_how_many_processes_belong_on_a_machine(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in by_srun(0, 1).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    assert main(words(place)) == 2
    assert capsys.readouterr().err == (
        "upernet: srun: 2 processes, but not how many on each machine; "
        "give --ntasks-per-node, for example --ntasks-per-node 4\n"
    )


def test_an_image_that_fails_in_one_process_stops_both(place: Path, tmp_path: Path) -> None:
    """The second picture is the second process's."""
    cityscapes(tmp_path / "town", counts={"val": 2})
    broken = sorted((tmp_path / "town").rglob("*_leftImg8bit.png"))[1]
    broken.write_bytes(b"no picture")
    config = yaml.safe_load((place / "town.yaml").read_text())
    config["data"]["sources"]["town"]["dataset"]["init_args"]["root"] = str(tmp_path / "town")
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump(config))
    arguments = ["evaluate", "--config", str(tmp_path / "broken.yaml"), "--model", str(place / "model")]
    codes, errors = in_two_processes([*arguments, "--out", str(tmp_path / "report.json")])
    assert codes == [1, 1]
    assert not (tmp_path / "report.json").exists()
    first, second = (text.splitlines()[-1] for text in errors)
    assert first == "upernet: another process of this evaluation has stopped; its own line says why"
    assert second.startswith("upernet: source 'town': ") and broken.name in second


@pytest.mark.parametrize("command", ["evaluate", "benchmark"])
def test_where_no_file_can_be_written_is_told_before_any_work(
    command: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--config", str(place / "town.yaml"), "--model", str(place / "model")] if command == "evaluate" else []
    for out, said in (
        (tmp_path, f"--out {tmp_path} is a folder; valid: a file, such as {tmp_path}/report.json"),
        (
            place / "town.yaml" / "x.json",
            f"--out {place}/town.yaml/x.json: {place}/town.yaml is a file; valid: a file in a folder, such as "
            "report.json",
        ),
    ):
        assert main([command, *words, "--out", str(out)]) == 2
        assert capsys.readouterr().err == f"upernet: {said}\n"


def test_a_place_that_may_not_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(dir: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(files, "TemporaryFile", refused)
    with pytest.raises(upernet.UserError) as caught:
        files.check_writable("--out", tmp_path / "new" / "report.json")
    line = f"--out {tmp_path}/new/report.json: nothing can be written in {tmp_path} (Read-only file system)"
    assert str(caught.value) == line
