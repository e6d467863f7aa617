"""Colour on bytes, step by step as the reference computes it, and how often each step is drawn."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import upernet.data.photometric as photometric
from upernet.data.photometric import distort, scale_and_shift, scale_saturation, shift_hue


def colour(*rgb: int) -> np.ndarray:
    return np.array(rgb, dtype=np.uint8)[None, None]


def lattice() -> np.ndarray:
    """(52, 2704, 3) uint8: every colour of multiples of 5."""
    values = np.arange(0, 256, 5, dtype=np.uint8)
    return np.stack(np.meshgrid(values, values, values, indexing="ij"), axis=-1).reshape(52, 2704, 3)


def test_products_and_sums_are_cut_not_rounded() -> None:
    values = np.array([0, 1, 100, 199, 255], dtype=np.uint8)
    assert scale_and_shift(values, 1.0, 7.9).tolist() == [7, 8, 107, 206, 255]
    assert scale_and_shift(values, 1.0, -1.5).tolist() == [0, 0, 98, 197, 253]
    assert scale_and_shift(values, 0.75, 0.0).tolist() == [0, 0, 75, 149, 191]
    assert scale_and_shift(values, 1.5, 0.0).tolist() == [0, 1, 150, 255, 255]


@settings(deadline=None, max_examples=200)
@given(st.floats(-40, 40) | st.integers(-40, 40).map(lambda n: n + 2.0**-12) | st.integers(-40, 40).map(float))
def test_sums_are_those_in_single_precision(offset: float) -> None:
    values = np.arange(256, dtype=np.uint8)
    sums = (values.astype(np.float32) + np.float32(offset)).clip(0, 255).astype(np.uint8)
    assert np.array_equal(scale_and_shift(values, 1.0, offset), sums)


@settings(deadline=None, max_examples=200)
@given(st.floats(0.0, 2.0))
def test_products_are_those_in_single_precision(factor: float) -> None:
    values = np.arange(256, dtype=np.uint8)
    products = (values.astype(np.float32) * np.float32(factor)).clip(0, 255).astype(np.uint8)
    assert np.array_equal(scale_and_shift(values, factor, 0.0), products)


def is_near(image: np.ndarray, *rgb: int) -> bool:
    """Up to what a rounding error short of a whole number costs, which is cut, on one processor and not on another."""
    return bool(np.abs(image.astype(int) - np.array(rgb)).max() <= 1)


def test_hue_turns_by_hand() -> None:
    """Red is 0, yellow 30, green 60, cyan 90, blue 120, magenta 150."""
    assert is_near(shift_hue(colour(255, 0, 0), 30), 255, 255, 0)
    assert is_near(shift_hue(colour(0, 255, 0), -30), 255, 255, 0)
    assert is_near(shift_hue(colour(255, 0, 0), -30), 255, 0, 255)
    assert is_near(shift_hue(colour(255, 0, 255), 60), 255, 255, 0)
    # (10, 20, 30) has hue 105, saturation 170, value 30; hue 120 is blue, its low channels 30 · (1 - 170/255) = 10.
    assert is_near(shift_hue(colour(10, 20, 30), 15), 10, 10, 30)


def test_saturation_by_hand() -> None:
    """(200, 100, 100): saturation 127.5 → 128; doubled 255, so that the low channels vanish."""
    assert is_near(scale_saturation(colour(200, 100, 100), 2.0), 200, 0, 0)
    assert is_near(scale_saturation(colour(200, 100, 50), 0.0), 200, 200, 200)
    assert is_near(scale_saturation(colour(77, 77, 77), 1.5), 77, 77, 77)


@pytest.mark.parametrize(
    ("step", "amount"),
    [*((scale_saturation, x) for x in (0.5, 0.8, 1.5)), *((shift_hue, x) for x in (-18, 0, 17))],
)
def test_hue_and_saturation_are_the_reference_s(step: Any, amount: float) -> None:
    """As it computes them, on images in BGR."""
    given = lattice()
    before = given.copy()
    result = step(given, amount)
    assert np.array_equal(given, before)
    hsv = cv2.cvtColor(np.ascontiguousarray(given[..., ::-1]), cv2.COLOR_BGR2HSV)
    if step is shift_hue:
        hsv[..., 0] = (hsv[..., 0].astype(int) + amount) % 180
    else:
        hsv[..., 1] = np.clip(hsv[..., 1].astype(np.float32) * amount, 0, 255).astype(np.uint8)
    assert np.array_equal(result, cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[..., ::-1])


class Drawn:
    """What was done to images, in order, one list for each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int):
        self.steps: list[list[tuple[str, float]]] = []

        def record(pixels: np.ndarray, *amounts: float) -> np.ndarray:
            scaled = len(amounts) == 2
            name = ("contrast" if amounts[1] == 0 else "brightness") if scaled else "hue"
            self.steps[-1].append((name, amounts[0] if name != "brightness" else amounts[1]))
            return pixels

        def saturate(pixels: np.ndarray, factor: float) -> np.ndarray:
            self.steps[-1].append(("saturation", factor))
            return pixels

        monkeypatch.setattr(photometric, "scale_and_shift", record)
        monkeypatch.setattr(photometric, "shift_hue", record)
        monkeypatch.setattr(photometric, "scale_saturation", saturate)
        torch.manual_seed(0)
        for _ in range(count):
            self.steps.append([])
            distort(torch.zeros(3, 1, 1, dtype=torch.uint8))

    def amounts(self, name: str) -> np.ndarray:
        return np.array([amount for steps in self.steps for step, amount in steps if step == name])


def test_each_step_is_drawn_half_the_time_from_its_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four standard deviations of 4,000 draws are 0.032 of a frequency."""
    drawn = Drawn(monkeypatch, 4000)
    for name, low, high in (("brightness", -32, 32), ("contrast", 0.5, 1.5), ("saturation", 0.5, 1.5)):
        amounts = drawn.amounts(name)
        assert abs(len(amounts) / 4000 - 0.5) < 0.032
        assert low <= amounts.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < amounts.max() <= high
        assert abs(amounts.mean() - (low + high) / 2) < 0.027 * (high - low)  # 4 · 0.289 / √2000
        assert abs(amounts.std() - (high - low) / 12**0.5) < 0.02 * (high - low)
    hues, counts = np.unique(drawn.amounts("hue"), return_counts=True)
    assert hues.tolist() == list(range(-18, 18))
    assert abs(counts.sum() / 4000 - 0.5) < 0.032
    assert counts.min() > 25  # 55 expected, deviation 7
    assert counts.max() < 90


def test_contrast_comes_second_or_last(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [[name for name, _ in steps] for steps in Drawn(monkeypatch, 4000).steps]
    orders = (["brightness", "contrast", "saturation", "hue"], ["brightness", "saturation", "hue", "contrast"])
    assert all(any(s == [name for name in order if name in s] for order in orders) for s in steps)
    told = [s for s in steps if "contrast" in s and ("saturation" in s or "hue" in s)]
    early = [s for s in told if s.index("contrast") < len(s) - 1]
    assert 1400 < len(told) < 1600  # 4,000 · 1/2 · 3/4
    assert abs(len(early) / len(told) - 0.5) < 0.052  # 4 deviations


def test_steps_are_independent(monkeypatch: pytest.MonkeyPatch) -> None:
    """All 16 subsets, each 1/16 of the time."""
    sets = [frozenset(name for name, _ in steps) for steps in Drawn(monkeypatch, 4000).steps]
    counts = [sets.count(kind) for kind in set(sets)]
    assert len(counts) == 16
    assert min(counts) > 185  # 250 expected, deviation 15
    assert max(counts) < 315


def test_the_given_image_is_not_changed() -> None:
    image = torch.from_numpy(lattice()).permute(2, 0, 1)
    before = image.clone()
    torch.manual_seed(0)
    changed = [not torch.equal(distort(image), before) for _ in range(8)]
    assert torch.equal(image, before)
    assert any(changed)
