"""Data sets that are folders: images beside masks, and one folder per class."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fake_data import SCENE15, blocks, class_folder, image_mask_folder, picture
from PIL import Image

from upernet.data import ClassFolder, ImageMaskFolder
from upernet.data.faults import Kind
from upernet.data.folder import read_label_names
from upernet.errors import UserError

LABELS = ["sky", "road", "car"]


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    return image_mask_folder(tmp_path / "town", LABELS)


# --- images beside masks --------------------------------------------------------------------------------------------


def test_images_and_their_masks(masks: Path) -> None:
    source = ImageMaskFolder(root=str(masks), labels=LABELS)
    assert [item.id for item in source.items("train")] == ["train_0", "train_1", "train_2", "train_3"]
    assert [item.id for item in source.items("val")] == ["val_0", "val_1"]
    assert (source.annotations["mask"].labels, source.annotations["mask"].dense) == (tuple(LABELS), True)
    for item in source.items("train"):
        image, values = source.read(item)
        # JPEG blurs a little; the next colour of the code is 16 away.
        assert np.abs(image.pixels.astype(int) - picture(values["mask"])).mean() < 6
        assert set(np.unique(values["mask"])) == {0, 1, 2}


def test_folders_below_folders_keep_ids_apart(tmp_path: Path) -> None:
    root = image_mask_folder(tmp_path / "town", LABELS, deep=True)
    items = ImageMaskFolder(root=str(root), labels=LABELS).items("val")
    assert [item.id for item in items] == ["town/val_0", "town/val_1"]
    assert items[0].annotations["mask"] == root / "annotations/val/town/val_0.png"


def test_folders_of_other_names(tmp_path: Path) -> None:
    image_mask_folder(tmp_path, LABELS)
    (tmp_path / "images").rename(tmp_path / "photos")
    (tmp_path / "annotations").rename(tmp_path / "truth")
    source = ImageMaskFolder(root=str(tmp_path), images="photos/{split}", masks="truth/{split}", labels=LABELS)
    assert len(source.items("train")) == 4


@pytest.mark.parametrize("ignore", [255, 0, None])
def test_the_ignored_value(tmp_path: Path, ignore: int | None) -> None:
    for folder, array in (("images", np.zeros((1, 3, 3))), ("annotations", np.array([[0, 1, 255]]))):
        (tmp_path / folder / "train").mkdir(parents=True)
        Image.fromarray(array.astype(np.uint8)).save(tmp_path / folder / "train" / "one.png")
    source = ImageMaskFolder(root=str(tmp_path), labels=["a", "b"], ignore_value=ignore)
    if ignore == 255:
        assert source.read(source.items("train")[0])[1]["mask"].tolist() == [[0, 1, -1]]
    else:
        with pytest.raises(UserError, match=r"one\.png: value 255 is no label; valid: 0 to 1"):
            source.read(source.items("train")[0])
        path = tmp_path / "annotations/train/one.png"
        assert source.read_mask(path, "mask").tolist() == [[-1 if ignore == 0 else 0, 1, 255]]


def test_16_bit_masks_hold_ids_past_255(tmp_path: Path) -> None:
    labels = [f"object {i}" for i in range(335)]
    root = image_mask_folder(tmp_path, labels, values=[254, 255, 256, 334])
    source = ImageMaskFolder(root=str(root), labels=labels, ignore_value=None)
    mask = source.read(source.items("train")[0])[1]["mask"]
    np.testing.assert_array_equal(mask, blocks(f"{root.name}/train/train_0", [254, 255, 256, 334]))
    assert 255 in mask


def test_a_missing_mask_is_told(masks: Path) -> None:
    (masks / "annotations/train/train_2.png").unlink()
    with pytest.raises(UserError) as caught:
        ImageMaskFolder(root=str(masks), labels=LABELS).items("train")
    line = f"{masks / 'annotations/train/train_2.png'}: no such file; 1 of 4 label maps of split 'train' are missing"
    assert str(caught.value) == f"{line}; a label map has the name of its image and ends in .png"


def test_a_mask_without_its_image_is_a_doubt(masks: Path) -> None:
    (masks / "images/train/train_2.jpg").unlink()
    source = ImageMaskFolder(root=str(masks), labels=LABELS)
    assert len(source.items("train")) == 3
    (fault,) = source.faults("train")
    mask = masks / "annotations/train/train_2.png"
    assert (fault.kind, fault.file, fault.stops) == (Kind.MISSING_PARTNER, mask, False)


def test_a_missing_split_is_told(masks: Path) -> None:
    with pytest.raises(UserError, match=r"images/test: no images; expected files ending"):
        ImageMaskFolder(root=str(masks), labels=LABELS).items("test")


# --- label names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [["sky", "road"], {"classes": ["sky", "road"]}, {"classes": [{"name": "sky", "id": 0}, {"name": "road"}]}],
)
def test_label_names_from_json(tmp_path: Path, content: object) -> None:
    (tmp_path / "classes.json").write_text(json.dumps(content))
    assert read_label_names(tmp_path) == ("sky", "road")
    assert ImageMaskFolder(root=str(tmp_path)).annotations["mask"].labels == ("sky", "road")


def test_label_names_from_csv(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text('id,name,colour\n0,sky,#000000\n1,"road, paved",#ffffff\n')
    assert read_label_names(tmp_path) == ("sky", "road, paved")


def test_labels_that_are_given_come_first(tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text('["sky"]')
    assert ImageMaskFolder(root=str(tmp_path), labels=["road"]).annotations["mask"].labels == ("road",)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.json", "{"),
        ("classes.json", '{"names": []}'),
        ("classes.json", "3"),
        ("labels.csv", "id,colour\n0,x\n"),
    ],
)
def test_unreadable_label_names_are_told(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=f"{name}: no list of class names") as caught:
        read_label_names(tmp_path)
    assert "\n" not in str(caught.value)


def test_no_label_names_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither classes\.json nor labels\.csv in it; add one, or give labels"):
        read_label_names(tmp_path)


# --- one folder per class -------------------------------------------------------------------------------------------


def test_a_folder_per_class(tmp_path: Path) -> None:
    source = ClassFolder(root=str(class_folder(tmp_path, SCENE15)))
    assert source.annotations["label"].labels == tuple(SCENE15)
    assert not source.annotations["label"].dense
    items = source.items("train")
    assert [(i.id, i.annotations["label"]) for i in items[:3]] == [
        ("bedroom/bedroom_train_0", 0),
        ("bedroom/bedroom_train_1", 0),
        ("coast/coast_train_0", 1),
    ]
    assert (len(items), len(source.items("val"))) == (30, 15)
    image, values = source.read(items[2])
    assert image.pixels.shape == (48, 64, 3)
    assert values == {"label": 1}


def test_grey_photographs_come_as_rgb(tmp_path: Path) -> None:
    source = ClassFolder(root=str(class_folder(tmp_path, ["a"], grey=True)))
    image, _ = source.read(source.items("train")[0])
    assert image.pixels.shape[2] == 3
    assert (image.pixels[..., 0] == image.pixels[..., 2]).all()


def test_lists_hold_the_splits(tmp_path: Path) -> None:
    root = class_folder(tmp_path, ["banded", "dotted"], lists=True)
    source = ClassFolder(root=str(root), images="images", lists="labels/{split}1.txt")
    assert source.annotations["label"].labels == ("banded", "dotted")
    assert [i.id for i in source.items("val")] == ["banded/banded_val_0", "dotted/dotted_val_0"]
    assert [i.annotations["label"] for i in source.items("train")] == [0, 0, 1, 1]


def test_a_list_may_name_files_with_blanks(tmp_path: Path) -> None:
    root = class_folder(tmp_path, ["a"], lists=True)
    (root / "images/a/a_val_0.jpg").rename(root / "images/a/one two.jpg")
    (root / "labels/val1.txt").write_text("a/one two.jpg \n\n")
    items = ClassFolder(root=str(root), images="images", lists="labels/{split}1.txt").items("val")
    assert [item.image for item in items] == [root / "images/a/one two.jpg"]


def test_ids_follow_the_labels_that_are_given(tmp_path: Path) -> None:
    source = ClassFolder(root=str(class_folder(tmp_path, ["a", "b"])), labels=["b", "a"])
    assert [i.annotations["label"] for i in source.items("val")] == [1, 0]


def test_a_class_that_one_split_lacks_keeps_its_id(tmp_path: Path) -> None:
    root = class_folder(tmp_path, ["a", "b", "c"])
    (root / "images/val/a/a_val_0.jpg").unlink()
    (root / "images/val/a").rmdir()
    assert [i.annotations["label"] for i in ClassFolder(root=str(root)).items("val")] == [1, 2]


def test_an_unknown_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        ClassFolder(root=str(class_folder(tmp_path, ["a", "b"])), labels=["a"]).items("train")
    count = "2 of 4 images of split 'train' have an unknown label"
    line = f"{tmp_path}/images/train/b/b_train_0.jpg: folder 'b' is no label; {count}; labels: a"
    assert str(caught.value) == line


def test_missing_splits_and_folders_are_told(tmp_path: Path) -> None:
    root = class_folder(tmp_path / "listed", ["a"], lists=True)
    with pytest.raises(UserError, match=r"labels/test1\.txt: no such list for split 'test'"):
        ClassFolder(root=str(root), images="images", lists="labels/{split}1.txt").items("test")
    with pytest.raises(UserError, match=r"images/test: no images"):
        ClassFolder(root=str(class_folder(tmp_path / "plain", ["a"]))).items("test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no class folders; ClassFolder expects images/<split>/<class>/\*\.jpg"):
        _ = ClassFolder(root=str(tmp_path / "empty")).annotations


def test_images_and_masks_may_lie_in_one_folder(masks: Path) -> None:
    for path in (masks / "annotations" / "train").iterdir():
        path.rename(masks / "images" / "train" / path.name)
    source = ImageMaskFolder(root=str(masks), masks="images/{split}", labels=LABELS)
    items = source.items("train")
    assert [item.image.suffix for item in items] == [".jpg"] * 4
    assert set(np.unique(source.read(items[0])[1]["mask"])) == {0, 1, 2}
    for item in items:
        item.image.unlink()
    with pytest.raises(UserError, match="images/train: no images, only masks; in "):
        source.items("train")


@pytest.mark.parametrize("pattern", ["images/{subset}", "images/{", "images/{0}", "images/{split.name}"])
def test_patterns_that_hold_more_than_the_split_are_told(pattern: str, masks: Path) -> None:
    with pytest.raises(UserError) as caught:
        ImageMaskFolder(root=str(masks), images=pattern, labels=LABELS).items("train")
    assert str(caught.value) == f"images: {pattern!r} may only hold {{split}}; for example 'images/{{split}}'"


def test_a_list_that_is_no_text_is_told(tmp_path: Path) -> None:
    root = class_folder(tmp_path / "scenes", SCENE15)
    (root / "one.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"one\.txt: not a list of names \('utf-8' codec"):
        ClassFolder(root=str(root), lists="one.txt", labels=list(SCENE15)).items("train")


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_label_names_as_spreadsheets_save_them(mark: str, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(f"{mark}name,red\nsky,1\nroad,2\n", encoding="utf-8")
    assert read_label_names(tmp_path) == ("sky", "road")


@pytest.mark.parametrize("content", ['"abc"', "[]", "{}", '{"classes": "abc"}'])
def test_label_names_that_are_no_list_are_told(content: str, tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(UserError, match=r"classes\.json: no list of class names \("):
        read_label_names(tmp_path)
