"""The list of data sets, their published classes, and the names of those lists in YAML."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import upernet.data
from upernet.contract import Task
from upernet.data.sets import SETS, published_classes, published_parts
from upernet.data.sets.broden_plus import broden_plus
from upernet.errors import UserError
from upernet.labels import Labels
from upernet.options import read_options
from upernet.plain import from_plain, to_plain
from upernet.tasks import Object
from upernet.zoo.published import published

LISTS = [name for name, kind in SETS.items() if kind.classes]


def test_every_file_of_the_room_is_in_the_list() -> None:
    modules = {module.name for module in pkgutil.iter_modules(upernet.data.sets.__path__)}
    assert modules == SETS.keys()
    assert [kind.__module__ for kind in SETS.values()] == [f"upernet.data.sets.{name}" for name in SETS]


@pytest.mark.parametrize("name", SETS)
def test_every_set_has_its_public_name_and_its_title(name: str) -> None:
    kind = SETS[name]
    assert getattr(upernet.data, kind.__name__) is kind
    assert kind.__name__ in upernet.data.__all__
    assert kind.class_path() == f"upernet.data.{kind.__name__}"
    assert kind.title


@pytest.mark.parametrize("name", LISTS)
def test_published_classes_are_the_labels_of_the_annotation(name: str) -> None:
    (annotation,) = SETS[name](root="").annotations.values()
    assert annotation.labels == tuple(SETS[name].classes)


def test_every_published_model_has_a_known_data_set() -> None:
    assert {model.dataset for model in published()} - {"broden_plus"} <= set(LISTS)


def test_the_list_needs_no_torch() -> None:
    code = "import sys, upernet.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        ("ade20k", 150, ("wall", "#787878"), ("flag", "#5c00ff")),
        ("camvid", 11, ("Sky", "#808080"), ("Bicyclist", "#0080c0")),
        ("dms", 46, ("Animal skin", "#bcbc89"), ("Asphalt", "#898989")),
        ("cityscapes", 19, ("road", "#804080"), ("bicycle", "#770b20")),
        ("voc", 21, ("background", "#000000"), ("tvmonitor", "#004080")),
    ],
)
def test_classes_and_colours(name: str, count: int, first: tuple[str, str], last: tuple[str, str]) -> None:
    classes = published_classes(name)
    assert len(classes) == count
    items = list(classes.items())
    assert (items[0], items[-1]) == (first, last)
    labels = Labels.of(classes)
    assert (len(labels.names), len(labels.colours)) == (count, count)


@pytest.mark.parametrize(("name", "count"), [("object", 336), ("material", 26), ("scene", 365), ("texture", 47)])
def test_lists_of_broden_plus_are_those_of_the_released_heads(name: str, count: int) -> None:
    names = broden_plus()[name]  # type: ignore[literal-required]
    task = Object(labels=f"broden_plus/{name}")
    assert len(task.classes) == count
    assert task.classes == Labels.of(names)


def test_parts_of_broden_plus() -> None:
    assert published_parts("broden_plus") == broden_plus()["part"]
    assert sum(map(len, published_parts("broden_plus").values())) == 350


def test_a_list_is_the_callers_own() -> None:
    published_classes("voc").clear()
    assert len(published_classes("voc")) == 21


@pytest.mark.parametrize("name", ["ade", "broden_plus", "facade", "../voc", ""])
def test_an_unknown_list_is_told(name: str) -> None:
    with pytest.raises(
        UserError, match=r"no class list '.*'; valid: ade20k, .*, broden_plus/texture, mseg, or the names"
    ):
        _ = Object(labels=name).classes


def test_a_task_keeps_the_name_of_its_list() -> None:
    task = Object(labels="cityscapes")
    assert task.classes == Labels.of(published_classes("cityscapes"))
    plain = to_plain(task)
    assert plain["init_args"]["labels"] == "cityscapes"
    again = from_plain(Task, yaml.safe_load(yaml.safe_dump(plain)), "here")  # type: ignore[type-abstract]
    assert again == task


@pytest.mark.parametrize("labels", ["ade20k", ["sky", "car"], {"sky": "#87ceeb"}])
def test_a_training_file_names_a_list(labels: object, tmp_path: Path) -> None:
    task = {"class_path": "upernet.tasks.Object", "init_args": {"labels": labels}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"tasks": {"object": task}}))
    options = read_options("train", ["--config", str(tmp_path / "mine.yaml")])
    assert options["tasks"]["object"].labels == labels
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(to_plain({"tasks": options["tasks"]})))
    assert read_options("train", ["--config", str(tmp_path / "again.yaml")])["tasks"] == options["tasks"]


@pytest.mark.parametrize("name", ["ade20k", "cityscapes", "voc"])
def test_lists_and_counts_are_those_of_the_specification(name: str, spec_dir: Path) -> None:
    spec = json.loads((spec_dir / f"{name}.json").read_text())
    labels = Labels.of(published_classes(name))
    assert list(labels.names) == spec["classes"]
    assert [list(colour) for colour in labels.colours] == spec["palette_rgb"]
    assert dict(SETS[name].published) == spec["counts"]
