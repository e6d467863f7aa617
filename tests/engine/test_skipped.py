"""Images with a fault that a run or a measurement leaves out: told once, counted everywhere, the rest unharmed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_data import image_mask_folder
from PIL import Image
from processes import in_two_processes
from runs import write
from small_training import LEVELS, at_step, fit, make, moved, rows, weights

from upernet.cli import main
from upernet.data import ImageMaskFolder
from upernet.data.config import SourceConfig, TargetConfig
from upernet.data.faults import Skipped
from upernet.engine.skipped import TOLD, SkippedImages, left_out
from upernet.engine.trainer import Trainer
from upernet.errors import WorkError
from upernet.tasks import Semantic

LEFT_OUT = "images left out because of a fault: 2 of mine"


def test_each_image_is_told_once_and_many_are_only_counted() -> None:
    lines: list[str] = []
    skipped = SkippedImages(lines.append)
    skipped.add([Skipped("a", "one", "damaged"), Skipped("a", "one", "damaged"), Skipped("b", "one", "gone")])
    assert lines == ["source 'a': one is left out: damaged", "source 'b': one is left out: gone"]
    skipped.add([Skipped("a", str(number), "damaged") for number in range(100)])
    assert len(lines) == TOLD + 1
    assert lines[-1] == "further images with a fault are left out and counted, not told"
    assert skipped.counts == {"a": 101, "b": 1}
    assert str(skipped) == "images left out because of a fault: 101 of a, 1 of b"
    assert left_out({"a": 0}) == ""


def folder(root: Path) -> Path:
    """Six images to train on and four to measure, two of each with a fault that shows only when it is read."""
    image_mask_folder(root, LEVELS, counts={"train": 6, "val": 4})
    (root / "classes.json").write_text(json.dumps(LEVELS))
    for split in ("train", "val"):
        (root / f"images/{split}/{split}_0.jpg").write_bytes(b"not an image")
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(root / f"annotations/{split}/{split}_2.png")
    return root


def trainer(root: Path, out: Path, faults: Any = "skip", **options: Any) -> Trainer:
    source = SourceConfig(dataset=ImageMaskFolder(root=str(root)), targets={"object": TargetConfig()}, faults=faults)
    return make(out, {"object": Semantic(labels=LEVELS)}, {"mine": source}, **({"steps": 6} | options))


def counted(out: Path) -> list[tuple[str, str, str]]:
    found = [(row["phase"], row["source"], row["value"]) for row in rows(out) if row["metric"] == "skipped"]
    return list(dict.fromkeys(found))


def test_a_run_tells_and_counts_what_it_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = fit(trainer(folder(tmp_path / "mine"), tmp_path / "out"))
    told = " ".join(capsys.readouterr().err.split())
    for id_ in ("train_0", "train_2", "val_0", "val_2"):
        assert told.count(f"source 'mine': {id_} is left out: ") == 1
    assert "images left out because of a fault: 4 of mine" in told
    assert [(result.images, result.skipped) for result in results] == [(2, 2)]
    assert LEFT_OUT in told.replace("│", "")  # below the table of figures
    assert counted(tmp_path / "out")[-2:] == [("train", "mine", "2"), ("val", "mine", "2")]
    assert list((tmp_path / "out" / "previews").iterdir())


def test_a_run_with_faults_taken_up_again_equals_an_unbroken_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder(tmp_path / "mine")
    whole = trainer(root, tmp_path / "whole")
    fit(whole)
    broken = trainer(root, tmp_path / "broken", save_every=1)

    def kill() -> None:
        raise RuntimeError("power cut")

    at_step(broken, 5, kill)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(broken)
    capsys.readouterr()
    again = trainer(root, tmp_path / "broken")
    fit(again)
    assert not moved(weights(whole.plain_model), weights(again.plain_model))
    assert again.skipped.counts == whole.skipped.counts
    assert "train_0 is left out" not in capsys.readouterr().err  # it was told before the stop


def test_a_run_that_stopped_at_a_fault_may_go_on_without_it(tmp_path: Path) -> None:
    root = folder(tmp_path / "mine")
    with pytest.raises(WorkError, match="source 'mine': "):
        fit(trainer(root, tmp_path / "out", faults="stop"))
    onwards = trainer(root, tmp_path / "out")
    fit(onwards)
    assert onwards.step == 6


def test_a_measurement_says_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder(tmp_path / "mine")
    fit(trainer(root, tmp_path / "out", steps=1))
    capsys.readouterr()
    source = {
        "dataset": {"class_path": "upernet.data.ImageMaskFolder", "init_args": {"root": str(root)}},
        "targets": {"object": {}},
        "faults": "skip",
    }
    config = write(tmp_path / "data.yaml", {"data": {"sources": {"mine": source}}})
    words = ["evaluate", "--config", config, "--model", str(tmp_path / "out/model"), "--device", "cpu", "--out"]
    assert main([*words, str(tmp_path / "one.json")]) == 0
    printed = capsys.readouterr()
    assert LEFT_OUT in " ".join(printed.out.split())
    assert printed.err.count("is left out: ") == 2
    (result,) = json.loads((tmp_path / "one.json").read_text())["results"]
    assert (result["images"], result["skipped"]) == (2, 2)
    codes, errors = in_two_processes([*words, str(tmp_path / "two.json")])
    assert codes == [0, 0], errors
    (shared,) = json.loads((tmp_path / "two.json").read_text())["results"]
    assert shared == result
    assert sum(text.count("is left out: ") for text in errors) == 2
    del source["faults"]
    assert (
        main([*words[:2], write(tmp_path / "strict.yaml", {"data": {"sources": {"mine": source}}}), *words[3:-1]]) == 1
    )


def test_a_split_of_faults_alone_is_no_measurement(tmp_path: Path) -> None:
    root = folder(tmp_path / "mine")
    for path in (root / "images/val").iterdir():
        path.write_bytes(b"not an image")
    message = r"source 'mine': every image of split 'val' has a fault, such as .*val_0\.jpg: not an image"
    with pytest.raises(WorkError, match=message):
        trainer(root, tmp_path / "out").validate()


def test_two_processes_count_an_image_once(tmp_path: Path) -> None:
    """Each image is met by both in the course of the run; the first process tells of it and writes the counts."""
    root = folder(tmp_path / "mine")
    content = {
        "model": {"backbone": "test_resnet", "width": 8},
        "tasks": {"object": {"class_path": "upernet.tasks.Semantic", "init_args": {"labels": LEVELS}}},
        "data": {
            "batch": 2,
            "workers": 0,
            "augment": {"crop": [32, 32]},
            "sources": {
                "mine": {
                    "dataset": {"class_path": "upernet.data.ImageMaskFolder", "init_args": {"root": str(root)}},
                    "targets": {"object": {}},
                    "faults": "skip",
                }
            },
        },
        "run": {"out": str(tmp_path / "out"), "steps": 6, "device": "cpu", "log_every": 1, "val_every": 0},
        "inference": {"short_side": 32},
    }
    codes, errors = in_two_processes(["train", "--config", write(tmp_path / "recipe.yaml", content)])
    assert codes == [0, 0], errors
    assert [text.count("is left out: ") for text in errors] == [4, 0]
    assert counted(tmp_path / "out")[-2:] == [("train", "mine", "2"), ("val", "mine", "2")]
    known = torch.load(tmp_path / "out" / "state.pt", weights_only=True)["skipped"]
    assert sorted(tuple(one) for one in known) == [("mine", f"{s}_{n}") for s in ("train", "val") for n in (0, 2)]
