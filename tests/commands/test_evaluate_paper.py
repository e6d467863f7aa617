"""`evaluate --paper`: the authors' pair, or any model, measured as the paper does, in one command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from fake_data import blocks, class_folder
from foreign_files import authors_pair
from PIL import Image
from processes import in_two_processes
from runs import recipe, write

import upernet
from upernet.cli import main
from upernet.data.sets.broden_plus import broden_plus
from upernet.zoo.paper import paper_rows

SIZE = (40, 61)
THINGS = ["-", "sky", "car", "building"]
CAR_PARTS = ["-", "car/-", "car/wheel", "car/door"]
STUFF = ["-", "brick", "wood"]


def mask_folder(root: Path, labels: list[str], values: Any, count: int = 3) -> dict[str, Any]:
    """A data set of noise whose masks are given by a function of a picture's name."""
    rng = np.random.default_rng(len(labels))
    for i in range(count):
        for kind in ("images", "annotations"):
            (root / kind / "val").mkdir(parents=True, exist_ok=True)
        picture = rng.integers(0, 255, (*SIZE, 3), np.uint8)
        Image.fromarray(picture).save(root / "images" / "val" / f"{i}.png")
        Image.fromarray(values(i).astype(np.uint8)).save(root / "annotations" / "val" / f"{i}.png")
    return {
        "class_path": "upernet.data.ImageMaskFolder",
        "init_args": {"root": str(root), "labels": labels, "images": "images/{split}", "ignore_value": 255},
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`broden.yaml`, three sources of a few pictures, and `upp`, the authors' two files."""
    folder = tmp_path_factory.mktemp("paper")
    authors_pair(
        folder / "upp", object=THINGS, part=CAR_PARTS[1:], material=STUFF, scene=["attic", "street", "bedroom"]
    )
    things = mask_folder(folder / "things", THINGS, lambda i: blocks(f"thing{i}", range(4), SIZE))
    parts = mask_folder(folder / "parts", CAR_PARTS, lambda i: blocks(f"part{i}", range(4), SIZE))
    stuff = mask_folder(folder / "stuff", STUFF, lambda i: blocks(f"stuff{i}", range(3), SIZE))
    class_folder(folder / "places", ["street", "attic"], size=SIZE)
    places = {"class_path": "upernet.data.ClassFolder", "init_args": {"root": str(folder / "places")}}
    nothing = {"classes": {"-": None}}
    content = {
        "model": {"backbone": "resnet50"},  # as in a training file
        "data": {
            "sources": {
                "things": {"dataset": things, "train": None, "targets": {"object": nothing}},
                "parts": {"dataset": parts, "train": None, "targets": {"part": nothing}},
                "stuff": {"dataset": stuff, "train": None, "targets": {"material": nothing}},
                "places": {"dataset": places, "train": None, "targets": {"scene": {}}},
            }
        },
    }
    (folder / "broden.yaml").write_text(yaml.safe_dump(content))
    return folder


SMALL = ["--short_side", "64", "--max_side", "90"]
"""The protocol at the size of thumbnails."""


def words(place: Path, *more: str) -> list[str]:
    pair = [str(place / "upp" / f"{half}_epoch_40.pth") for half in ("encoder", "decoder")]
    config = ["--config", str(place / "broden.yaml"), "--model", *pair, "--device", "cpu"]
    return ["evaluate", *config, "--paper", *more]


def report(place: Path, out: Path, *more: str) -> dict[str, Any]:
    assert main(words(place, *more, "--out", str(out))) == 0
    content: dict[str, Any] = json.loads(out.read_text())
    return content


def test_the_authors_pair_in_one_command(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    told = report(place, tmp_path / "report.json", *SMALL)
    assert told["model"] == " + ".join(str(place / "upp" / f"{h}_epoch_40.pth") for h in ("encoder", "decoder"))
    assert told["metrics"] == "paper"
    assert told["ignored"].startswith("arg-max among all classes, those of no label wrong")
    assert told["sizes"] == ("shorter side 64, longer side at most 90, then both stretched to the next multiple of 32")
    assert {r["task"]: list(r["values"]) for r in told["results"]} == {
        "object": ["mIoU", "PA"], "part": ["mIoU-bg", "PA"], "material": ["mIoU", "PA"], "scene": ["top-1"],
    }  # fmt: skip
    rows = told["paper"]["rows"]
    assert list(rows) == [told["model"], *(f"paper, {row.trained_on}" for row in paper_rows())]
    values = {r["task"]: r["values"] for r in told["results"]}
    assert rows[told["model"]] == pytest.approx(
        {
            "O mIoU": 100 * values["object"]["mIoU"],
            "O P.A.": 100 * values["object"]["PA"],
            "P mIoU-bg": 100 * values["part"]["mIoU-bg"],
            "P P.A.": 100 * values["part"]["PA"],
            "S top-1": 100 * values["scene"]["top-1"],
            "M mIoU": 100 * values["material"]["mIoU"],
            "M P.A.": 100 * values["material"]["PA"],
        }
    )
    assert told["paper"]["sources"]["P P.A."] == ["parts"]
    screen = capsys.readouterr().out
    line = next(line for line in screen.splitlines() if "O+P+S+M+T" in line)
    assert line.split() == [
        "paper,", "O+P+S+M+T", "23.36", "77.09", "28.75", "46.92", "70.87", "54.19", "84.45", "35.10",
    ]  # fmt: skip
    assert "O: things; P: parts; S: places; M: stuff" in " ".join(screen.split())
    assert "| paper, M | - | - | - | - | - | 52.78 | 84.32 | - |" in told["paper"]["markdown"]


def test_without_smaller_sizes_they_are_the_papers(place: Path, tmp_path: Path) -> None:
    told = report(place, tmp_path / "report.json", "--sources", "places")
    assert told["inference"] == {
        "short_side": 450, "max_side": 1200, "short_sides": [], "multiple": 32, "antialias": False, "window": None,
        "stride": None, "resize_twice": False, "scales": [1.0], "flip": False, "scale_of": "box",
    }  # fmt: skip
    assert told["paper"]["rows"][told["model"]].keys() == {"S top-1"}


def test_two_processes_report_what_one_does(place: Path, tmp_path: Path) -> None:
    one = report(place, tmp_path / "one.json", *SMALL)
    codes, errors = in_two_processes(words(place, *SMALL, "--out", str(tmp_path / "two.json")))
    assert codes == [0, 0], errors
    two = json.loads((tmp_path / "two.json").read_text())
    assert two["results"] == one["results"]
    assert two["paper"] == one["paper"]


# --- the same by hand -----------------------------------------------------------------------------------------------


def shown(picture: np.ndarray, short: int, longest: int) -> np.ndarray:
    """SPEC E6: fitted, cut to whole pixels, stretched to multiples of 32."""
    height, width = picture.shape[:2]
    scale = min(short / min(height, width), longest / max(height, width))
    sides = [((int(side * scale) - 1) // 32 + 1) * 32 for side in (height, width)]
    return np.asarray(cv2.resize(picture, (sides[1], sides[0])))


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(0))
    return np.asarray(e / e.sum(0))


def test_several_sizes_as_in_a_literal_computation(place: Path, tmp_path: Path) -> None:
    """Objects and parts of every picture, from the network's logits to the figures, in numpy."""
    sides, longest = [48, 64, 80], 110
    network = upernet.load(place / "upp", reference=True).model
    tables = broden_plus()
    car = list(tables["part"]).index("car")
    start = sum(1 + len(parts) for parts in list(tables["part"].values())[:car])
    inside = slice(start, start + 1 + len(tables["part"]["car"]))

    def maps(source: str, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The object's class, the class within the car's group, and the true labels."""
        picture = np.asarray(Image.open(place / source / "images" / "val" / f"{i}.png"))
        p_object, p_part = 0.0, 0.0
        for side in sides:
            x = torch.from_numpy(shown(picture, side, longest).astype(np.float32) / 255).permute(2, 0, 1)[None]
            with torch.no_grad():
                logits = network(x.contiguous(memory_format=torch.channels_last), ["object", "part"])
            large = {n: F.interpolate(z, SIZE, mode="bilinear", align_corners=False) for n, z in logits.items()}
            p_object = p_object + softmax(large["object"][0].numpy()) / len(sides)
            p_part = p_part + softmax(large["part"][0, inside].numpy()) / len(sides)
        truth = np.asarray(Image.open(place / source / "annotations" / "val" / f"{i}.png"))
        return np.argmax(p_object, 0), np.argmax(p_part, 0), truth

    more = ["--short_side", *map(str, sides), "--max_side", str(longest)]
    told = report(place, tmp_path / "report.json", *more)
    assert told["sizes"].startswith("shorter side 48, 64, 80, longer side at most 110, then both stretched")
    assert told["protocol"] == "whole image, 3 shorter sides, averaged, no flip"
    found = {r["task"]: r["values"] for r in told["results"]}

    ids = [tables["object"].index(name) for name in THINGS]
    pred, truth = (np.stack(arrays) for arrays in list(zip(*(maps("things", i) for i in range(3)), strict=True))[::2])
    truth = np.array(ids)[truth]
    pred = pred * (truth > 0)
    ious = [((pred == c) & (truth == c)).sum() / (((pred == c) | (truth == c)).sum() + 1e-8) for c in ids[1:]]
    expected = {"mIoU": np.mean(ious), "PA": ((pred == truth) & (truth > 0)).sum() / (truth > 0).sum()}
    assert found["object"] == pytest.approx(expected, abs=1e-3)

    objects, of_car, truth = (np.stack(a) for a in zip(*(maps("parts", i) for i in range(3)), strict=True))
    names = ["-", *tables["part"]["car"]]
    index = np.array([0, 0, names.index("wheel"), names.index("door")])  # of the labels, within the group
    truth = index[truth]
    pred = of_car * (objects == tables["object"].index("car"))
    ious = [((pred == c) & (truth == c)).sum() / (((pred == c) | (truth == c)).sum() + 1e-8) for c in index[2:]]
    expected = {"mIoU-bg": np.mean(ious), "PA": ((pred == truth) & (truth > 0)).sum() / (truth > 0).sum()}
    assert found["part"] == pytest.approx(expected, abs=1e-3)


# --- options --------------------------------------------------------------------------------------------------------


def test_a_file_of_labels_beside_the_pair_does_no_harm(place: Path, tmp_path: Path) -> None:
    """As in the second place of the published files."""
    for path in authors_pair(tmp_path / "upp"):
        assert path.is_file()
    (tmp_path / "upp" / "labels.json").write_text(json.dumps({"object": ["-", "else"], "object_part": {}}))
    parser = upernet.load(tmp_path / "upp")
    assert parser.labels["object"].names[1] == "wall"


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--short_side", "300", "450", "--tta"], "--short_side [300, 450] contradicts --tta; leave one of them out"),
        (["--short_side", "300", "8"], "inference.short_sides: 8 is not at least 32; for example [300, 375, 450, 525"),
        (["--max_side", "8"], "inference.max_side: 8 is not at least 32; for example 2048"),
        (["--data.protocol", "coco"], "evaluate: data.protocol: expected one of 'mmseg', 'paper', found 'coco'"),
    ],
)
def test_wrong_options_are_told(more: list[str], line: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(place, *more)) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"upernet: {line}"), err
    assert err.count("\n") == 1


def test_metrics_without_the_sizes(place: Path, tmp_path: Path) -> None:
    """A model keeps its own sizes where the YAML alone asks for the paper's metrics."""
    base = [word for word in words(place) if word != "--paper"]
    out = tmp_path / "report.json"
    more = ["--data.protocol", "paper", "--short_side", "64", "--sources", "places", "--out", str(out)]
    assert main([*base, *more]) == 0
    told = json.loads(out.read_text())
    assert (told["metrics"], told["inference"]["max_side"]) == ("paper", 1000)
    assert "paper" in told
    assert main([*base, "--short_side", "64", "--sources", "places", "--out", str(out)]) == 0
    told = json.loads(out.read_text())
    assert told["metrics"] == "mmseg"
    assert "paper" not in told


def test_training_validates_as_the_paper_does(fake_root: Path, tmp_path: Path) -> None:
    content = recipe(fake_root, tmp_path / "run")
    content["data"]["protocol"] = "paper"
    content["run"] |= {"steps": 1, "val_every": 0}
    assert main(["train", "--config", write(tmp_path / "recipe.yaml", content)]) == 0
    told = (tmp_path / "run" / "metrics.csv").read_text()
    assert ",object,PA," in told and ",part,mIoU-bg," in told
    assert "mAcc" not in told
