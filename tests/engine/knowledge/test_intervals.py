"""Intervals against published ones, and what a bootstrap over images must hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upernet.engine.knowledge.intervals import bootstrap_intervals, bootstrap_weights, wilson

NAMES = [f"image {i}" for i in range(200)]


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_published_intervals(count: int, total: int, low: float, high: float) -> None:
    """Table I of Newcombe (Statistics in Medicine 17, 1998), method 3."""
    assert wilson(count, total) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@given(st.integers(1, 10**6), st.data())
def test_wilson_is_symmetric_and_holds_the_share(total: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, total))
    low, high = wilson(count, total)
    assert 0 <= low <= count / total <= high <= 1
    mirrored = wilson(total - count, total)
    assert (1 - high, 1 - low) == (pytest.approx(mirrored[0], abs=1e-12), pytest.approx(mirrored[1], abs=1e-12))


def test_weights_are_poisson() -> None:
    """Bounds of five standard errors, from the distribution's own moments; the weights never change."""
    weights = bootstrap_weights(NAMES, 500)
    n = weights.size
    assert abs(weights.mean() - 1) < 5 / math.sqrt(n)
    assert abs(weights.var() - 1) < 5 * math.sqrt(3 / n)  # the fourth central moment is 4, the variance's square 1
    for k in range(6):
        p = math.exp(-1) / math.factorial(k)
        assert abs((weights == k).mean() - p) < 5 * math.sqrt(p * (1 - p) / n)
    correlations = np.corrcoef(weights)
    assert abs(correlations[np.triu_indices(len(NAMES), 1)]).max() < 5.5 / math.sqrt(500)


def test_weights_follow_from_name_and_replicate_alone() -> None:
    weights = bootstrap_weights(NAMES, 40)
    assert (bootstrap_weights(NAMES[::-1], 25) == weights[::-1, :25]).all()
    assert weights[:3, :8].tolist() == bootstrap_weights(NAMES[:3], 8).tolist()
    assert len({row.tobytes() for row in weights}) == len(NAMES)


def test_weights_stay_as_they_are() -> None:
    """The same images give the same intervals with every version."""
    assert bootstrap_weights(["street.jpg", "höhe \udcff"], 10).tolist() == [
        [1, 0, 0, 0, 1, 2, 0, 2, 2, 0],
        [1, 3, 2, 3, 1, 1, 0, 1, 0, 0],
    ]


def _interval(pixels: np.ndarray, names: list[str]) -> tuple[float, float]:
    """The interval of a share, of images with so many pixels of a target and of the source."""
    drawn = np.einsum("nk,nr->kr", pixels, bootstrap_weights(names, 400))
    share = pixels[:, 0].sum() / pixels[:, 1].sum()
    low, high = bootstrap_intervals(drawn[:1], drawn[1], np.array([share]))
    assert low[0] <= share <= high[0]
    return float(low[0]), float(high[0])


def test_one_image_gives_an_interval_of_no_width() -> None:
    assert _interval(np.array([[3, 12]]), ["one"]) == (0.25, 0.25)


def test_more_images_of_the_same_kind_narrow_the_interval() -> None:
    rng = np.random.default_rng(0)
    pixels = np.stack([rng.integers(0, 100, 50), np.full(50, 100)], 1)
    low, high = _interval(pixels, NAMES[:50])
    lower, higher = _interval(np.concatenate([pixels] * 4), NAMES)
    # Four times the images: half the width, but for the chance of 400 replicates.
    assert (higher - lower) / (high - low) == pytest.approx(0.5, abs=0.1)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        shares = rng.beta(2, 3, 60)  # mean 0.4
        pixels = np.stack([np.round(1000 * shares).astype(int), np.full(60, 1000)], 1)
        low, high = _interval(pixels, [f"{trial}/{i}" for i in range(60)])
        covered += low <= 0.4 <= high
    assert 176 <= covered <= 200  # 190 expected, with a standard deviation of 3


def test_replicates_without_the_source_do_not_count() -> None:
    counts, totals = np.array([[1, 0, 2, 3]]), np.array([2, 0, 4, 6])
    assert [end.tolist() for end in bootstrap_intervals(counts, totals, np.array([0.5]))] == [[0.5], [0.5]]
    assert [end.tolist() for end in bootstrap_intervals(0 * counts, 0 * totals, np.array([0.3]))] == [[0.3], [0.3]]
