"""The VOC layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from fake_data import blocks, voc
from PIL import Image
from refusals import told_by

from upernet.data import VOC
from upernet.data.sets.voc import CLASSES, PALETTE
from upernet.errors import UserError


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
    assert mask.dtype == np.int16
    assert Image.open(item.annotations["mask"]).mode == "P"  # type: ignore[arg-type]


def test_labels_are_background_and_twenty_objects() -> None:
    labels = VOC(root="").annotations["mask"].labels
    assert len(labels) == 21
    assert (labels[0], labels[8], labels[15], labels[20]) == ("background", "cat", "person", "tvmonitor")


def test_the_palette_follows_its_rule() -> None:
    """Bits of the index, three at a time to red, green and blue, from the highest bit of the colour down."""
    for number in range(256):
        expected = [sum((number >> (3 * k + channel) & 1) << (7 - k) for k in range(8)) for channel in range(3)]
        assert list(PALETTE[3 * number : 3 * number + 3]) == expected
    assert ["#" + PALETTE[3 * i : 3 * i + 3].hex() for i in range(21)] == list(CLASSES.values())
    assert (PALETTE[-3:].hex(), len({PALETTE[3 * i : 3 * i + 3] for i in range(256)})) == ("e0e0c0", 256)


def test_splits_come_from_lists(root: Path) -> None:
    assert [i.id for i in VOC(root=str(root)).items("val")] == ["2007_val_000000", "2007_val_000001"]
    with pytest.raises(UserError, match=r"Segmentation/test\.txt: no such split; found: train, val$"):
        VOC(root=str(root)).items("test")


def test_another_folder_of_masks(root: Path) -> None:
    (root / "SegmentationClass").rename(root / "SegmentationClassAug")
    items = VOC(root=str(root), masks="SegmentationClassAug").items("train")
    assert items[0].annotations["mask"] == root / "SegmentationClassAug" / f"{items[0].id}.png"


def test_a_listed_image_that_is_missing_is_told(root: Path) -> None:
    source = VOC(root=str(root))
    item = source.items("train")[0]
    item.image.unlink()
    with pytest.raises(UserError, match=r"JPEGImages/2007_train_000000\.jpg: no such file"):
        source.read(item)


@pytest.fixture
def augmented(root: Path) -> Path:
    """Two images more, with masks of SBD, and the lists that name them."""
    folder = root / "ImageSets" / "Segmentation"
    added = ["2008_000001", "2008_000002"]
    for name in added:
        shutil.copy(root / "JPEGImages" / "2007_train_000000.jpg", root / "JPEGImages" / f"{name}.jpg")
        (root / "SegmentationClassAug").mkdir(exist_ok=True)
        shutil.copy(root / "SegmentationClass/2007_train_000000.png", root / "SegmentationClassAug" / f"{name}.png")
    (folder / "aug.txt").write_text("\n".join(added))
    (folder / "trainaug.txt").write_text("\n".join([added[0], *VOC(root=str(root)).names("train"), added[1]]))
    return root


def parts(source: VOC, split: str) -> list[tuple[str, str]]:
    return [(i.id, i.annotations["mask"].parent.name) for i in source.items(split)]  # type: ignore[union-attr]


OWN = [(f"2007_train_{i:06d}", "SegmentationClass") for i in range(4)]
ADDED = [("2008_000001", "SegmentationClassAug"), ("2008_000002", "SegmentationClassAug")]


def test_trainaug_is_train_with_its_own_masks_and_then_aug(augmented: Path) -> None:
    source = VOC(root=str(augmented))
    assert parts(source, "trainaug") == OWN + ADDED
    assert parts(source, "aug") == ADDED
    assert parts(source, "train") == OWN
    assert set(source.read(source.items("trainaug")[-1])[1]) == {"mask"}


def test_a_published_trainaug_list_alone_will_do(augmented: Path) -> None:
    (augmented / "ImageSets/Segmentation/aug.txt").unlink()
    assert parts(VOC(root=str(augmented)), "trainaug") == OWN + ADDED


def test_all_masks_of_trainaug_from_one_folder(augmented: Path) -> None:
    for mask in (augmented / "SegmentationClass").glob("*train*"):
        mask.rename(augmented / "SegmentationClassAug" / mask.name)
    expected = [(name, "SegmentationClassAug") for name, _ in OWN + ADDED]
    assert parts(VOC(root=str(augmented), masks="SegmentationClassAug"), "trainaug") == expected


def test_a_trainaug_list_without_a_train_list_is_a_list_like_another(root: Path) -> None:
    folder = root / "ImageSets/Segmentation"
    (folder / "train.txt").rename(folder / "trainaug.txt")
    assert parts(VOC(root=str(root)), "trainaug") == OWN


def line(root: Path, split: str = "train") -> str:
    return told_by(lambda: VOC(root=str(root)).items(split))


def test_without_the_masks_of_sbd_the_command_that_makes_them_is_told(augmented: Path) -> None:
    command = f"run: upernet prepare voc_aug {augmented}"
    (augmented / "SegmentationClassAug/2008_000002.png").unlink()
    mask = f"{augmented}/SegmentationClassAug/2008_000002.png"
    count = "label maps of split 'trainaug' are missing"
    assert line(augmented, "trainaug") == f"{mask}: no such file; 1 of 6 {count}; {command}"
    shutil.rmtree(augmented / "SegmentationClassAug")
    assert f"2 of 6 {count}; {command}" in line(augmented, "trainaug")
    for name in ("aug", "trainaug"):
        (augmented / f"ImageSets/Segmentation/{name}.txt").unlink()
    for split in ("aug", "trainaug"):
        assert line(augmented, split) == f"{augmented}/ImageSets/Segmentation/aug.txt: no such list; {command}"


def test_wrong_and_incomplete_folders_are_told(root: Path) -> None:
    devkit = root / "VOCdevkit"
    voc2012 = voc(devkit / "VOC2012")
    for given in (devkit, voc2012 / "JPEGImages"):
        assert line(given) == f"{given}: no folder JPEGImages in it; the right folder seems to be {voc2012}"
    layout = "VOC expects JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/<split>.txt"
    assert line(root / "x").startswith(f"{root}/x: no such folder; {layout}; get VOCtrainval_11-May-2012.tar from http")
    (voc2012 / "JPEGImages/2007_val_000001.jpg").unlink()
    count = "1 of 2 images of split 'val' are missing"
    told = f"{voc2012}/JPEGImages/2007_val_000001.jpg: no such file; {count}; in {voc2012}, {layout}"
    assert line(voc2012, "val").startswith(told)
    (voc2012 / "ImageSets/Segmentation/val.txt").write_text("")
    assert line(voc2012, "val").endswith("val.txt: empty; expected one image id per line, such as 2007_000032")


def test_real_pairs(data_dir: Path) -> None:
    root = data_dir / "samples" / "voc2012" / "VOCdevkit" / "VOC2012"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    source = VOC(root=str(root))
    items = source.items("train") + source.items("val")
    assert len(items) == 10
    for item in items:
        image, values = source.read(item)
        assert image.pixels.shape[:2] == values["mask"].shape
