"""`upernet labels`: what labels stand for, without opening an image."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_data import class_folder

from upernet.cli import main
from upernet.data.label_tables import label_table

TASKS = {
    "object": {
        "class_path": "upernet.tasks.Object",
        "init_args": {"labels": ["road", "sidewalk", "car", "bus", "signboard", "cat"]},
    },
    "scene": {"class_path": "upernet.tasks.Scene", "init_args": {"labels": ["street", "field"]}},
}


def source(kind: str, targets: dict[str, Any], **options: Any) -> dict[str, Any]:
    """A source whose folder does not exist."""
    dataset = {"class_path": f"upernet.data.{kind}", "init_args": {"root": "nowhere", **options}}
    return {"dataset": dataset, "targets": targets}


def write(path: Path, sources: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump({"tasks": TASKS, "data": {"sources": sources}}, sort_keys=False))
    return str(path)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str]]:
    status = main(["labels", *words])
    out, err = capsys.readouterr()
    assert err == ""
    return status, out.splitlines()


MINE = ["Road", "Pavement", "Vehicle", "SignSymbol", "Void"]


@pytest.fixture
def config(tmp_path: Path) -> str:
    meaning = {"Vehicle": ["car", "bus"], "Void": None}
    targets = {"object": {"classes": meaning}, "scene": {"constant": ["street"]}}
    return write(tmp_path / "mine.yaml", {"mine": source("ImageMaskFolder", targets, labels=MINE)})


def test_every_label_and_what_is_missing(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = run(capsys, "--config", config)
    assert status == 1
    assert lines == [
        "mine, object: annotation mask, 5 labels",
        "  Road        no meaning yet; proposed: road (name)",
        "  Pavement    no meaning yet; proposed: sidewalk (synonym)",
        "  Vehicle     car | bus",
        "  SignSymbol  no meaning yet; proposed: signboard? (similar)",
        "  Void        null",
        "  add to its classes: {Road: road, Pavement: sidewalk, SignSymbol: 'signboard?'}",
        "mine, scene: constant",
        "  every image  street",
        "object: 4 classes that no source labels: road, sidewalk, signboard, cat",
        "object: 2 classes that are only labelled with others: car, bus",
        "scene: 1 classes that no source labels: field",
    ]


def test_what_it_proposes_completes_the_file(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, lines = run(capsys, "--config", config)
    proposed = yaml.safe_load(next(line for line in lines if "add to" in line).split(": ", 1)[1].replace("?", ""))
    content = yaml.safe_load(Path(config).read_text())
    content["data"]["sources"]["mine"]["targets"]["object"]["classes"] |= proposed
    Path(config).write_text(yaml.safe_dump(content))
    status, lines = run(capsys, "--config", config)
    assert status == 0
    assert "  SignSymbol  signboard" in lines
    assert not any("no meaning yet" in line for line in lines)


def test_training_tells_the_same_in_one_line(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", config]) == 2
    proposals = "{Road: road, Pavement: sidewalk, SignSymbol: 'signboard?'}"
    told = f"3 labels are no classes of the task; add to its classes: {proposals}"
    assert capsys.readouterr().err == f"upernet: source 'mine', target 'object': {told}\n"


def test_training_bounds_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "mine.yaml", {"ade": source("ADE20K", {"object": {}})})
    assert main(["train", "--config", path]) == 2
    line = capsys.readouterr().err
    assert line.startswith("upernet: source 'ade', target 'object': 145 labels are no classes of the task; add to its")
    assert line.endswith(", …}; upernet labels shows the 125 others too\n")
    assert len(line) < 700


def test_json(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = run(capsys, "--config", config, "--json")
    content = json.loads("\n".join(lines))
    assert status == 1
    first, second = content["targets"]
    assert (first["source"], first["target"], first["annotation"], first["fault"]) == ("mine", "object", "mask", None)
    assert first["labels"] == {"Vehicle": ["car", "bus"], "Void": []}
    assert first["unmapped"]["SignSymbol"] == {"proposed": "signboard", "by": "similar"}
    assert (second["annotation"], second["labels"]) == (None, {"every image": ["street"]})
    assert content["classes"][0] == {
        "target": "object",
        "never": ["road", "sidewalk", "signboard", "cat"],
        "together": ["car", "bus"],
    }


def test_other_faults_do_not_hide_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(
        tmp_path / "mine.yaml",
        {
            "one": source("ImageMaskFolder", {"object": {"classes": {"Raod": "road"}}}, labels=["Road", "Car"]),
            "two": source("ImageMaskFolder", {"objects": {}}, labels=["road"]),
            "three": source("ImageMaskFolder", {"scene": {}}, labels=["street"]),
            "four": source("ImageMaskFolder", {"object": {}}, labels=["road", "car"]),
            "five": source("ImageMaskFolder", {"object": {}}),
        },
    )
    status, lines = run(capsys, "--config", path)
    assert status == 1
    assert (
        lines[0] == "source 'one', target 'object': the table maps label 'Raod', which the source does not have; did "
        "you mean 'Road'?"
    )
    assert lines[1] == "source 'two': no task reads target 'objects'; targets: object, scene"
    assert lines[2].startswith("source 'three', target 'scene': annotation 'mask' is a map, but the task answers once")
    assert lines[3:6] == ["four, object: annotation mask, 2 labels", "  road  road", "  car   car"]
    assert lines[6].startswith("source 'five', target 'object': nowhere: no such folder; ImageMaskFolder expects")


def test_a_source_without_any_mapped_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "mine.yaml", {"a": source("ImageMaskFolder", {"object": {}}, labels=["Zebra", "Bus"])})
    status, lines = run(capsys, "--config", path)
    assert status == 1
    assert lines[1:4] == [
        "  Zebra  no meaning yet; proposed: null (nothing)",
        "  Bus    no meaning yet; proposed: bus (name)",
        "  add to its classes: {Zebra: null, Bus: bus}",
    ]


def test_a_folder_with_names_beside_a_published_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "classes.json").write_text('["wall", "Pavement"]')
    status, lines = run(capsys, str(tmp_path), "--classes", "broden_plus/object")
    assert status == 1
    assert lines == [
        f"{tmp_path}, broden_plus/object: annotation mask, 2 labels",
        "  wall      wall",
        "  Pavement  no meaning yet; proposed: sidewalk (synonym)",
        "  add to its classes: {Pavement: sidewalk}",
    ]
    (tmp_path / "classes.json").write_text('["wall", "sky"]')
    assert run(capsys, str(tmp_path), "--classes", "broden_plus/object")[0] == 0


def test_a_folder_of_class_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class_folder(tmp_path, ["banded", "dots"])
    status, lines = run(capsys, str(tmp_path), "--classes", "broden_plus/texture")
    assert status == 1
    assert lines[1:3] == ["  banded  banded", "  dots    no meaning yet; proposed: null (nothing)"]


def test_a_data_set_by_its_name_and_the_table_that_fits(capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = run(capsys, "cityscapes", "--classes", "mseg")
    assert status == 1
    assert lines[0] == "cityscapes, mseg: annotation mask, 19 labels"
    assert lines[-1] == "  or use the published table: classes: mseg/cityscapes"
    status, lines = run(capsys, "pascal_part116", "--classes", "broden_plus/object")
    assert [line for line in lines if line.startswith("pascal_part116, ")] == [
        "pascal_part116, broden_plus/object: annotation object, 20 labels",
        "pascal_part116, broden_plus/object: annotation part, 116 labels",
    ]


def test_a_published_table_needs_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    tasks = {"all": {"class_path": "upernet.tasks.Object", "init_args": {"labels": "mseg"}}}
    names = [*label_table("mseg/sunrgbd")]
    rooms = source("ImageMaskFolder", {"all": {"classes": "mseg/sunrgbd"}}, labels=names)
    path.write_text(yaml.safe_dump({"tasks": tasks, "data": {"sources": {"rooms": rooms}}}))
    status, lines = run(capsys, "--config", str(path))
    assert status == 0
    assert any(line.split() == ["refridgerator", "refrigerator"] for line in lines)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (
            [],
            "labels: needs a training file with tasks and data.sources, for example upernet labels --config mine.yaml",
        ),
        (["x", "y", "--classes", "mseg"], "labels: give one DATA and --classes, for example upernet labels cityscapes"),
        (["cityscapes"], "labels: give one DATA and --classes, for example"),
        (["nowhere", "--classes", "mseg"], "nowhere: no such folder; valid: a folder, or a data set: ade20k, "),
        (["cityscapes", "--classes", "msge"], "no class list 'msge'; valid: ade20k, "),
        (
            [".", "--classes", "mseg"],
            "no class folders; ClassFolder expects images/<split>/<class>/*.jpg; expected classes",
        ),
    ],
    ids=" ".join,
)
def test_wrong_words_are_told(
    words: list[str], part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["labels", *words]) == 2
    err = capsys.readouterr().err
    assert part in err
    assert len(err.splitlines()) == 1


def test_help_and_a_folder_need_no_torch(tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text('["wall"]')
    code = (
        "import sys; from upernet.cli import main\n"
        "try: status = main(sys.argv[1:])\n"
        "except SystemExit as end: status = end.code\n"
        "sys.exit(7 if 'torch' in sys.modules else status)"
    )
    for words in (["labels", "--help"], ["labels", str(tmp_path), "--classes", "broden_plus/object"]):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
