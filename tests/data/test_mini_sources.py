"""LabelMeFacade and Car Parts; and every real data set, where it is at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_data import carparts, facade

from upernet.data import VOC, CarParts, ClassFolder, Facade, ImageMaskFolder, Source


def test_facade(tmp_path: Path) -> None:
    source = Facade(root=str(facade(tmp_path)))
    assert source.annotations["mask"].labels[:3] == ("various", "building", "car")
    assert len(source.annotations["mask"].labels) == 9
    # "various" is a label like another: what it means is the configuration's business.
    assert source.read(source.items("train")[0])[1]["mask"].min() == 0


def test_car_parts(tmp_path: Path) -> None:
    source = CarParts(root=str(carparts(tmp_path)))
    labels = source.annotations["mask"].labels
    assert (len(labels), labels[0], labels[18]) == (19, "_background_", "wheel")
    assert set(np.unique(source.read(source.items("val")[0])[1]["mask"])) <= {0, 1, 3, 18}


REAL: dict[str, tuple[type[Source], dict[str, object], int, int]] = {
    "camvid": (ImageMaskFolder, {"labels": [str(i) for i in range(12)], "ignore_value": None}, 367, 101),
    "voc_mini/VOCdevkit/VOC2012": (VOC, {}, 560, 130),
    "mini_multitask/facade": (Facade, {}, 260, 70),
    "mini_multitask/carparts": (CarParts, {}, 340, 60),
    "mini_multitask/scene15": (ClassFolder, {}, 450, 120),
    "mini_multitask/trashnet": (ClassFolder, {}, 225, 60),
    "mini_multitask/dtd10": (ClassFolder, {"images": "images", "lists": "labels/{split}1.txt"}, 400, 100),
}


@pytest.mark.parametrize("folder", REAL)
def test_the_real_data(data_dir: Path, folder: str) -> None:
    kind, options, train, val = REAL[folder]
    source = kind(root=str(data_dir / folder), **options)  # type: ignore[arg-type]
    items = source.items("train") + source.items("val")
    assert (len(items) - len(source.items("val")), len(source.items("val"))) == (train, val)
    assert len({item.id for item in items}) == train + val
    image, values = source.read(items[0])
    assert image.pixels.dtype == np.uint8
    assert set(values) == set(source.annotations)
