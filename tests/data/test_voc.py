"""The VOC layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_data import blocks, voc
from PIL import Image

from upernet.config import UserError
from upernet.data import VOC


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return voc(tmp_path)


def test_palette_masks_are_read_as_indices_and_255_is_unlabelled(root: Path) -> None:
    source = VOC(root=str(root))
    item = source.items("train")[1]
    assert item.id == "2007_train_000001"
    mask = source.read(item)[1]["mask"]
    expected = blocks(item.id, [0, 8, 15])
    expected[:2] = -1
    np.testing.assert_array_equal(mask, expected)
    assert mask.dtype == np.int64
    assert Image.open(item.annotations["mask"]).mode == "P"  # type: ignore[arg-type]


def test_labels_are_background_and_twenty_objects() -> None:
    labels = VOC(root="").annotations["mask"].labels
    assert len(labels) == 21
    assert (labels[0], labels[8], labels[15], labels[20]) == ("background", "cat", "person", "tvmonitor")


def test_splits_come_from_lists(root: Path) -> None:
    assert [i.id for i in VOC(root=str(root)).items("val")] == ["2007_val_000000", "2007_val_000001"]
    with pytest.raises(UserError, match=r"Segmentation/test\.txt: no such split; found: train, val$"):
        VOC(root=str(root)).items("test")


def test_another_folder_of_masks(root: Path) -> None:
    items = VOC(root=str(root), masks="SegmentationClassAug").items("train")
    assert items[0].annotations["mask"] == root / "SegmentationClassAug" / f"{items[0].id}.png"


def test_a_listed_image_that_is_missing_is_told(root: Path) -> None:
    source = VOC(root=str(root))
    item = source.items("train")[0]
    item.image.unlink()
    with pytest.raises(UserError, match=r"JPEGImages/2007_train_000000\.jpg: no such file"):
        source.read(item)
