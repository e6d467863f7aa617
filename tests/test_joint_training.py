"""The example of docs/joint-training.md runs, and what the document says of it is true."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from fake_data import class_folder, image_mask_folder

from upernet.cli import main
from upernet.data.label_tables import label_table, table_names
from upernet.data.mixture import bind_sources
from upernet.options import read_options

DOCUMENT = (Path(__file__).parent.parent / "docs" / "joint-training.md").read_text()
TRAFFIC = ["ignored", "road", "pavement", "vehicle", "pedestrian", "building", "background"]
FLEET = ["background", "car", "car_left_light", "car_right_light", "bus", "lorry"]
PLACES = ["market", "motorway", "town_street"]
TINY = {
    "model.backbone": "test_resnet",
    "model.width": "8",
    "data.augment.crop": "[32,32]",
    "data.batch": "2",
    "data.workers": "0",
    "data.sources.places.batch": "2",
    "inference.short_side": "32",
    "run.steps": "5",
    "run.val_every": "0",
    "run.backbone_weights": "null",
    "run.device": "cpu",
}
"""What the test changes of the example: a network of a few thousand weights and a few steps."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, flags=re.S | re.M)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example's file and its three data sets at thumbnail size."""
    folder = tmp_path_factory.mktemp("joint")
    for name, labels in (("traffic", TRAFFIC), ("fleet", FLEET)):
        root = image_mask_folder(folder / "data" / name, labels, size=(32, 48))
        (root / "classes.json").write_text(json.dumps(labels))
    class_folder(folder / "data" / "places", PLACES, size=(32, 48))
    (folder / "joint.yaml").write_text(next(text for text in blocks("yaml") if text.startswith("# joint.yaml")))
    return folder


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def test_the_tables_of_the_document_name_the_labels_of_the_example() -> None:
    for name, labels in (("traffic", TRAFFIC), ("fleet", FLEET), ("places", sorted(PLACES))):
        row = next(line for line in DOCUMENT.splitlines() if line.startswith(f"| `{name}` |"))
        named = re.findall(r"`(\w+)`", row.split("|")[2])
        assert (sorted(named) if name == "places" else named) == labels


def test_every_label_has_the_meaning_that_the_document_tells(here: Path) -> None:
    options = read_options("train", ["--config", "joint.yaml"])
    bound = bind_sources(options["data"], options["tasks"])
    traffic = bound["traffic"].supervision["object"].sets
    names = traffic.classes.names
    meant = {label: {names[i] for i in ids} for label, ids in zip(traffic.labels, traffic.members, strict=True)}
    assert meant["vehicle"] == {"car", "bus", "truck"}
    assert meant["ignored"] == set()
    fleet = bound["fleet"].supervision["object"].sets
    assert {names[i] for i in fleet.members[0]} == {"road", "sidewalk", "building", "sign", "person", "other"}
    assert fleet.members[1] == fleet.members[2] == fleet.members[3]
    assert bound["traffic"].supervision["scene"].annotation is None


def test_the_command_says_what_the_document_says(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["labels", "--config", "joint.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (promised,) = (line for text in blocks("text") for line in text.splitlines() if line.startswith("object: "))
    assert [line for line in lines if line.startswith(("object: ", "part: ", "scene: "))] == [promised]


def test_training_proposes_what_the_document_shows(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load((here / "joint.yaml").read_text())
    content["data"]["sources"]["traffic"]["targets"]["object"]["classes"] = {
        "road": "road",
        "vehicle": ["car", "bus", "truck"],
        "building": ["building", "sign"],
        "background": "other",
    }
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(content))
    assert main(["train", "--config", str(tmp_path / "wrong.yaml")]) == 2
    told = capsys.readouterr().err.strip().removeprefix("upernet: ")
    (promised,) = (line for text in blocks("text") for line in text.splitlines() if line.startswith("source "))
    assert told == promised


def test_the_example_trains_and_is_measured(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = [word for key, value in TINY.items() for word in (f"--{key}", value)]
    assert main(["train", "--config", "joint.yaml", *changes]) == 0
    words = ["evaluate", "--config", "joint.yaml", "--model", "runs/joint/model", "--per_class", "--out", "report.json"]
    assert main(words) == 0
    results = json.loads((here / "report.json").read_text())["results"]
    measured = {(result["source"], result["task"]): result for result in results}
    assert set(measured) == {("traffic", "object"), ("fleet", "object"), ("fleet", "part"), ("places", "scene")}
    assert set(measured["traffic", "object"]["per_class"]) == {
        "road",
        "sidewalk",
        "vehicle",
        "person",
        "building",
        "other",
    }
    assert all(0 <= value <= 1 for r in results for value in r["values"].values() if value is not None)
    capsys.readouterr()


def test_the_published_tables_are_those_of_the_document() -> None:
    rows = re.findall(r"^\| `(mseg/\w+)` \| (.+) \|$", DOCUMENT, flags=re.M)
    assert [name for name, _ in rows] == [*table_names()]
    for name, text in rows:
        numbers = [int(number) for number in re.findall(r"\b\d{2,3}\b", text)]
        assert len(label_table(name)) in numbers
    (block,) = (text for text in blocks("yaml") if "mseg/" in text)
    assert yaml.safe_load(block)["targets"]["object"]["classes"] in table_names()


def test_a_folder_is_compared_with_a_list_as_shown(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = [
        line.split()[1:] for text in blocks("bash") for line in text.splitlines() if line.startswith("upernet labels")
    ]
    assert ["labels", "data/traffic", "--classes", "broden_plus/object"] in shown
    for words in shown:
        assert main(words) in (0, 1)
        assert capsys.readouterr().err == ""
