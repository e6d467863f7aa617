"""Sizes, and OpenCV's two filters."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from upernet.config import InferenceConfig
from upernet.data.images import read_image
from upernet.inference.views import network_input
from upernet.resize import Window, fit, reach, resize_image, resize_labels


def grey(rows: list[list[int]]) -> Tensor:
    """(3, H, W) with the same three channels."""
    return torch.tensor(rows, dtype=torch.uint8).expand(3, -1, -1)


@pytest.mark.parametrize(
    ("size", "box", "result"),
    [
        ((512, 683), (2048, 512), (512, 683)),
        ((375, 500), (2048, 512), (512, 683)),
        ((683, 1024), (2048, 512), (512, 768)),
        ((1024, 2048), (2049, 1025), (1025, 2049)),
        ((500, 375), (512, 2048), (683, 512)),  # upright, and the box named the other way round
        ((100, 1000), (2048, 512), (205, 2048)),  # the long side binds: 204.8
        ((1, 3000), (300, 100), (1, 300)),  # never nothing
    ],
)
def test_an_image_is_fitted_into_a_box(size: tuple[int, int], box: tuple[int, int], result: tuple[int, int]) -> None:
    assert fit(size, box) == result


def test_a_window_is_told_by_its_edges() -> None:
    window = Window(2, 3, 10, 7)
    assert (window.size, window.height, window.width) == ((8, 4), 8, 4)
    pixels = torch.arange(12 * 9).view(12, 9)
    assert torch.equal(pixels[window.rows, window.columns], pixels[2:10, 3:7])
    assert Window.whole((12, 9)) == (0, 0, 12, 9)


def test_twice_as_wide() -> None:
    """Samples at -1/4, 1/4, 3/4, 5/4: the border's pixel, then 1/4 and 3/4 of the way."""
    image = grey([[0, 100]] * 4)
    assert torch.equal(resize_image(image, (4, 4)), grey([[0, 25, 75, 100]] * 4))
    assert torch.equal(resize_image(image.mT, (4, 4)), grey([[0, 25, 75, 100]] * 4).mT)


def test_half_the_size_of_four_by_four() -> None:
    """Samples at 1/2 and 5/2: means of 2 × 2, as (0 + 8 + 40 + 48) / 4 = 24."""
    image = grey([[0, 8, 16, 24], [40, 48, 56, 64], [80, 88, 96, 104], [120, 128, 136, 144]])
    assert torch.equal(resize_image(image, (2, 2)), grey([[24, 40], [104, 120]]))


def test_a_third_of_the_size_takes_the_middle_pixel_and_smooths_nothing() -> None:
    image = grey([[9, 9, 9, 9, 9, 9], [9, 200, 9, 9, 100, 9], [9, 9, 9, 9, 9, 9]])
    assert torch.equal(resize_image(image, (1, 2)), grey([[200, 100]]))


def test_labels_come_from_the_upper_left() -> None:
    """4 → 3: rows 0, 4/3, 8/3; 4 → 8: each twice; 4 → 2: the first of two."""
    labels = torch.arange(16).view(4, 4)
    assert resize_labels(labels, (3, 3)).tolist() == [[0, 1, 2], [4, 5, 6], [8, 9, 10]]
    assert resize_labels(labels, (2, 2)).tolist() == [[0, 2], [8, 10]]
    assert torch.equal(resize_labels(labels, (8, 8)), labels.repeat_interleave(2, 0).repeat_interleave(2, 1))
    assert resize_labels(labels, (8, 8)).dtype == labels.dtype


@pytest.mark.parametrize("size", [(20, 25), (74, 106), (50, 31), (1, 1)])
def test_the_memory_of_an_image_does_not_matter(size: tuple[int, int]) -> None:
    decoded = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)).permute(2, 0, 1)
    view = resize_image(decoded, size)
    assert (view.shape, view.dtype) == ((3, *size), torch.uint8)
    assert torch.equal(resize_image(decoded.contiguous(), size), view)
    assert torch.equal(resize_image(decoded.flip(-1).mT, size), resize_image(decoded.flip(-1).mT.contiguous(), size))


SIDE = st.integers(1, 80)


@settings(deadline=None, max_examples=80)
@given(st.tuples(SIDE, SIDE), st.tuples(SIDE, SIDE), st.integers(0, 2**31))
def test_a_window_of_the_resized_map_is_its_crop(size: tuple[int, int], after: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(rng.integers(-1, 400, size))
    height, width = (int(rng.integers(1, n + 1)) for n in after)
    top, left = int(rng.integers(after[0] - height + 1)), int(rng.integers(after[1] - width + 1))
    cropped = resize_labels(labels, after)[top : top + height, left : left + width]
    assert torch.equal(resize_labels(labels, after, Window(top, left, top + height, left + width)), cropped)


@settings(deadline=None, max_examples=150)
@given(st.tuples(SIDE, SIDE), st.tuples(SIDE, SIDE), st.integers(0, 2**31))
@example(size=(68, 67), after=(67, 67), seed=68)  # a part that would keep its size
def test_a_window_of_the_resized_image_is_its_crop(size: tuple[int, int], after: tuple[int, int], seed: int) -> None:
    """The whole is OpenCV's, and rows beyond the window's reach do not matter."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    whole = cv2.resize(pixels, after[::-1], interpolation=cv2.INTER_LINEAR)
    height, width = (int(rng.integers(1, n + 1)) for n in after)
    top, left = int(rng.integers(after[0] - height + 1)), int(rng.integers(after[1] - width + 1))
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    np.testing.assert_array_equal(resize_image(image, after).permute(1, 2, 0), whole)
    pixels[reach(size[0], after[0], top + height) :] = 7
    view = resize_image(image, after, Window(top, left, top + height, left + width))
    np.testing.assert_array_equal(view.permute(1, 2, 0), whole[top : top + height, left : left + width])


@settings(deadline=None, max_examples=80)
@given(st.tuples(SIDE, SIDE), st.tuples(SIDE, SIDE), st.integers(0, 2**31))
def test_labels_are_those_of_opencv(size: tuple[int, int], after: tuple[int, int], seed: int) -> None:
    labels = np.random.default_rng(seed).integers(-1, 151, size).astype(np.int16)
    expected = cv2.resize(labels, after[::-1], interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(resize_labels(torch.from_numpy(labels), after), expected)


@settings(deadline=None, max_examples=40)
@given(st.tuples(SIDE, SIDE), st.tuples(SIDE, SIDE), st.integers(0, 255))
def test_one_colour_stays(size: tuple[int, int], after: tuple[int, int], value: int) -> None:
    assert (resize_image(torch.full((3, *size), value, dtype=torch.uint8), after) == value).all()


def test_evaluation_shows_the_network_what_the_reference_resized(fixtures_dir: Path, data_dir: Path) -> None:
    folder = fixtures_dir / "pipeline"
    with np.load(folder / "resized.npz") as resized:
        for (name, box), expected in zip(
            json.loads((folder / "resize_inputs.json").read_text()), resized.values(), strict=True
        ):
            image = torch.from_numpy(read_image(data_dir / name)).permute(2, 0, 1)[None]
            shown = network_input(image, InferenceConfig(short_side=min(box), max_side=max(box)))[0] * 255
            np.testing.assert_array_equal(shown.round().to(torch.uint8).permute(1, 2, 0).numpy(), expected)
            assert (shown - shown.round()).abs().max() < 1e-4  # whole numbers: it was resized as bytes


def test_want_of_memory_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    error = cv2.error("Insufficient memory\nFailed to allocate 9 bytes")

    def resize(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cv2, "resize", resize)
    error.code = cv2.Error.StsNoMem
    with pytest.raises(MemoryError, match="Failed to allocate 9 bytes"):
        resize_image(image, (8, 8))
    error.code = cv2.Error.StsBadArg
    with pytest.raises(cv2.error):
        resize_image(image, (8, 8))
