"""Published class lists, and their names where YAML has a list of classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from upernet.cli import read_options
from upernet.contract import Task
from upernet.errors import UserError
from upernet.labels import Labels
from upernet.plain import from_class_path, to_plain
from upernet.tasks import Object, Part
from upernet.vocabulary import broden_plus, vocabulary


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        ("ade20k", 150, ("wall", "#787878"), ("flag", "#5c00ff")),
        ("camvid", 11, ("Sky", "#808080"), ("Bicyclist", "#0080c0")),
        ("cityscapes", 19, ("road", "#804080"), ("bicycle", "#770b20")),
        ("voc", 21, ("background", "#000000"), ("tvmonitor", "#004080")),
    ],
)
def test_lists_of_one_task(name: str, count: int, first: tuple[str, str], last: tuple[str, str]) -> None:
    classes = vocabulary(name)
    assert len(classes) == count
    items = list(classes.items())
    assert (items[0], items[-1]) == (first, last)
    labels = Labels.of(classes)
    assert (len(labels.names), len(labels.colours)) == (count, count)


def test_voc_colours_follow_its_rule() -> None:
    """Bits of the id, three at a time to red, green and blue, from the highest bit of the colour down."""
    for number, colour in enumerate(Labels.of("voc").colours):
        expected = [sum((number >> (3 * k + channel) & 1) << (7 - k) for k in range(8)) for channel in range(3)]
        assert list(colour) == expected


def test_broden_plus() -> None:
    names = broden_plus()
    counts = (len(names["object"]), len(names["material"]), len(names["scene"]), len(names["texture"]))
    assert counts == (336, 26, 365, 47)
    assert (names["object"][0], names["material"][0]) == ("-", "-")
    assert len(names["part"]) == 77
    assert sum(1 + len(parts) for parts in names["part"].values()) == 427
    assert max(1 + len(parts) for parts in names["part"].values()) == 24
    assert names["part"]["sky"] == ["cloud"]
    assert set(names["part"]) <= set(names["object"])
    for flat in (names["object"], names["material"], names["scene"], names["texture"]):
        assert len(Labels.of(flat)) == len(flat)  # refuses repeated names


def test_broden_plus_parts_are_a_task() -> None:
    names = broden_plus()
    task = Part(parts=names["part"])
    task.bind({"object": Object(labels=names["object"])})
    assert len(task.classes) == 427
    assert task.blocks[1] == slice(2, 26)


def test_a_list_is_the_callers_own() -> None:
    vocabulary("voc").clear()
    assert len(vocabulary("voc")) == 21


@pytest.mark.parametrize("name", ["ade", "broden_plus", "../voc", ""])
def test_an_unknown_list_is_told(name: str) -> None:
    with pytest.raises(UserError, match=r"no class list '.*'; valid: ade20k, camvid, cityscapes, voc, or the names"):
        Labels.of(name)


def test_a_task_keeps_the_name_of_its_list() -> None:
    task = Object(labels="cityscapes")
    assert task.classes == Labels.of(vocabulary("cityscapes"))
    plain = to_plain(task)
    assert plain["init_args"]["labels"] == "cityscapes"
    again = from_class_path(Task, yaml.safe_load(yaml.safe_dump(plain)), "here")  # type: ignore[type-abstract]
    assert again == task


@pytest.mark.parametrize("labels", ["ade20k", ["sky", "car"], {"sky": "#87ceeb"}])
def test_a_training_file_names_a_list(labels: object, tmp_path: Path) -> None:
    task = {"class_path": "upernet.tasks.Object", "init_args": {"labels": labels}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"tasks": {"object": task}}))
    options = read_options("train", ["--config", str(tmp_path / "mine.yaml")])
    assert options["tasks"]["object"].labels == labels
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(to_plain({"tasks": options["tasks"]})))
    assert read_options("train", ["--config", str(tmp_path / "again.yaml")])["tasks"] == options["tasks"]


def test_lists_are_those_of_the_specification(spec_dir: Path) -> None:
    for name in ("ade20k", "cityscapes", "voc"):
        spec = json.loads((spec_dir / f"{name}.json").read_text())
        labels = Labels.of(name)
        assert list(labels.names) == spec["classes"]
        assert [list(colour) for colour in labels.colours] == spec["palette_rgb"]
    spec = json.loads((spec_dir / "broden_plus/labels.json").read_text())
    names = broden_plus()
    assert [names["object"], names["material"], names["scene"], names["texture"]] == [
        spec[key] for key in ("object", "material", "scene", "texture")
    ]
    groups = json.loads((spec_dir / "broden_plus/object_parts.json").read_text())["groups"]
    assert list(names["part"].items()) == [(g["object_name"], g["part_names"][1:]) for g in groups]
