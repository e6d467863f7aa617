"""The contract of a source: where its folder is, and what reading an item checks."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_data import Memory
from PIL import Image

from upernet.data import Annotation, ImageMaskFolder, Item, Source
from upernet.errors import UserError
from upernet.plain import from_plain, to_plain


@dataclass(kw_only=True)
class Pair(Source):
    """One image beside one mask of three labels."""

    layout = "one.png and mask.png"

    @property
    def annotations(self) -> dict[str, Annotation]:
        return {"mask": Annotation(("a", "b", "c"), dense=True), "kind": Annotation(("x", "y"), dense=False)}

    def items(self, split: str) -> list[Item]:
        return [Item("one", self.folder / "one.png", {"mask": self.folder / "mask.png", "kind": 1})]


def pair(folder: Path, mask: np.ndarray, image_size: tuple[int, int] = (2, 3)) -> Pair:
    Image.fromarray(np.full((*image_size, 3), 7, np.uint8)).save(folder / "one.png")
    Image.fromarray(mask.astype(np.uint8)).save(folder / "mask.png")
    return Pair(root=str(folder))


def test_an_item_is_read_as_arrays(tmp_path: Path) -> None:
    mask = np.array([[0, 1, 2], [2, 1, 0]])
    source = pair(tmp_path, mask)
    (item,) = source.items("train")
    image, values = source.read(item)
    assert (image.pixels.shape, image.pixels.dtype) == ((2, 3, 3), np.uint8)
    assert (values["mask"].dtype, values["mask"].tolist()) == (np.int16, mask.tolist())
    assert values["kind"] == 1


def test_a_missing_annotation_is_a_missing_key(tmp_path: Path) -> None:
    source = pair(tmp_path, np.zeros((2, 3)))
    assert set(source.read(Item("one", tmp_path / "one.png", {"kind": 0}))[1]) == {"kind"}


@pytest.mark.parametrize(("size", "told"), [((4, 3), "3×4"), ((3, 2), "2×3")])
def test_a_mask_of_another_size_is_told(tmp_path: Path, size: tuple[int, int], told: str) -> None:
    source = pair(tmp_path, np.zeros(size))
    with pytest.raises(UserError) as caught:
        source.read(source.items("train")[0])
    line = f"{tmp_path / 'mask.png'}: mask of {told} pixels for an image of 3×2 (one.png)"
    assert str(caught.value) == line
    assert pickle.loads(pickle.dumps(caught.value)).fault == caught.value.fault  # type: ignore[attr-defined]


@pytest.mark.parametrize("values", [[0, 3, 9], [0, 2, 3]])
def test_an_unknown_value_is_told(tmp_path: Path, values: list[int]) -> None:
    source = pair(tmp_path, np.array([[0, 1, 2], values]))
    with pytest.raises(UserError) as caught:
        source.read(source.items("train")[0])
    assert str(caught.value) == f"{tmp_path / 'mask.png'}: value 3 is no label; valid: 0 to 2, or the ignored value"


def test_a_value_below_unlabelled_is_told(tmp_path: Path) -> None:
    source = pair(tmp_path, np.zeros((2, 3)))
    source.read_mask = lambda path, annotation: np.full((2, 3), -2)  # type: ignore[method-assign]
    with pytest.raises(UserError, match="value -2 is no label"):
        source.read(source.items("train")[0])


@pytest.mark.parametrize("name", ["one.png", "mask.png"])
def test_a_missing_file_is_told(tmp_path: Path, name: str) -> None:
    source = pair(tmp_path, np.zeros((2, 3)))
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"{name}: no such file"):
        source.read(source.items("train")[0])


def test_a_damaged_image_is_told(tmp_path: Path) -> None:
    source = pair(tmp_path, np.zeros((2, 3)))
    (tmp_path / "one.png").write_bytes((tmp_path / "one.png").read_bytes()[:40])
    with pytest.raises(UserError, match=r"one\.png: ") as caught:
        source.read(source.items("train")[0])
    assert "\n" not in str(caught.value)


def test_the_folder_may_hold_a_home_and_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SOME_DATA", str(tmp_path))
    assert Pair(root="~/set").folder == Pair(root="${SOME_DATA}/set").folder == Pair(root="$SOME_DATA/set").folder
    assert Pair(root="~/set").folder == tmp_path / "set"


def test_a_variable_that_is_not_set_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UPERNET_DATA", raising=False)
    with pytest.raises(UserError) as caught:
        _ = Pair(root="${UPERNET_DATA}/set").folder
    line = "${UPERNET_DATA}/set: an environment variable is not set; for example export UPERNET_DATA=/data"
    assert str(caught.value) == line


def test_a_missing_folder_is_told_with_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        _ = Pair(root=f"{tmp_path}/nowhere").folder
    assert str(caught.value) == f"{tmp_path}/nowhere: no such folder; Pair expects one.png and mask.png"


def test_predictions_keep_the_label_ids_and_the_images_ids(tmp_path: Path) -> None:
    source = pair(tmp_path, np.zeros((2, 3)))
    assert source.prediction_ids("mask").tolist() == [0, 1, 2, 255]
    assert source.prediction_file("/a/../../b") == "a/b.png"
    many = ImageMaskFolder(root="", labels=[str(i) for i in range(300)])
    assert many.prediction_ids("mask")[[0, 299, -1]].tolist() == [0, 299, 65535]


def test_a_source_comes_back_from_yaml() -> None:
    for source in (Memory(labels=["a", "b"], salt=3), ImageMaskFolder(root="~/x", ignore_value=None)):
        again = from_plain(Source, to_plain(source), "here")  # type: ignore[type-abstract]
        # YAML has no tuples, and a command line reads types that from_plain need not know.
        assert to_plain(again) == to_plain(source)
        assert type(again) is type(source)
    assert ImageMaskFolder.class_path() == "upernet.data.ImageMaskFolder"
    assert Memory.class_path() == "fake_data.Memory"


def test_the_source_of_the_document_works(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/own-data.md").read_text()
    names: dict[str, Any] = {"__name__": "halls"}
    exec(text.split("```python\n")[1].split("```")[0], names)
    Image.new("RGB", (3, 2)).save(tmp_path / "one.jpg")
    Image.fromarray(np.array([[0, 1, 2], [2, 1, 0]], np.uint8)).save(tmp_path / "one.png")
    (tmp_path / "train.txt").write_text("one\n")
    source = names["Halls"](root=str(tmp_path))
    assert list(source.faults("train")) == []
    assert source.read(source.items("train")[0])[1]["material"].tolist() == [[-1, 0, 1], [1, 0, -1]]
