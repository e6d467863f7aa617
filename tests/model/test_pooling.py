"""`model/pooling.py`: both rules against their definition."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from upernet.model.pooling import Pooling, pool, pool_matrix


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), bins=st.integers(1, 9))
def test_adaptive_is_torchs(height: int, width: int, bins: int) -> None:
    x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height * 41 + width))
    torch.testing.assert_close(pool(x, bins, "adaptive"), F.adaptive_avg_pool2d(x, bins), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bins", [1, 2, 3, 6, 7])
def test_weights_are_exact_up_to_the_rounding_to_float32(bins: int) -> None:
    """The definitions in float64, in another form: index ranges, and the hat integrated sample by sample."""
    for size in range(1, 70):
        adaptive = np.zeros((bins, size))
        for b in range(bins):
            first, stop = b * size // bins, -(-(b + 1) * size // bins)
            adaptive[b, first:stop] = 1 / (stop - first)
        edges = np.arange(bins + 1)[:, None] * size / bins
        t = np.clip(edges - np.arange(size), -1, 1)
        below = np.where(t < 0, (1 + t) ** 2 / 2, 1 - (1 - t) ** 2 / 2)
        precise = np.diff(below, axis=0) * bins / size
        assert np.array_equal(pool_matrix(size, bins, "adaptive").numpy(), adaptive.astype(np.float32))
        assert np.array_equal(pool_matrix(size, bins, "precise").numpy(), precise.astype(np.float32))


def test_the_matrices_are_built_on_the_meta_device_too() -> None:
    with torch.device("meta"):
        assert pool(torch.empty(2, 3, 9, 7), 2, "precise").shape == (2, 3, 2, 2)


def test_precise_by_hand() -> None:
    assert pool_matrix(2, 1, "precise").tolist() == [[0.25, 0.5]]
    torch.testing.assert_close(pool_matrix(7, 3, "precise")[-1], torch.tensor([0, 0, 0, 0, 1 / 42, 1 / 3, 3 / 7]))
    torch.testing.assert_close(pool_matrix(7, 3, "precise").sum(1), torch.tensor([1, 1, 11 / 14]))


def test_precise_of_a_constant_map_fades_at_the_far_border() -> None:
    ones = pool(torch.ones(1, 1, 5, 8), 1, "precise")
    assert ones.item() == pytest.approx((1 - 1 / 10) * (1 - 1 / 16))


def test_precise_is_the_mean_of_the_interpolated_line() -> None:
    line, steps = torch.tensor([3.0, -1.0, 2.0, 5.0, 0.5], dtype=torch.float64), 100_000
    x = (torch.arange(5 * steps, dtype=torch.float64) + 0.5) / steps
    padded = torch.cat([line, line.new_zeros(1)])
    left = x.long()
    f = padded[left] * (1 - (x - left)) + padded[left + 1] * (x - left)
    expected = f.reshape(2, -1).mean(1)
    torch.testing.assert_close(pool_matrix(5, 2, "precise").double() @ line, expected, atol=1e-6, rtol=0)


def test_precise_is_the_specifications(spec_dir: Path) -> None:
    cases = json.loads((spec_dir / "prroi_weights.json").read_text())["cases"]
    assert len(cases) == 40
    for case in cases:
        weights = pool_matrix(case["length"], case["bins"], "precise")
        torch.testing.assert_close(weights, torch.tensor(case["weights"]), atol=1e-7, rtol=0)


@pytest.mark.parametrize("kind", ["adaptive", "precise"])
def test_half_precision_is_summed_in_float32(kind: Pooling) -> None:
    x = torch.randn(1, 4, 30, 30).bfloat16()
    exact = pool(x.float(), 1, kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = pool(x, 1, kind)
        assert torch.equal(pool(x.float(), 1, kind), exact)
    assert low.dtype == torch.bfloat16
    assert torch.equal(low, exact.bfloat16())


def test_gradient_is_the_transpose() -> None:
    x = torch.randn(1, 1, 5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: pool(t, 2, "precise"), (x,))
