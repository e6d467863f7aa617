"""Broden+ in the folder of the authors' code, read in place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fake_broden import unified_parsing, words
from refusals import told_by

from upernet.cli import main
from upernet.data import BrodenPlus, UnifiedParsing
from upernet.data.faults import Kind
from upernet.data.items import Item


@pytest.fixture(scope="module")
def authors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authors' folder; not to be written to."""
    return unified_parsing(tmp_path_factory.mktemp("unifiedparsing"))


@pytest.fixture
def folder(authors: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(authors, tmp_path / "unifiedparsing"))


def test_it_holds_what_preparing_the_same_files_gives(authors: Path, tmp_path: Path) -> None:
    data = authors / "broden_dataset"
    options = {
        "ade20k": data / "ade20k",
        "pascal_context": data / "pascal/context",
        "pascal_part": data / "pascal/part",
        "opensurfaces": data / "opensurfaces",
        "dtd": data / "dtd",
    }
    assert main(["prepare", "broden_plus", str(tmp_path), *words(options), "--workers", "1"]) == 0
    ours, theirs = BrodenPlus(root=str(tmp_path)), UnifiedParsing(root=str(authors))
    assert ours.annotations == theirs.annotations
    for split, count in (("train", 15), ("val", 4)):
        assert list(theirs.faults(split)) == []
        prepared = {item.id: item for item in ours.items(split)}
        items = theirs.items(split)
        assert len(items) == count
        for item in items:
            same = prepared[item.id]
            image, values = theirs.read(item)
            assert item.size == image.size  # type: ignore[union-attr]
            if same.size != item.size:  # shrunk by the preparation, not by these fakes
                continue
            _, expected = ours.read(same)
            if "part" in values and "part" not in expected:  # annotated, but none of it can be learned
                assert (values.pop("part") == -1).all()
            assert values.keys() == expected.keys()
            for name, value in expected.items():
                np.testing.assert_array_equal(values[name], value)


def test_the_order_is_that_of_the_lists(authors: Path) -> None:
    source = UnifiedParsing(root=str(authors), subsets=["ade20k", "pascal"])
    assert list(source.annotations) == ["object", "part", "scene"]
    ids = [item.id.split("/")[1] for item in source.items("train")]
    assert ids == [*(f"ADE_train_0000000{n}" for n in (1, 2, 3, 4)), *(f"2008_00000{n}" for n in (1, 2, 3))]


def test_lists_may_lie_flat(folder: Path) -> None:
    expected = [item.id for item in UnifiedParsing(root=str(folder)).items("train")]
    for path in sorted((folder / "meta_file").rglob("*.json")):
        path.rename(folder / "meta_file" / path.name)
    assert [item.id for item in UnifiedParsing(root=str(folder)).items("train")] == expected


@pytest.mark.parametrize(
    "place", ["meta_file/ade20k/scene_categories.txt", "broden_dataset/ade20k/ADE20K_2016_07_26/sceneCategories.txt"]
)
def test_scenes_come_from_the_list_if_there_is_one(place: str, folder: Path) -> None:
    (folder / place).parent.mkdir(exist_ok=True)
    (folder / place).write_text("ADE_train_00000001 abbey\nADE_train_00000002 misc\nADE_train_00000003 lost_place\n")
    source = UnifiedParsing(root=str(folder), subsets=["ade20k"])
    (fault,) = source.faults("train")
    image = (
        folder / "broden_dataset/ade20k/ADE20K_2016_07_26/images/training/a/arrival_gate/indoor/ADE_train_00000003.jpg"
    )
    assert (fault.kind, fault.file, fault.stops) == (Kind.LABEL, image, False)
    assert fault.problem == "scene 'lost_place' of ade20k/ADE_train_00000003 is none of the 365 scenes"
    first, second, third = source.items("train")[:3]
    assert source.annotations["scene"].labels[first.annotations["scene"]] == "church/outdoor"  # type: ignore[index]
    assert "scene" not in second.annotations
    assert "scene" not in third.annotations


def test_faults_are_told(folder: Path) -> None:
    data = folder / "broden_dataset"
    (data / "pascal/VOC2010/JPEGImages/2008_000002.jpg").unlink()
    mask = data / "ade20k/ADE20K_2016_07_26/images/training/a/airport_terminal/ADE_train_00000001_seg.png"
    mask.write_bytes(mask.read_bytes()[:90])
    source = UnifiedParsing(root=str(folder), subsets=["ade20k", "pascal"])
    first, second = source.faults("train")
    assert (first.kind, first.file) == (Kind.MISSING_IMAGE, data / "pascal/VOC2010/JPEGImages/2008_000002.jpg")
    assert first.problem == "missing: pascal number 1 of broden_ade20k_pascal_train.json cannot be used"
    assert (second.kind, second.file) == (Kind.UNREADABLE, mask)
    listing = folder / "meta_file/joint_dataset/broden_os_val.json"
    listing.write_text('{"dataset": "os"}\n')
    told = told_by(lambda: UnifiedParsing(root=str(folder)).items("val"))
    assert told == f"{listing}: line 1 is no record (KeyError: 'height')"


def test_images_that_are_not_there_can_be_left_out(folder: Path) -> None:
    """A missing image, one without its label map, and a number that no collection has."""
    data = folder / "broden_dataset"
    (data / "pascal/VOC2010/JPEGImages/2008_000002.jpg").unlink()
    lost = data / "ade20k/ADE20K_2016_07_26/images/training/m/misc/ADE_train_00000004_seg.png"
    lost.unlink()
    listing = folder / "meta_file/joint_dataset/broden_ade20k_pascal_train.json"
    record = json.dumps({"dataset": "pascal", "file_index": 99999, "height": 24, "width": 32})
    listing.write_text(f"{listing.read_text()}{record}\n")
    source = UnifiedParsing(root=str(folder), subsets=["ade20k", "pascal"])
    told = told_by(lambda: source.items("train"))
    assert told == (
        f"{lost}: missing annotation: ade20k number 3 of {listing.name} cannot be used; "
        "3 of 8 images of split 'train' are missing"
    )
    items, faulty = source.listing("train").without_faults()
    ids = [item.id.split("/")[1] for item in items]
    assert ids == [*(f"ADE_train_0000000{n}" for n in (1, 2, 3)), "2008_000001", "2008_000003"]
    assert list(faulty) == ["ade20k/ADE_train_00000004", "pascal/2008_000002", "pascal/#99999"]


def test_wrong_folders_are_told(folder: Path) -> None:
    assert (
        told_by(lambda: UnifiedParsing(root=str(folder)).items("test"))
        == f"{folder}: no split 'test'; valid: train, val"
    )
    told = told_by(lambda: UnifiedParsing(root=str(folder), subsets=["coco"]).items("val"))
    assert told == f"{folder}: subset 'coco' does not exist; valid: ade20k, pascal, opensurfaces, dtd"
    shutil.rmtree(folder / "broden_dataset/dtd")
    told = told_by(lambda: UnifiedParsing(root=str(folder)).items("val"))
    assert told == f"{folder}/broden_dataset/dtd: no such folder"
    for path in (folder / "meta_file").rglob("*_val.json"):
        path.unlink()
    (folder / "meta_file/dtd/dtd_validation_list.json").write_text(json.dumps([1]))
    told = told_by(lambda: UnifiedParsing(root=str(folder)).items("val"))
    assert "dtd_validation_list.json: line 1 is no record (TypeError" in told
    (folder / "meta_file/dtd/dtd_validation_list.json").unlink()
    told = told_by(lambda: UnifiedParsing(root=str(folder)).items("val"))
    assert told.startswith(f"{folder}/meta_file: none of broden_ade20k_pascal_val.json, broden_os_val.json, ")
    shutil.rmtree(folder / "meta_file")
    told = told_by(lambda: UnifiedParsing(root=str(folder)).items("val"))
    assert told.startswith(
        f"{folder}: no folder meta_file in it; UnifiedParsing expects meta_file/ with the record lists"
    )


def test_an_item_of_another_source_is_told(authors: Path) -> None:
    item = Item("a", authors / "a.jpg")
    told = told_by(lambda: UnifiedParsing(root=str(authors)).read(item))
    assert told == f"{authors}/a.jpg: not an image of UnifiedParsing; take the items of the source"
