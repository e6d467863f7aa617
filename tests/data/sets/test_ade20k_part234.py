"""ADE20K-Part-234."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_data import SMALL, ade20k_part234, blocks
from PIL import Image
from refusals import told_by

from upernet.data import ADE20KPart234
from upernet.errors import UserError


def test_labels() -> None:
    annotations = ADE20KPart234(root="").annotations
    things, parts = annotations["object"].labels, annotations["part"].labels
    places = {0: "airplane", 8: "chair", 14: "cooking stove", 27: "person", 41: "van", 43: "washer"}
    assert {number: things[number] for number in places} == places
    places = {0: "person/arm", 9: "door/door frame", 48: "chair/leg", 53: "chest of drawers/apron", 233: "light/shade"}
    assert {number: parts[number] for number in places} == places
    assert parts[196] == "van/wheel"
    assert (len(things), len(parts), len(set(parts))) == (44, 234, 234)
    assert {name.partition("/")[0] for name in parts} == set(things)


def test_objects_from_outlines_and_parts_from_16_bits(tmp_path: Path) -> None:
    source = ADE20KPart234(root=str(ade20k_part234(tmp_path)))
    item = source.items("train")[1]
    things = blocks(item.id, [-1, 8, 41], SMALL)
    values = source.read(item)[1]
    np.testing.assert_array_equal(values["object"], things)
    np.testing.assert_array_equal(values["part"], np.select([things == 8, things == 41], [48, 196], -1))
    assert {-1, 8, 41} == set(np.unique(things))
    assert [*source.faults("val")] == []


def test_an_image_that_the_json_does_not_name_has_parts_alone(tmp_path: Path) -> None:
    source = ADE20KPart234(root=str(ade20k_part234(tmp_path)))
    items = source.items("val")
    assert [sorted(item.annotations) for item in items] == [["object", "part"], ["part"]]
    assert [*source.read(items[1])[1]] == ["part"]


def test_the_names_of_the_folders_are_splits_too(tmp_path: Path) -> None:
    source = ADE20KPart234(root=str(ade20k_part234(tmp_path)))
    assert [i.id for i in source.items("training")] == [i.id for i in source.items("train")]


def test_wrong_values_sizes_and_folders_are_told(tmp_path: Path) -> None:
    root = ade20k_part234(tmp_path / "ADE20KPart234")
    source = ADE20KPart234(root=str(root))
    item = source.items("val")[0]
    part = item.annotations["part"]
    Image.fromarray(np.full(SMALL, 234, np.uint16)).save(part)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"ADE_val_00000000\.png: value 234 is no label; valid: 0 to 233"):
        source.read(item)
    Image.new("RGB", (8, 8)).save(item.image)
    with pytest.raises(
        UserError, match=r"ade20k_instance_val\.json: mask of 32×24 pixels for an image of 8×8 \(ADE_val"
    ):
        source.read(item)
    (root / "ade20k_instance_val.json").unlink()
    line = told_by(lambda: source.items("val"))
    assert line.startswith(f"{root}/ade20k_instance_val.json: no such file for split 'val'; in {root}, ADE20KPart234")
    assert told_by(lambda: ADE20KPart234(root=str(tmp_path)).items("val")).endswith(f"seems to be {root}")
