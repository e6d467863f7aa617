"""Published tables of labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from fake_data import Memory, cityscapes
from refusals import told_by

from upernet.data import ADE20K, SETS, Cityscapes, ImageMaskFolder
from upernet.data.config import DataConfig, SourceConfig, TargetConfig
from upernet.data.label_tables import label_table, table_names, taxonomy_classes
from upernet.data.mixture import bind_sources
from upernet.data.sets import class_lists, published_classes
from upernet.data.sets.cityscapes import DRAWN
from upernet.labels import ClassSets, Labels
from upernet.options import read_options
from upernet.plain import to_plain
from upernet.tasks import Object

COUNTS = {
    "mseg/ade20k": (150, 9),
    "mseg/bdd": (19, 0),
    "mseg/cityscapes": (34, 8),
    "mseg/coco_panoptic": (133, 0),
    "mseg/idd": (40, 10),
    "mseg/mapillary": (66, 6),
    "mseg/sunrgbd": (37, 0),
}
"""Labels of each table, and how many of them are unlabelled."""


def members(value: str | list[str] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else value


def test_the_universal_taxonomy_has_194_classes() -> None:
    classes = taxonomy_classes("mseg")
    assert (len(classes), len(set(classes)), classes[0], classes[-1]) == (194, 194, "backpack", "window_blind")
    assert tuple(published_classes("mseg")) == classes
    assert Object(labels="mseg").classes.names == classes


@pytest.mark.parametrize("name", COUNTS)
def test_every_label_of_each_set_maps(name: str) -> None:
    table = label_table(name)
    assert (len(table), sum(value is None for value in table.values())) == COUNTS[name]
    sets = ClassSets.of([*table], Labels.of(taxonomy_classes("mseg")), table)
    assert len(sets.members) == len(table)


def test_the_seven_sets_label_all_classes() -> None:
    assert set(table_names()) == COUNTS.keys()
    named = {name for table in COUNTS for value in label_table(table).values() for name in members(value)}
    assert named == set(taxonomy_classes("mseg"))


def test_labels_that_were_divided_by_hand_are_sets() -> None:
    assert label_table("mseg/cityscapes")["rider"] == ["rider_other", "bicyclist", "motorcyclist"]
    assert label_table("mseg/coco_panoptic")["fence-merged"] == ["fence", "guard_rail"]
    assert label_table("mseg/ade20k")["glass"] == ["wine_glass", "cup"]
    assert label_table("mseg/mapillary")["Curb"] == "sidewalk_pavement"
    assert label_table("mseg/sunrgbd")["refridgerator"] == "refrigerator"
    assert label_table("mseg/idd")["animal"] is None


def test_a_table_is_the_callers_own() -> None:
    label_table("mseg/cityscapes")["rider"].append("x")  # type: ignore[union-attr]
    assert len(label_table("mseg/cityscapes")["rider"]) == 3  # type: ignore[arg-type]


def test_an_unknown_table_is_told() -> None:
    line = told_by(lambda: label_table("mseg/cityscape"))
    assert line.startswith("classes: no table 'mseg/cityscape'; valid: mseg/ade20k, mseg/bdd, mseg/cityscapes,")


def bind(source: SourceConfig) -> ClassSets:
    bound = bind_sources(DataConfig(sources={"s": source}), {"universal": Object(labels="mseg")})
    return bound["s"].supervision["universal"].sets


def test_a_source_is_trained_onto_it_in_one_line(tmp_path: Path) -> None:
    source = Cityscapes(root=str(cityscapes(tmp_path)))
    target = {"universal": TargetConfig(classes="mseg/cityscapes")}
    sets = bind(SourceConfig(dataset=source, targets=target))
    names = [[sets.classes.names[i] for i in ids] for ids in sets.members]
    assert len(names) == 19
    assert names[11] == ["person"]
    assert set(names[12]) == {"rider_other", "bicyclist", "motorcyclist"}
    assert len(sets.groups) == 19


def test_a_training_file_names_a_table_and_keeps_its_name(tmp_path: Path) -> None:
    dataset = {"class_path": "upernet.data.Cityscapes", "init_args": {"root": "data/cityscapes"}}
    city = {"dataset": dataset, "targets": {"universal": {"classes": "mseg/cityscapes"}}}
    task = {"class_path": "upernet.tasks.Object", "init_args": {"labels": "mseg"}}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"tasks": {"universal": task}, "data": {"sources": {"city": city}}}))
    options = read_options("train", ["--config", str(path)])
    assert options["data"].sources["city"].targets["universal"].classes == "mseg/cityscapes"
    path.write_text(yaml.safe_dump(to_plain({key: options[key] for key in ("tasks", "data")})))
    assert read_options("train", ["--config", str(path)]) == options
    (tmp_path / "other.yaml").write_text(
        f"base: {path}\ndata: {{sources: {{city: {{targets: {{universal: {{classes: {{road: road}}}}}}}}}}}}"
    )
    changed = read_options("train", ["--config", str(tmp_path / "other.yaml")])
    assert changed["data"].sources["city"].targets["universal"].classes == {"road": "road"}


def test_labels_that_a_table_lacks_are_told() -> None:
    dataset = Memory(labels=["road", "Gehweg", "Rad"])
    target = {"universal": TargetConfig(classes="mseg/cityscapes")}
    line = told_by(lambda: bind(SourceConfig(dataset=dataset, targets=target)))
    problem = "2 of 3 labels are not in table 'mseg/cityscapes': Gehweg, Rad; give a mapping in place of its name"
    assert line == f"source 's', target 'universal': {problem}"


def test_a_table_of_other_classes_is_told() -> None:
    config = DataConfig(
        sources={"s": SourceConfig(dataset=Cityscapes(root=""), targets={"o": TargetConfig(classes="mseg/cityscapes")})}
    )
    line = told_by(lambda: bind_sources(config, {"o": Object(labels=["road", "car"])}))
    assert line.startswith("source 's', target 'o': unknown class 'sidewalk_pavement'; ")


def test_lists_of_classes_have_names_of_their_own() -> None:
    lists = class_lists()
    assert len(lists) == len(set(lists))
    assert {"ade20k", "dms", "mseg", "broden_plus/object"} < set(lists)
    counts = {"object": 336, "scene": 365, "material": 26, "texture": 47}
    for key, count in counts.items():
        classes = published_classes(f"broden_plus/{key}")
        assert len(Labels.of(classes)) == count
    assert set(SETS) >= {"dms", "part_imagenet", "pascal_part116", "ade20k_part234"}


def test_labels_stand_in_the_order_of_their_ids(data_dir: Path) -> None:
    """As in a real label map of SUN RGB-D, whose 255 is unlabelled: a folder of such files needs no more than names."""
    folder = data_dir / "samples" / "sunrgbd"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    names = [*label_table("mseg/sunrgbd")]
    source = ImageMaskFolder(root=str(folder), labels=names, images="image/{split}", masks="semseg-label37/{split}")
    sets = bind(SourceConfig(dataset=source, targets={"universal": TargetConfig(classes="mseg/sunrgbd")}))
    mask = source.read_mask(folder / "semseg-label37/train/00000001.png", "mask")
    ids = np.unique(mask[mask >= 0])
    shown = {sets.classes.names[i] for label in ids for i in sets.members[label]}
    assert {"wall", "floor", "table", "chair_other", "window"} < shown
    assert "whiteboard" not in shown


def test_the_order_is_that_of_our_sources() -> None:
    assert tuple(label_table("mseg/ade20k")) == ADE20K(root="").annotations["mask"].labels
    assert list(label_table("mseg/cityscapes")) == [label.name for label in DRAWN]
    assert tuple(label_table("mseg/bdd")) == Cityscapes(root="").annotations["mask"].labels
