"""From a YAML file to a run, a model, a report, an answer, on made-up data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from fake_data import Memory
from runs import recipe, steps_of, write
from safetensors.torch import load_file
from torch import Tensor

import upernet
from upernet.cli import main
from upernet.data.sets.voc import NAMES as VOC_NAMES
from upernet.labels import ClassSets
from upernet.options import read_options
from upernet.store.loading import load_model
from upernet.tasks import Scene


@dataclass(kw_only=True)
class Mood(Scene):
    """A stranger's task, registered nowhere: a scene that is sure of itself."""

    temperature: float = 2.0

    def loss(self, logits: Tensor, target: Tensor, sets: ClassSets) -> Tensor:
        return super().loss(logits * self.temperature, target, sets)

    def probabilities(self, logits: Tensor) -> Tensor:
        return super().probabilities(logits * self.temperature)


@pytest.fixture(scope="module")
def run(fake_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("run")
    config = write(folder / "recipe.yaml", recipe(fake_root, folder / "out"))
    assert main(["train", "--config", config]) == 0
    return folder / "out"


def test_a_run_leaves_a_model_that_loads(run: Path) -> None:
    assert steps_of(run, "lr") == [1, 2, 3, 4]
    assert sorted(set(steps_of(run, "top-1"))) == [2, 4]
    model, tasks, inference = load_model(run / "model")
    assert list(tasks) == ["object", "part", "scene"]
    assert inference.short_side == 48
    assert all(value.isfinite().all() for value in model.state_dict().values())
    info = yaml.safe_load((run / "model" / "config.yaml").read_text())["info"]
    assert info["step"] == 4
    assert set(info["validation"]) == {"fronts/object", "fronts/part", "places/scene"}


def test_the_resolved_configuration_runs_again_to_the_same_weights(run: Path, tmp_path: Path) -> None:
    words = ["--config", str(run / "config.yaml"), "--run.out", str(tmp_path)]
    assert read_options("train", words)["run"].steps == 4
    assert main(["train", *words]) == 0
    one, other = (load_file(folder / "model" / "model.safetensors") for folder in (run, tmp_path))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_evaluate_says_what_the_last_validation_said(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "deep" / "report.json"
    words = [
        "--config",
        str(run / "config.yaml"),
        "--model",
        str(run / "model"),
        "--device",
        "cpu",
        "--per_class",
        "true",
    ]
    assert main(["evaluate", *words, "--out", str(report)]) == 0
    screen = capsys.readouterr().out
    assert all(word in screen for word in ("fronts", "places", "mIoU-bg", "top-1", "building/window", "bedroom"))
    told = json.loads(report.read_text())
    measured = {f"{r['source']}/{r['task']}": {k: round(v, 4) for k, v in r["values"].items()} for r in told["results"]}
    assert measured == yaml.safe_load((run / "model" / "config.yaml").read_text())["info"]["validation"]
    assert {(r["source"], r["split"], r["images"]) for r in told["results"]} == {
        ("fronts", "val", 2),
        ("places", "val", 15),
    }
    assert told["version"] == upernet.__version__
    assert told["inference"]["short_side"] == 48
    assert [path.name for path in report.parent.iterdir()] == ["report.json"]


def test_evaluate_on_some_sources_another_split_and_size(run: Path, tmp_path: Path) -> None:
    words = ["--config", str(run / "config.yaml"), "--model", str(run / "model"), "--out", str(tmp_path / "r.json")]
    assert main(["evaluate", *words, "--sources", "[fronts]", "--split", "train", "--short_side", "32"]) == 0
    told = json.loads((tmp_path / "r.json").read_text())
    assert {(r["source"], r["split"], r["images"]) for r in told["results"]} == {("fronts", "train", 4)}
    assert told["inference"]["short_side"] == 32


def test_a_report_is_json_for_everybody(run: Path, fake_root: Path, tmp_path: Path) -> None:
    """The standard has no NaN, and a class that no image shows has no accuracy."""
    content = recipe(fake_root, tmp_path)
    meaning = dict.fromkeys(VOC_NAMES) | {"cat": "else", "person": "building", "bird": ["else", "building"]}
    content["data"]["sources"] = {
        "voc": {
            "dataset": {
                "class_path": "upernet.data.VOC",
                "init_args": {"root": str(fake_root / "voc_mini" / "VOCdevkit" / "VOC2012")},
            },
            "targets": {"object": {"classes": meaning}},
        }
    }
    report = tmp_path / "report.json"
    words = ["--config", write(tmp_path / "voc.yaml", content), "--model", str(run / "model"), "--out", str(report)]
    assert main(["evaluate", *words]) == 0

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    (result,) = json.loads(report.read_text(), parse_constant=refuse)["results"]
    assert result["per_class"]["bird"]["Acc"] is None
    assert result["per_class"]["bird"]["IoU"] == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--sources", "[front]"], "sources: 'front' is not one of fronts, places"),
        (["--split", "nowhere"], "source 'fronts': "),
        (["--model", "no-such-model"], "no-such-model: no such model; give a folder"),
    ],
)
def test_wrong_evaluations_are_told(words: list[str], line: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--config", str(run / "config.yaml"), "--model", str(run / "model"), *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"upernet: {line}")
    assert err.count("\n") == 1


def test_a_photograph_is_parsed(run: Path, fake_root: Path, tmp_path: Path) -> None:
    photo = next((fake_root / "mini_multitask" / "facade" / "images" / "val").iterdir())
    assert main(["predict", str(photo), "--model", str(run / "model"), "--out", str(tmp_path), "--device", "cpu"]) == 0
    told = json.loads((tmp_path / f"{photo.stem}.json").read_text())
    assert set(told["tasks"]) == {"object", "part", "scene"}
    assert upernet.load(run / "model", device="cpu")(photo)["object"].shape == (48, 64)


def test_a_second_stage_starts_from_the_first_and_trains_the_new_head_alone(
    run: Path, fake_root: Path, tmp_path: Path
) -> None:
    content = recipe(fake_root, tmp_path / "out")
    content["tasks"]["texture"] = {
        "class_path": "upernet.tasks.Texture",
        "init_args": {"labels": ["rough", "smooth"], "width": 8, "convs": 1},
    }
    content["data"]["sources"]["surfaces"] = {
        "dataset": {"class_path": "fake_data.Memory", "init_args": {"labels": ["rough", "smooth"], "dense": False}},
        "targets": {"texture": {}},
    }
    content["optim"] = {"train_only": ["texture"], "lr": 0.1}
    content["run"] |= {"init": str(run / "model"), "steps": 3}
    assert main(["train", "--config", write(tmp_path / "two.yaml", content)]) == 0
    one, two = (load_file(folder / "model" / "model.safetensors") for folder in (run, tmp_path / "out"))
    assert {name for name in two if name not in one} == {name for name in two if name.startswith("heads.texture.")}
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_strangers_task_and_source_need_nothing_but_a_class_path(fake_root: Path, tmp_path: Path) -> None:
    content = recipe(fake_root, tmp_path / "out")
    content["tasks"] = {
        "mood": {
            "class_path": f"{__name__}.Mood",
            "init_args": {"labels": ["calm", "wild"], "width": 8, "temperature": 3.0},
        }
    }
    content["data"]["sources"] = {
        "drawn": {
            "dataset": {"class_path": "fake_data.Memory", "init_args": {"labels": ["calm", "wild"], "dense": False}},
            "targets": {"mood": {}},
        }
    }
    content["run"]["steps"] = 2
    config = write(tmp_path / "mine.yaml", content)
    assert main(["train", "--config", config]) == 0
    _, tasks, _ = load_model(tmp_path / "out" / "model")
    assert tasks == {"mood": Mood(labels=["calm", "wild"], width=8, temperature=3.0)}
    assert type(tasks["mood"]) is Mood
    report = tmp_path / "r.json"
    assert main(["evaluate", "--config", config, "--model", str(tmp_path / "out" / "model"), "--out", str(report)]) == 0
    (result,) = json.loads(report.read_text())["results"]
    assert (result["task"], result["images"], list(result["values"])) == ("mood", 2, ["top-1"])
    parser = upernet.load(tmp_path / "out" / "model", device="cpu")
    assert parser(Memory().read(Memory().items("val")[0])[0])["mood"] in ("calm", "wild")
