"""DMS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_data import SMALL, blocks, dms
from PIL import Image
from refusals import told_by

from upernet.data import DMS
from upernet.data.faults import Kind
from upernet.data.sets.dms import TAXONOMY
from upernet.errors import UserError

ADVICE = (
    "get the picture from Open Images (info.json.gz names its address), or set faults: skip for the source, which "
    "leaves such images out"
)


def test_the_benchmark_has_46_labels_and_all_are_52() -> None:
    labels = DMS(root="").annotations["material"].labels
    assert (len(labels), labels[0], labels[-1]) == (46, "Animal skin", "Asphalt")
    assert {"Clutter", "Sky"} < set(labels)
    every = DMS(root="", taxonomy="all").annotations["material"].labels
    assert set(every) - set(labels) == {
        "Fiberglass wool",
        "Liquid, non-water",
        "Pearl",
        "Soap",
        "Sponge",
        "Styrofoam",
    }
    assert len(every) == 52


def test_the_pixel_values_are_those_of_the_published_benchmark() -> None:
    """The values that the published script calls dms46, in the order of its classes."""
    published = [*range(1, 14), *range(15, 22), 23, 24, 26, 27, 29, 30, *range(32, 40), 41, 43, 44, *range(46, 54), 56]
    names = [*TAXONOMY]
    assert [names[value] for value in published] == [*DMS(root="").annotations["material"].labels]
    assert DMS(root="").prediction_ids("material").tolist() == [*published, 0]


@pytest.mark.parametrize("taxonomy", ["dms46", "all"])
def test_pixel_values_become_labels(taxonomy: str, tmp_path: Path) -> None:
    source = DMS(root=str(dms(tmp_path)), taxonomy=taxonomy)  # type: ignore[arg-type]
    item = source.items("val")[1]
    assert (item.id, item.image) == ("2", tmp_path / "images/validation/2.jpg")
    stored = blocks("dms validation 1", [0, 13, 22, 40, 56], SMALL)
    labels = source.annotations["material"].labels
    known = {0: -1, 22: -1, 13: labels.index("Fabric/cloth"), 56: labels.index("Asphalt")}
    known[40] = labels.index("Soap") if taxonomy == "all" else -1
    expected = np.vectorize(known.get)(stored)
    image, values = source.read(item)
    np.testing.assert_array_equal(values["material"], expected)
    assert values["material"].dtype == np.int16
    assert image.pixels.shape[:2] == SMALL  # type: ignore[union-attr]
    assert {-1, known[13]} < set(np.unique(expected))


def test_a_value_beyond_the_taxonomy_is_told(tmp_path: Path) -> None:
    source = DMS(root=str(dms(tmp_path)))
    Image.fromarray(np.full(SMALL, 57, np.uint8)).save(tmp_path / "labels/train/1.png")
    with pytest.raises(UserError, match=r"labels/train/1\.png: value 57 is no label of DMS; valid: 0 to 56"):
        source.read(source.items("train")[0])


def test_missing_pictures_are_told_with_their_number_and_what_to_do(tmp_path: Path) -> None:
    root = dms(tmp_path)
    for name in ("2.jpg", "3.jpg"):
        (root / "images/train" / name).unlink()
    line = told_by(lambda: DMS(root=str(root)).items("train"))
    count = "2 of 4 images of split 'train' are missing"
    assert line == f"{root}/images/train/2.jpg: no such file; {count}; {ADVICE}"


def test_the_labels_whose_pictures_are_there_can_be_used(tmp_path: Path) -> None:
    root = dms(tmp_path)
    (root / "images/train/2.jpg").unlink()
    source = DMS(root=str(root))
    items, faulty = source.listing("train").without_faults()
    assert [item.id for item in items] == ["1", "3", "4"]
    assert [(id_, fault.kind, fault.file) for id_, fault in faulty.items()] == [
        ("2", Kind.MISSING_IMAGE, root / "images/train/2.jpg")
    ]
    assert list(source.faults("train")) == [*faulty.values()]
    assert len(source.items("validation")) == 2


def test_no_picture_at_all_is_told_even_then(tmp_path: Path) -> None:
    root = dms(tmp_path, pictures=False)
    source = DMS(root=str(root))
    for call in (lambda: source.items("val"), lambda: source.listing("val").without_faults()):
        line = told_by(call)  # type: ignore[arg-type]
        assert "2 of 2 images of split 'val' are missing; get the picture from Open Images" in line


def test_wrong_folders_are_told(tmp_path: Path) -> None:
    root = dms(tmp_path / "DMS_v1")
    line = told_by(lambda: DMS(root=str(tmp_path)).items("train"))
    assert line == f"{tmp_path}: no folder labels in it; the right folder seems to be {root}"
    line = told_by(lambda: DMS(root=str(root)).items("test"))
    assert line.startswith(f"{root}/labels/test: no such folder (there are train, validation); in {root}, DMS expects")
    assert line.endswith(
        "get dms_v1_labels.zip from https://github.com/apple/ml-dms-dataset, and its pictures from Open Images"
    )
