"""Cityscapes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fake_data import CITYSCAPES_IDS, SMALL, as_train_ids, blocks, cityscapes
from PIL import Image
from refusals import told_by

from upernet.data import Cityscapes
from upernet.data.sets.cityscapes import CLASSES, DRAWN, LABELS
from upernet.errors import UserError

LAYOUT = "leftImg8bit/<split>/<city>/*_leftImg8bit.png and gtFine/<split>/<city>/*_gtFine_labelTrainIds.png"


def line(root: Path, split: str = "train") -> str:
    return told_by(lambda: Cityscapes(root=str(root)).items(split))


def test_images_of_all_cities_with_their_train_ids(tmp_path: Path) -> None:
    source = Cityscapes(root=str(cityscapes(tmp_path)))
    items = source.items("train")
    cities = ["traintown0", "traintown0", "traintown1", "traintown1"]
    assert [i.image.parent.name for i in items] == cities
    assert [i.id for i in items][:2] == ["traintown0_000000_000019", "traintown0_000002_000019"]
    assert len(source.items("val")) == 2
    expected = as_train_ids(blocks(items[0].id, list(CITYSCAPES_IDS.values()), SMALL))
    expected[expected == 255] = -1
    np.testing.assert_array_equal(source.read(items[0])[1]["mask"], expected)
    assert {-1, 2, 10} <= set(np.unique(expected))


def test_the_test_split_has_no_labels(tmp_path: Path) -> None:
    source = Cityscapes(root=str(cityscapes(tmp_path)))
    (item,) = source.items("test")
    assert item.annotations == {}
    image, values = source.read(item)
    assert (image.pixels.shape, values) == ((*SMALL, 3), {})


def test_labels() -> None:
    labels = Cityscapes(root="").annotations["mask"].labels
    assert (len(labels), labels[0], labels[13], labels[18]) == (19, "road", "car", "bicycle")


def test_the_table_is_that_of_the_specification(spec_dir: Path) -> None:
    spec = json.loads((spec_dir / "cityscapes.json").read_text())
    rows = [(o["name"], o["id"], o["trainId"], "#" + bytes(o["color"]).hex()) for o in spec["labels"]]
    assert list(map(tuple, LABELS)) == rows
    assert [label.id for label in DRAWN] == list(range(34))
    assert [label.train_id for label in CLASSES] == list(range(19))


def test_predictions_have_the_label_ids_and_names_of_the_server(spec_dir: Path) -> None:
    source = Cityscapes(root="")
    table = json.loads((spec_dir / "cityscapes.json").read_text())["trainId_to_id"]
    assert source.prediction_ids("mask").tolist() == [*(table[str(i)] for i in range(19)), 0]
    for item in ("frankfurt_000000_000294", "val/frankfurt/frankfurt_000000_000294_leftImg8bit"):
        assert source.prediction_file(item) == "frankfurt_000000_000294_predicted.png"
    with pytest.raises(
        UserError, match="image 'street' has no name of Cityscapes; for example frankfurt_000000_000294"
    ):
        source.prediction_file("street")


@pytest.mark.parametrize("form", ["polygons", "label_ids"])
def test_without_train_ids_the_command_that_makes_them_is_told(form: str, tmp_path: Path) -> None:
    cityscapes(tmp_path, train_ids=False, **{form: True})  # type: ignore[arg-type]
    mask = tmp_path / "gtFine/val/valtown0/valtown0_000000_000019_gtFine_labelTrainIds.png"
    count = "2 of 2 label maps of split 'val' are missing"
    assert line(tmp_path, "val") == f"{mask}: no such file; {count}; run: upernet prepare cityscapes {tmp_path}"


def test_without_any_annotation_it_is_told_where_to_get_them(tmp_path: Path) -> None:
    shutil.rmtree(cityscapes(tmp_path) / "gtFine")
    told = line(tmp_path)
    assert "4 of 4 label maps of split 'train' are missing" in told
    assert f"in {tmp_path}, Cityscapes expects {LAYOUT}; get leftImg8bit_trainvaltest.zip" in told


def test_wrong_and_empty_folders_are_told(tmp_path: Path) -> None:
    root = cityscapes(tmp_path / "cityscapes")
    right = f"the right folder seems to be {root}"
    assert line(tmp_path) == f"{tmp_path}: no folder leftImg8bit in it; {right}"
    assert line(root / "leftImg8bit").endswith(right)
    assert line(tmp_path / "x") == (
        f"{tmp_path}/x: no such folder; Cityscapes expects {LAYOUT}; get leftImg8bit_trainvaltest.zip and "
        "gtFine_trainvaltest.zip from https://www.cityscapes-dataset.com"
    )
    assert f"{root}/leftImg8bit/dev: no such folder (there are test, train, val); in {root}" in line(root, "dev")
    for path in (root / "leftImg8bit/val").rglob("*.png"):
        path.unlink()
    assert f"{root}/leftImg8bit/val: no file in it ends in _leftImg8bit.png; in {root}" in line(root, "val")


def test_label_ids_in_place_of_train_ids_are_told(tmp_path: Path) -> None:
    source = Cityscapes(root=str(cityscapes(tmp_path)))
    item = source.items("val")[0]
    Image.fromarray(np.full(SMALL, 26, np.uint8)).save(item.annotations["mask"])  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"labelTrainIds\.png: value 26 is no label; valid: 0 to 18"):
        source.read(item)


def test_a_real_image(data_dir: Path) -> None:
    root = data_dir / "samples" / "cityscapes"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    source = Cityscapes(root=str(root))
    (item,) = source.items("val")
    image, values = source.read(item)
    assert (item.id, image.pixels.shape) == ("frankfurt_000000_000294", (128, 256, 3))
    stored = np.asarray(Image.open(item.annotations["mask"])).astype(int)  # type: ignore[arg-type]
    np.testing.assert_array_equal(values["mask"], np.where(stored == 255, -1, stored))


def test_labels_without_their_images_are_told(tmp_path: Path) -> None:
    """As where a city is missing."""
    root = cityscapes(tmp_path)
    shutil.rmtree(root / "leftImg8bit" / "train" / "traintown0")
    told = line(root)
    assert "/gtFine/train/traintown0/traintown0_000000_000019_gtFine_labelTrainIds.png: no image belongs to it" in told
    assert "2 of 4 label maps of split 'train' have no image" in told
