"""Pascal-Part-116."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fake_data import SMALL, blocks, pascal_part116
from refusals import told_by

from upernet.data import PascalPart116


def test_labels() -> None:
    annotations = PascalPart116(root="").annotations
    things, parts = annotations["object"].labels, annotations["part"].labels
    assert (len(things), things[0], things[7], things[19]) == (20, "aeroplane", "cat", "tvmonitor")
    places = {0: "aeroplane/body", 39: "car/license plate", 43: "cat/head", 94: "person/lower arm"}
    places |= {98: "pottedplant/plant", 109: "train/head", 115: "tvmonitor/screen"}
    assert {number: parts[number] for number in places} == places
    assert len(parts) == len(set(parts)) == 116
    assert {name.partition("/")[0] for name in parts} == {*things} - {"boat", "chair", "diningtable", "sofa"}


def test_objects_and_their_parts(tmp_path: Path) -> None:
    source = PascalPart116(root=str(pascal_part116(tmp_path)))
    assert len(source.items("train")) == 4
    item = source.items("val")[1]
    things = blocks(item.id, [255, 7, 0], SMALL)
    values = source.read(item)[1]
    np.testing.assert_array_equal(values["object"], np.where(things == 255, -1, things))
    expected = np.select([things == 7, things == 0], [43, 2], -1)
    expected[:12] = -1
    np.testing.assert_array_equal(values["part"], expected)
    assert {-1, 43, 2} == set(np.unique(expected))


def test_files_of_macos_are_no_pictures(tmp_path: Path) -> None:
    root = pascal_part116(tmp_path)
    assert (root / "images/train/._2008_train_000000.jpg").exists()
    assert [*PascalPart116(root=str(root)).faults("train")] == []


def test_incomplete_and_wrong_folders_are_told(tmp_path: Path) -> None:
    root = pascal_part116(tmp_path / "PascalPart116")
    mask = root / "annotations_detectron2_obj/val/2008_val_000001.png"
    mask.unlink()
    line = told_by(lambda: PascalPart116(root=str(root)).items("val"))
    assert line.startswith(f"{mask}: no such file; 1 of 2 label maps of split 'val' are missing; in {root}")
    (root / "images/train/2008_train_000000.jpg").unlink()
    line = told_by(lambda: PascalPart116(root=str(root)).items("train"))
    assert "2008_train_000000.png: no image belongs to it" in line
    line = told_by(lambda: PascalPart116(root=str(tmp_path)).items("val"))
    assert line.endswith(f"the right folder seems to be {root}")
