"""PartImageNet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fake_data import SMALL, blocks, part_imagenet
from refusals import told_by

from upernet.data import PartImageNet


def test_labels() -> None:
    annotations = PartImageNet(root="").annotations
    things, parts = annotations["object"].labels, annotations["part"].labels
    assert (len(things), things[0], things[10]) == (11, "Quadruped", "Bottle")
    places = {0: "Quadruped/Head", 6: "Biped/Hand", 26: "Car/Side Mirror", 27: "Bicycle/Body", 35: "Aeroplane/Engine"}
    places |= {38: "Bottle/Mouth", 39: "Bottle/Body"}
    assert {number: parts[number] for number in places} == places
    assert len(parts) == len(set(parts)) == 40


@pytest.mark.parametrize("by_kind", [False, True])
def test_both_layouts(by_kind: bool, tmp_path: Path) -> None:
    source = PartImageNet(root=str(part_imagenet(tmp_path, by_kind=by_kind)))
    items = source.items("train")
    assert [item.id for item in items] == ["n01440764_0", "n02823428_1", "n01440764_2", "n02823428_3"]
    assert items[1].image == tmp_path / ("images/train" if by_kind else "train/n02823428") / "n02823428_1.JPEG"
    for item, values in ((items[0], [-1, 9, 12]), (items[1], [-1, 38, 39])):
        parts = blocks(f"train/{item.image.name}", values, SMALL)
        drawn = source.read(item)[1]
        np.testing.assert_array_equal(drawn["part"], parts)
        np.testing.assert_array_equal(drawn["object"], np.where(parts < 0, -1, 2 if values[1] == 9 else 10))
        assert set(np.unique(parts)) == set(values)
    assert [*source.faults("val")] == []


def test_of_two_parts_the_smaller_one_lies_on_top(tmp_path: Path) -> None:
    root = part_imagenet(tmp_path, counts={"train": 1})
    path = root / "train.json"
    content = json.loads(path.read_text())
    whole, eye = [0, 0, 32, 0, 32, 24, 0, 24], [4, 4, 6, 4, 6, 6, 4, 6]
    content["annotations"] = [
        {"image_id": 0, "category_id": 9, "segmentation": [eye], "area": 4},
        {"image_id": 0, "category_id": 10, "segmentation": [whole], "area": 768},
    ]
    path.write_text(json.dumps(content))
    source = PartImageNet(root=str(root))
    parts = source.read(source.items("train")[0])[1]["part"]
    assert (parts == 9).sum() == 4
    assert (parts[4:6, 4:6] == 9).all()
    assert (parts == 10).sum() == 764


def test_missing_pictures_files_and_folders_are_told(tmp_path: Path) -> None:
    root = part_imagenet(tmp_path / "PartImageNet")
    (root / "val/n01440764/n01440764_0.JPEG").unlink()
    line = told_by(lambda: PartImageNet(root=str(root)).items("val"))
    assert line.startswith(
        f"{root}/val/n01440764/n01440764_0.JPEG: no such file; 1 of 2 images of split 'val' are missing"
    )
    line = told_by(lambda: PartImageNet(root=str(root)).items("test"))
    assert line.startswith(f"{root}/test.json: no such file for split 'test'; in {root}, PartImageNet expects")
    assert line.endswith("get https://github.com/TACJu/PartImageNet")
    line = told_by(lambda: PartImageNet(root=str(tmp_path)).items("val"))
    assert line.endswith(f"the right folder seems to be {root}")


def test_a_category_of_another_file_is_told(tmp_path: Path) -> None:
    root = part_imagenet(tmp_path)
    path = root / "train.json"
    path.write_text(path.read_text().replace("Fish Head", "tench"))
    source = PartImageNet(root=str(root))
    line = told_by(lambda: source.read(source.items("train")[0]))
    assert line.startswith(f"{path}: category 'tench' is no label; valid: Quadruped Head, ")
