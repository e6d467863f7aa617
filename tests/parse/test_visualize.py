"""The picture: its parts are there at every size, colours mean what they say, text is legible."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from upernet.labels import IGNORE, Labels
from upernet.parse.parser import Prediction, _shares
from upernet.parse.visualize import FAINT, STRENGTH, _box_means, _fit, _ink_on, _width, overlay, sheet

LABELS = Labels.of({"red": "#ff0000", "green": "#00ff00", "other": "#808080"})


def predicted(height: int, width: int, maps: int = 2, scenes: int = 1, labels: Labels = LABELS) -> Prediction:
    image = np.full((height, width, 3), 100, np.uint8)
    label_map = (np.arange(width)[None] * len(labels) // width).repeat(height, 0).astype(np.int32)
    names = [f"task{i}" for i in range(maps)]
    answers = [f"scene{i}" for i in range(scenes)]
    top = [("street", 0.75), ("beach", 0.2), ("a very long name of a place that nobody can read to its end", 0.001)]
    return Prediction(
        image=image,
        maps=dict.fromkeys(names, label_map),
        labels=dict.fromkeys([*answers, *names], labels),
        top=dict.fromkeys([*answers, *names], top),
        shares=dict.fromkeys(names, _shares(label_map, labels)),
        name="folder/photo.jpg",
        model="stub",
    )


def test_overlay_mixes_colours_by_hand():
    image = np.full((5, 9, 3), 100, np.uint8)
    label_map = np.repeat([[0, 0, 0, 2, 2, 2, IGNORE, IGNORE, IGNORE]], 5, 0)
    pixels = np.asarray(overlay(image, label_map, LABELS)).astype(float)
    assert pixels.shape == (5, 9, 3)
    np.testing.assert_allclose(
        pixels[2, 0], [100 * (1 - STRENGTH) + 255 * STRENGTH, *[100 * (1 - STRENGTH)] * 2], atol=2
    )
    np.testing.assert_allclose(pixels[2, 3], 100 * (1 - FAINT) + 128 * FAINT, atol=2)
    assert pixels[2, 8].min() > 150  # veiled: lighter, and still grey
    assert np.ptp(pixels[2, 8]) == 0


def test_overlay_draws_a_light_line_between_regions_only():
    image = np.zeros((4, 6, 3), np.uint8)
    label_map = np.array([[0, 0, 0, 1, 1, 1]] * 4)
    pixels = np.asarray(overlay(image, label_map, LABELS))
    assert pixels[:, 2].min() > 180
    assert (pixels[:, [0, 1, 3, 4, 5]].min(-1) == 0).all()


def test_overlay_leaves_its_inputs_alone():
    image, label_map = np.full((4, 6, 3), 9, np.uint8), np.zeros((4, 6), np.int32)
    overlay(image, label_map, LABELS)
    assert (image == 9).all() and (label_map == 0).all()


@pytest.mark.parametrize(
    ("height", "width"), [(48, 48), (1, 1), (2, 1000), (1000, 2), (300, 3000), (900, 120), (1200, 900), (2000, 3000)]
)
def test_a_sheet_is_readable_whatever_the_photograph(height, width):
    prediction = predicted(height, width)
    page = sheet(prediction)
    assert page.mode == "RGB"
    assert 400 <= page.width <= 2600 and 400 <= page.height <= 2600
    # The photograph is there, unchanged, and so are the class colours of the panels.
    colours = {colour for _, colour in page.getcolors(page.width * page.height)}
    assert (100, 100, 100) in colours
    assert {LABELS.colours[LABELS.index(name)] for name, _ in prediction.shares["task0"]} <= colours  # swatches


@pytest.mark.parametrize("maps", [0, 1, 2, 3, 4, 7])
@pytest.mark.parametrize("scenes", [0, 1, 2])
@pytest.mark.parametrize("size", [(30, 40), (30, 300), (300, 30)])
def test_any_number_of_tasks(maps, scenes, size):
    page = sheet(predicted(*size, maps=maps, scenes=scenes))
    assert max(page.size) < 6000


def test_more_classes_than_a_legend_has_lines():
    labels = Labels.of([f"class_{i} with a name that is far too long for any legend" for i in range(60)])
    assert sheet(predicted(60, 60, labels=labels)).height < 2600


@pytest.mark.parametrize("name", ["bad\nname", "\udcff.jpg", "山.jpg", "été/ñ.png", "", "a" * 300])
def test_odd_names(name):
    prediction = predicted(20, 20, labels=Labels.of([name or "x", "行人", "b\tc"]))
    prediction.name = prediction.model = name
    assert sheet(prediction).size == sheet(predicted(20, 20)).size


def test_a_map_without_an_answer():
    """It is veiled: nothing on the page has a class's red."""
    prediction = predicted(20, 20, maps=1)
    answered = np.asarray(sheet(prediction)).astype(int)
    prediction.maps["task0"] = np.full((20, 20), IGNORE, np.int32)
    prediction.shares["task0"] = []
    veiled = np.asarray(sheet(prediction)).astype(int)
    assert (answered[..., 0] - answered[..., 1]).max() > 100
    assert (veiled[..., 0] - veiled[..., 1]).max() < 30


def test_a_large_region_carries_its_name():
    plain = predicted(60, 80, maps=1)
    plain.maps["task0"] = np.zeros((60, 80), np.int32)
    plain.shares["task0"] = [("red", 1.0)]
    panel = np.asarray(sheet(plain).crop((700, 74, 1340, 554)))
    assert (panel == [255, 0, 0]).all(-1).sum() > 400  # the tag's full colour, over the panel's mixed one


@given(st.text(max_size=40), st.integers(20, 200))
@settings(max_examples=40, deadline=None)
def test_cut_text_fits(text, room):
    text = "".join(c for c in text if c.isprintable())
    fitted = _fit(text, 18, room)
    assert _width(fitted, 18) <= room
    assert fitted == text or fitted.endswith("…")


@pytest.mark.parametrize(
    ("colour", "ink"),
    [((255, 255, 0), (0, 0, 0)), ((0, 0, 120), (255, 255, 255)), ((0, 0, 0), (255, 255, 255)), ((255,) * 3, (0, 0, 0))],
)
def test_text_contrasts_with_its_background(colour, ink):
    assert _ink_on(colour) == ink


def test_box_means_by_hand():
    mask = np.array([[1, 0, 1], [1, 1, 0]], bool)
    np.testing.assert_allclose(_box_means(mask, (2, 2)), [[0.75, 0.5]])
    np.testing.assert_allclose(_box_means(mask, (1, 3)), [[2 / 3], [2 / 3]])


def test_a_sheet_does_not_change_the_prediction():
    prediction = predicted(30, 40)
    before = prediction.image.copy(), prediction.maps["task0"].copy()
    first, second = sheet(prediction), sheet(prediction)
    np.testing.assert_array_equal(prediction.image, before[0])
    np.testing.assert_array_equal(prediction.maps["task0"], before[1])
    assert Image.Image.tobytes(first) == Image.Image.tobytes(second)
