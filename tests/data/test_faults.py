"""Faults of a split as values: all of them, in order, with their files."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fake_data import Memory, ade20k, blocks, class_folder, image_mask_folder, voc
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import upernet.data.source
from upernet.cli import main
from upernet.data import ADE20K, VOC, Annotation, ClassFolder, ImageMaskFolder, Item, Source
from upernet.data.faults import Fault, FaultError, Kind
from upernet.errors import UserError

LABELS = ["sky", "road", "car"]


def kinds_and_files(source: Source, split: str = "train", read: bool = True) -> list[tuple[Kind, str]]:
    return [(fault.kind, fault.file.name) for fault in source.faults(split, read)]


def save_mask(path: Path, value: int, size: tuple[int, int] = (48, 64)) -> None:
    Image.fromarray(np.full(size, value, np.uint8)).save(path)


# --- one fault ------------------------------------------------------------------------------------------------------


def test_a_fault_is_one_line() -> None:
    fault = Fault(Kind.SIZE, Path("a.png"), "too small", "valid: larger")
    assert str(fault) == "a.png: too small; valid: larger"
    assert fault.line("2 of 3") == "a.png: too small; 2 of 3; valid: larger"
    assert str(Fault(Kind.SIZE, Path("a.png"), "too small")) == "a.png: too small"


@pytest.mark.parametrize(
    ("text", "file", "said", "valid"),
    [
        ("/data/a.png: empty; valid: more; or less", "/data/a.png", "empty", "valid: more; or less"),
        ("/data: no such folder", "/data", "no such folder", ""),
        ("no rows for split: train", "/data", "no rows for split: train", ""),
    ],
)
def test_an_error_becomes_a_fault_of_the_file_that_it_names(text: str, file: str, said: str, valid: str) -> None:
    fault = Fault.from_error(Kind.LISTING, UserError(text), Path("/data"))
    assert fault == Fault(Kind.LISTING, Path(file), said, valid)


def test_a_file_may_have_a_colon_in_its_name() -> None:
    file = Path("/data: mine/a.png")
    assert Fault.from_error(Kind.UNREADABLE, UserError(f"{file}: empty"), file) == Fault(
        Kind.UNREADABLE, file, "empty", ""
    )


def test_an_error_that_is_a_fault_keeps_its_kind() -> None:
    fault = Fault(Kind.LABEL, Path("a.png"), "value 9 is no label")
    assert Fault.from_error(Kind.UNREADABLE, FaultError(fault), Path("b.png")) is fault
    again = pickle.loads(pickle.dumps(FaultError(fault)))
    assert (again.fault, str(again)) == (fault, "a.png: value 9 is no label")


# --- all faults of a split ------------------------------------------------------------------------------------------


@pytest.fixture
def town(tmp_path: Path) -> Path:
    """Ten images beside masks, of which nothing is wrong."""
    return image_mask_folder(tmp_path / "town", LABELS, counts={"train": 10})


def test_a_sound_split_has_no_fault(town: Path) -> None:
    assert list(ImageMaskFolder(root=str(town), labels=LABELS).faults("train")) == []


def test_every_fault_of_a_folder_is_listed_in_order(town: Path) -> None:
    images, masks = town / "images/train", town / "annotations/train"
    (masks / "train_1.png").unlink()
    (masks / "train_7.png").unlink()
    (images / "train_2.jpg").unlink()
    Image.open(images / "train_3.jpg").save(images / "train_3.png")
    save_mask(masks / "train_4.png", 0, (48, 60))
    save_mask(masks / "train_5.png", 3)
    save_mask(masks / "train_6.png", 200, (8, 8))
    (images / "train_8.jpg").write_bytes(b"")
    (masks / "train_8.png").write_bytes(b"\x89PNG")
    source = ImageMaskFolder(root=str(town), labels=LABELS)
    assert kinds_and_files(source) == [
        (Kind.MISSING_MASK, "train_1.png"),
        (Kind.MISSING_MASK, "train_7.png"),
        (Kind.MISSING_PARTNER, "train_2.png"),
        (Kind.DUPLICATE, "train_3.png"),
        (Kind.SIZE, "train_4.png"),
        (Kind.LABEL, "train_5.png"),
        (Kind.SIZE, "train_6.png"),
        (Kind.LABEL, "train_6.png"),
        (Kind.UNREADABLE, "train_8.jpg"),
        (Kind.UNREADABLE, "train_8.png"),
    ]
    lines = [str(fault) for fault in source.faults("train")]
    assert lines[4] == f"{masks}/train_4.png: mask of 60×48 pixels for an image of 64×48 (train_4.jpg)"
    assert lines[5] == f"{masks}/train_5.png: value 3 is no label; valid: 0 to 2, or the ignored value"
    assert lines[8] == f"{images}/train_8.jpg: empty file (0 bytes); expected an image"
    assert all(line.startswith(f"{town}/") and "\n" not in line for line in lines)
    with pytest.raises(UserError) as caught:
        source.items("train")
    assert "train_1.png: no such file; 2 of 10 label maps of split 'train' are missing; " in str(caught.value)


def test_every_fault_of_a_list_is_listed_in_order(tmp_path: Path) -> None:
    root = voc(tmp_path, counts={"train": 6})
    names = [f"2007_train_{i:06d}" for i in range(6)]
    (root / f"JPEGImages/{names[1]}.jpg").unlink()
    for number in (2, 4):
        (root / f"JPEGImages/{names[number]}.jpg").unlink()
        (root / f"SegmentationClass/{names[number]}.png").unlink()
    save_mask(root / f"SegmentationClass/{names[3]}.png", 21)
    (root / "ImageSets/Segmentation/train.txt").write_text("\n".join([*names, names[5]]))
    assert kinds_and_files(VOC(root=str(root))) == [
        (Kind.MISSING_IMAGE, f"{names[1]}.jpg"),
        (Kind.MISSING_IMAGE, f"{names[2]}.jpg"),
        (Kind.MISSING_IMAGE, f"{names[4]}.jpg"),
        (Kind.MISSING_MASK, f"{names[2]}.png"),
        (Kind.MISSING_MASK, f"{names[4]}.png"),
        (Kind.DUPLICATE, f"{names[5]}.jpg"),
        (Kind.LABEL, f"{names[3]}.png"),
    ]


def test_an_image_that_is_named_twice_is_no_reason_to_stop(tmp_path: Path) -> None:
    root = voc(tmp_path, counts={"train": 2})
    listing = root / "ImageSets/Segmentation/train.txt"
    listing.write_text(listing.read_text() * 2)
    source = VOC(root=str(root))
    assert len(source.items("train")) == 4
    assert [(fault.kind, fault.stops) for fault in source.faults("train")] == [(Kind.DUPLICATE, False)] * 2


def test_a_data_set_that_checks_its_own_values(tmp_path: Path) -> None:
    root = ade20k(tmp_path / "ADEChallengeData2016")
    save_mask(root / "annotations/training/ADE_train_00000001.png", 151, (24, 32))
    (fault,) = ADE20K(root=str(root)).faults("train")
    valid = "valid: 0 to 150, and 255 for unlabelled"
    assert (fault.kind, fault.problem, fault.valid) == (Kind.LABEL, "value 151 is no label of ADE20K", valid)


def test_folders_that_are_no_label_and_images_that_cannot_be_read(tmp_path: Path) -> None:
    root = class_folder(tmp_path, ["a", "b"])
    (root / "images/train/a/a_train_1.jpg").write_bytes(b"no image")
    assert kinds_and_files(ClassFolder(root=str(root), labels=["a"])) == [
        (Kind.LABEL, "b_train_0.jpg"),
        (Kind.LABEL, "b_train_1.jpg"),
        (Kind.UNREADABLE, "a_train_1.jpg"),
    ]


@pytest.mark.parametrize(
    ("split", "labels", "said"),
    [("test", LABELS, "no images"), ("train", [], "neither classes.json nor labels.csv in it")],
)
def test_what_cannot_be_listed_is_the_only_fault(town: Path, split: str, labels: list[str], said: str) -> None:
    (fault,) = ImageMaskFolder(root=str(town), labels=labels).faults(split)
    assert (fault.kind, fault.problem) == (Kind.LISTING, said)
    assert fault.file == (town / "images/test" if labels else town)


def test_a_folder_that_is_not_there_is_the_only_fault(tmp_path: Path) -> None:
    (fault,) = ADE20K(root=str(tmp_path / "ade")).faults("train")
    assert (fault.kind, fault.file, fault.problem) == (Kind.LISTING, tmp_path / "ade", "no such folder")
    assert fault.valid.startswith("ADE20K expects images/{training,validation}/*.jpg")


def test_names_alone_open_no_file(town: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (town / "annotations/train/train_0.png").unlink()
    (town / "images/train/train_1.jpg").write_bytes(b"")

    def opened(*_: object) -> None:
        raise AssertionError("a file is opened")

    monkeypatch.setattr(upernet.data.source, "open_image", opened)
    monkeypatch.setattr(upernet.data.folder, "read_mask", opened)
    source = ImageMaskFolder(root=str(town), labels=LABELS)
    assert kinds_and_files(source, read=False) == [(Kind.MISSING_MASK, "train_0.png")]


def test_faults_come_one_by_one(town: Path) -> None:
    """So that they can be told while the reading goes on."""
    for path in (town / "images/train").iterdir():
        path.write_bytes(b"")
    source = ImageMaskFolder(root=str(town), labels=LABELS)
    faults = source.faults("train")
    next(faults)
    for path in (town / "images/train").glob("train_[1-9].jpg"):
        path.unlink()
    assert "no such file" in str(next(faults))


def test_an_image_may_be_looked_at_by_another_process(town: Path) -> None:
    save_mask(town / "annotations/train/train_0.png", 9)
    source = ImageMaskFolder(root=str(town), labels=LABELS)
    there, item = pickle.loads(pickle.dumps((source, source.listing("train").items[0])))
    faults = list(there.item_faults(item))
    assert faults == list(source.faults("train"))
    assert pickle.loads(pickle.dumps(faults)) == faults


DAMAGES: dict[str, tuple[Kind, Any]] = {
    "no mask": (Kind.MISSING_MASK, lambda image, mask: mask.unlink()),
    "no image": (Kind.MISSING_PARTNER, lambda image, mask: image.unlink()),
    "empty image": (Kind.UNREADABLE, lambda image, mask: image.write_bytes(b"")),
    "half an image": (Kind.UNREADABLE, lambda image, mask: image.write_bytes(image.read_bytes()[:300])),
    "half a mask": (Kind.UNREADABLE, lambda image, mask: mask.write_bytes(mask.read_bytes()[:90])),
    "colours": (Kind.UNREADABLE, lambda image, mask: Image.new("RGB", (64, 48), "red").save(mask)),
    "size": (Kind.SIZE, lambda image, mask: save_mask(mask, 0, (48, 63))),
    "label": (Kind.LABEL, lambda image, mask: save_mask(mask, 3)),
}


@given(st.lists(st.sampled_from(["", *DAMAGES]), min_size=1, max_size=8))
@settings(max_examples=25, deadline=None)
def test_exactly_the_damaged_samples_are_listed(tmp_path_factory: pytest.TempPathFactory, damages: list[str]) -> None:
    root = image_mask_folder(tmp_path_factory.mktemp("some"), LABELS, counts={"train": len(damages) + 1})
    expected = set()
    for number, damage in enumerate(damages):
        if damage:
            kind, do = DAMAGES[damage]
            do(root / f"images/train/train_{number}.jpg", root / f"annotations/train/train_{number}.png")
            expected.add((kind, f"train_{number}"))
    faults = list(ImageMaskFolder(root=str(root), labels=LABELS).faults("train"))
    assert len(faults) == len(expected)
    assert {(fault.kind, fault.file.stem) for fault in faults} == expected


# --- a stranger's source --------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Strangers(Source):
    """It defines what it must, and no more."""

    names: list[str] = field(default_factory=list)

    @property
    def annotations(self) -> dict[str, Annotation]:
        return {"mask": Annotation(tuple(LABELS), dense=True), "kind": Annotation(("x", "y"), dense=False)}

    def items(self, split: str) -> list[Item]:
        if split != "train":
            raise UserError(f"no rows for split {split!r}; valid: train")
        folder = self.folder
        return [Item(n, folder / f"{n}.jpg", {"mask": folder / f"{n}.png", "kind": 1}) for n in self.names]


def strangers(folder: Path, *names: str) -> Strangers:
    for name in names:
        Image.new("RGB", (64, 48)).save(folder / f"{name}.jpg")
        Image.fromarray(blocks(name, [0, 2]).astype(np.uint8)).save(folder / f"{name}.png")
    return Strangers(root=str(folder), names=list(names))


def test_a_strangers_source_lists_its_faults(tmp_path: Path) -> None:
    source = strangers(tmp_path, "a", "b", "c")
    assert list(source.faults("train")) == []
    (tmp_path / "a.png").unlink()
    save_mask(tmp_path / "b.png", 7)
    assert kinds_and_files(source) == [(Kind.MISSING_MASK, "a.png"), (Kind.LABEL, "b.png")]
    assert len(source.items("train")) == 3
    with pytest.raises(UserError, match=r"a\.png: no such file; 1 of 3 label maps of split 'train' are missing; in "):
        source.listing("train").checked()


def test_what_a_strangers_items_raise_is_a_fault(tmp_path: Path) -> None:
    (fault,) = strangers(tmp_path, "a").faults("val")
    assert fault == Fault(Kind.LISTING, tmp_path, "no rows for split 'val'", "valid: train")


@dataclass(kw_only=True)
class Even(ImageMaskFolder):
    """Every other image of a folder."""

    def items(self, split: str) -> list[Item]:
        return super().items(split)[::2]


def test_a_subclass_may_choose_among_the_images(town: Path) -> None:
    save_mask(town / "annotations/train/train_1.png", 9)
    save_mask(town / "annotations/train/train_2.png", 9)
    source = Even(root=str(town), labels=LABELS)
    assert [item.id for item in source.listing("train").checked()] == [f"train_{i}" for i in range(0, 10, 2)]
    assert kinds_and_files(source) == [(Kind.LABEL, "train_2.png")]
    (town / "annotations/train/train_3.png").unlink()
    assert kinds_and_files(source) == [(Kind.LISTING, "train_3.png")]


def test_a_strangers_empty_split_is_told(tmp_path: Path) -> None:
    source = strangers(tmp_path)
    assert [str(fault) for fault in source.faults("train")] == [
        f"{tmp_path}: no images in split 'train'; Strangers expects its images and annotations"
    ]
    with pytest.raises(UserError, match="no images in split 'train'"):
        source.listing("train").checked()


def test_a_label_of_an_image_that_is_none_is_told(tmp_path: Path) -> None:
    class Wrong(Strangers):
        def items(self, split: str) -> list[Item]:
            return [Item(i.id, i.image, {"kind": number}) for number, i in enumerate(super().items(split), start=-1)]

    source = Wrong(root=strangers(tmp_path, "a", "b", "c", "d").root, names=["a", "b", "c", "d"])
    (fault,) = source.faults("train")
    assert str(fault) == f"{tmp_path}/d.jpg: kind 2 is no label; valid: 0 to 1"


def test_what_a_strangers_own_reading_finds(tmp_path: Path) -> None:
    class Drawn(Memory):
        def read(self, item: Item) -> tuple[np.ndarray, dict[str, Any]]:
            image, values = super().read(item)
            if item.id == "train_1":
                raise UserError("broken row 1; valid: a whole one")
            if item.id == "train_2":
                values["given"][0, 0] = 3
            if item.id == "train_3":
                values["given"] = values["given"][1:]
            return image, values

    here = Path(Memory(root=".").items("train")[0].image)
    faults = list(Drawn(root=str(tmp_path)).faults("train"))
    assert [(fault.kind, fault.file) for fault in faults if fault.kind is not Kind.DUPLICATE] == [
        (Kind.UNREADABLE, here),
        (Kind.LABEL, here),
        (Kind.SIZE, here),
    ]


def test_a_read_mask_without_annotation_is_told_where_it_is_written() -> None:
    with pytest.raises(UserError) as caught:

        class Old(Strangers):
            def read_mask(self, path: Path) -> np.ndarray:  # type: ignore[override]
                return np.zeros((1, 1))

    name = f"{__name__}.test_a_read_mask_without_annotation_is_told_where_it_is_written.<locals>.Old"
    line = "takes no annotation; valid: read_mask(self, path, annotation)"
    assert str(caught.value) == f"{name}.read_mask(self, path: 'Path') -> 'np.ndarray': {line}"


def test_a_module_with_an_old_read_mask_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old_rooms.py").write_text(
        "from upernet.data import ImageMaskFolder\n\n"
        "class Rooms(ImageMaskFolder):\n    def read_mask(self, path):\n        return super().read_mask(path)\n"
    )
    dataset = {"class_path": "old_rooms.Rooms", "init_args": {"root": "."}}
    content = {
        "tasks": {"it": {"class_path": "upernet.tasks.Object", "init_args": {"labels": ["a"]}}},
        "data": {"sources": {"rooms": {"dataset": dataset, "targets": {"it": {}}}}},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["train", "--config", str(tmp_path / "mine.yaml")]) == 2
    out, err = capsys.readouterr()
    line = "old_rooms.Rooms.read_mask(self, path): takes no annotation; valid: read_mask(self, path, annotation)"
    assert (out, err) == ("", f"upernet: {tmp_path / 'mine.yaml'}: {line}\n")
