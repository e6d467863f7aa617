"""SceneParse150."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_data import SMALL, ade20k, blocks
from PIL import Image
from refusals import told_by

from upernet.data import ADE20K
from upernet.errors import UserError

ORIGIN = "get ADEChallengeData2016.zip from http://sceneparsing.csail.mit.edu"
LAYOUT = "ADE20K expects images/{training,validation}/*.jpg and annotations/{training,validation}/*.png"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return ade20k(tmp_path / "ADEChallengeData2016")


def line(root: Path, split: str = "train") -> str:
    return told_by(lambda: ADE20K(root=str(root)).items(split))


def test_splits_are_the_folders(root: Path) -> None:
    source = ADE20K(root=str(root))
    assert [i.id for i in source.items("val")] == ["ADE_val_00000001", "ADE_val_00000002"]
    assert [i.image.parent for i in source.items("train")] == [root / "images" / "training"] * 4


def test_other_things_are_unlabelled_and_labels_start_at_zero(root: Path) -> None:
    source = ADE20K(root=str(root))
    item = source.items("train")[0]
    stored = blocks(item.id, [0, 1, 3, 150], SMALL)
    stored[0, :3] = 255
    Image.fromarray(stored.astype(np.uint8)).save(item.annotations["mask"])  # type: ignore[arg-type]
    image, values = source.read(item)
    expected = stored - 1  # 0 becomes -1
    expected[0, :3] = -1
    np.testing.assert_array_equal(values["mask"], expected)
    assert image.pixels.shape == (*SMALL, 3)
    assert set(np.unique(values["mask"])) == {-1, 0, 2, 149}


def test_labels() -> None:
    labels = ADE20K(root="").annotations["mask"].labels
    assert (len(labels), labels[0], labels[2], labels[149]) == (150, "wall", "sky", "flag")


def test_predictions_count_from_1() -> None:
    source = ADE20K(root="")
    assert source.prediction_ids("mask").tolist() == [*range(1, 151), 0]
    assert source.prediction_file("validation/ADE_val_00000001") == "ADE_val_00000001.png"


def test_a_value_beyond_the_classes_is_told(root: Path) -> None:
    source = ADE20K(root=str(root))
    item = source.items("train")[0]
    Image.fromarray(np.full(SMALL, 151, np.uint8)).save(item.annotations["mask"])  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"ADE_train_00000001\.png: value 151 is no label of ADE20K; valid: 0 to 150"):
        source.read(item)


def test_a_missing_folder_is_told_with_where_to_get_it(tmp_path: Path) -> None:
    assert line(tmp_path / "ade") == f"{tmp_path}/ade: no such folder; {LAYOUT}, as in ADEChallengeData2016; {ORIGIN}"


def test_another_level_is_told_with_the_right_one(root: Path) -> None:
    right = f"the right folder seems to be {root}"
    assert line(root.parent) == f"{root.parent}: no folder images in it; {right}"
    assert line(root / "images") == f"{root}/images: no folder images in it; {right}"
    assert line(root / "images" / "training") == f"{root}/images/training: no folder images in it; {right}"


def test_two_levels_up_is_told_with_the_right_one(root: Path) -> None:
    (root.parent / "data").mkdir()
    moved = root.rename(root.parent / "data" / root.name)
    assert line(root.parent) == f"{root.parent}: no folder images in it; the right folder seems to be {moved}"


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    assert line(tmp_path).startswith(f"{tmp_path}: no folder images in it; {LAYOUT}")
    (tmp_path / "images").mkdir()
    assert line(tmp_path).startswith(f"{tmp_path}: no folder annotations in it; {LAYOUT}")
    (tmp_path / "annotations").mkdir()
    told = f"{tmp_path}/images/training: no such folder; in {tmp_path}, {LAYOUT}"
    assert line(tmp_path).startswith(told)
    (tmp_path / "images" / "training").mkdir()
    assert line(tmp_path).startswith(f"{tmp_path}/images/training: no file in it ends in .jpg; in {tmp_path}, {LAYOUT}")


def test_an_unknown_split_is_told(root: Path) -> None:
    assert f"{root}/images/test: no such folder (there are training, validation);" in line(root, "test")


def test_images_without_labels_are_told(root: Path) -> None:
    masks = root / "annotations" / "training"
    for name in ("ADE_train_00000002.png", "ADE_train_00000004.png"):
        (masks / name).unlink()
    told = line(root)
    count = "no such file; 2 of 4 label maps of split 'train' are missing"
    assert told.startswith(f"{masks}/ADE_train_00000002.png: {count}; in {root}, {LAYOUT}")
    assert told.endswith(ORIGIN)
    for path in [*masks.iterdir(), masks]:
        path.rmdir() if path == masks else path.unlink()
    assert "4 of 4 label maps of split 'train' are missing" in line(root)


def test_a_real_pair(data_dir: Path) -> None:
    root = data_dir / "samples" / "ade20k_2016" / "ADEChallengeData2016"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    source = ADE20K(root=str(root))
    (item,) = source.items("train")
    image, values = source.read(item)
    assert (item.id, image.pixels.shape) == ("ADE_train_00000001", (512, 683, 3))
    stored = np.asarray(Image.open(item.annotations["mask"]))  # type: ignore[arg-type]
    np.testing.assert_array_equal(values["mask"], stored.astype(int) - 1)
    assert values["mask"].max() < 150


def test_labels_without_their_images_are_told(root: Path) -> None:
    """As where a download of the images stopped half-way."""
    for name in ("ADE_train_00000002.jpg", "ADE_train_00000003.jpg"):
        (root / "images" / "training" / name).unlink()
    mask = root / "annotations" / "training" / "ADE_train_00000002.png"
    count = "no image belongs to it; 2 of 4 label maps of split 'train' have no image"
    assert line(root).startswith(f"{mask}: {count}; in {root}, {LAYOUT}")
    assert line(root).endswith(ORIGIN)
