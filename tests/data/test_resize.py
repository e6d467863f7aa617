"""OpenCV's two filters, of the whole image or of a window of it."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from upernet.data.images import read_image
from upernet.data.resize import fit, resize_image, resize_labels


def grey(rows: list[list[int]]) -> Tensor:
    """(3, H, W) with the same three channels."""
    return torch.tensor(rows, dtype=torch.uint8).expand(3, -1, -1)


def crc(tensor: Tensor) -> int:
    return zlib.crc32(tensor.contiguous().numpy().tobytes())


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


RECORDED = {
    (37, 53): (2724448494, 2485518820),
    (20, 25): (3849638836, 149792348),
    (74, 106): (2026418569, 2432011552),
    (50, 31): (99975226, 764001329),
    (111, 29): (4058451063, 3299029412),
    (1, 1): (1544448417, 3523407757),
}
"""Checksums of what cv2.resize 5.0.0 answers, bilinear (H, W, 3) and nearest (H, W)."""


@pytest.mark.parametrize("size", RECORDED)
def test_equals_opencv_to_the_last_bit(size: tuple[int, int]) -> None:
    y, x, c = np.mgrid[:37, :53, :3]
    image = torch.from_numpy(((x * 37 + y * 61 + c * 89 + x * y * c) % 256).astype(np.uint8)).permute(2, 0, 1)
    view, labels = resize_image(image, size), resize_labels(image[0], size)
    assert (view.shape, view.dtype) == ((3, *size), torch.uint8)
    assert (crc(view.permute(1, 2, 0)), crc(labels)) == RECORDED[size]
    assert torch.equal(resize_image(image.contiguous(), size), view)  # in any memory layout


SIDE = st.integers(1, 80)


@settings(deadline=None, max_examples=80)
@given(st.tuples(SIDE, SIDE), st.tuples(SIDE, SIDE), st.integers(0, 2**31))
def test_a_window_of_the_resized_image_is_its_crop(size: tuple[int, int], after: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).permute(2, 0, 1)
    labels = torch.from_numpy(rng.integers(-1, 400, size))
    height, width = (int(rng.integers(1, n + 1)) for n in after)
    top, left = int(rng.integers(after[0] - height + 1)), int(rng.integers(after[1] - width + 1))
    window = top, left, height, width
    rows, columns = slice(top, top + height), slice(left, left + width)
    assert torch.equal(resize_image(image, after, window), resize_image(image, after)[:, rows, columns])
    assert torch.equal(resize_labels(labels, after, window), resize_labels(labels, after)[rows, columns])


@settings(deadline=None, max_examples=80)
@given(st.tuples(SIDE, SIDE), st.tuples(SIDE, SIDE), st.integers(0, 2**31))
def test_equals_the_sums_in_whole_numbers(size: tuple[int, int], after: tuple[int, int], seed: int) -> None:
    """OpenCV's arithmetic written down plainly."""
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)

    def taps(axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        centre = ((np.arange(after[axis]) + 0.5) * (size[axis] / after[axis]) - 0.5).astype(np.float32)
        part = centre - np.floor(centre)
        weights = np.rint(np.stack([1 - part, part]) * np.float32(2048)).astype(np.int64)
        place = np.floor(centre).astype(np.int64) + np.array([[0], [1]])
        return *place.clip(0, size[axis] - 1), weights

    left, right, (one, two) = taps(1)
    alone = left == right
    across = image[:, left] * np.where(alone, 2048, one)[:, None] + image[:, right] * np.where(alone, 0, two)[:, None]
    above, below, weights = taps(0)
    upper, lower = ((across[x] >> 4) * w[:, None, None] >> 16 for x, w in zip((above, below), weights, strict=True))
    expected = (upper + lower + 2 >> 2).astype(np.uint8)
    view = resize_image(torch.from_numpy(image).permute(2, 0, 1), after).permute(1, 2, 0).numpy()
    if after != size:
        np.testing.assert_array_equal(view, expected)


@settings(deadline=None, max_examples=40)
@given(st.tuples(SIDE, SIDE), st.tuples(SIDE, SIDE), st.integers(0, 255))
def test_one_colour_stays(size: tuple[int, int], after: tuple[int, int], value: int) -> None:
    assert (resize_image(torch.full((3, *size), value, dtype=torch.uint8), after) == value).all()


def test_equals_what_the_reference_resized(fixtures_dir: Path, data_dir: Path) -> None:
    folder = fixtures_dir / "pipeline"
    with np.load(folder / "resized.npz") as resized:
        for (name, box), expected in zip(
            json.loads((folder / "resize_inputs.json").read_text()), resized.values(), strict=True
        ):
            array = read_image(data_dir / name)
            size = fit((array.shape[0], array.shape[1]), tuple(box))
            assert size == expected.shape[:2]
            view = resize_image(torch.from_numpy(array).permute(2, 0, 1), size).permute(1, 2, 0).numpy()
            np.testing.assert_array_equal(view, expected)
