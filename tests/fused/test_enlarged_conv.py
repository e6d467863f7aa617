"""Convolutions of enlarged maps, computed before they are enlarged."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from resized_maps import conv_by_the_formula

from upernet.fused import taps
from upernet.fused.taps import EnlargedConv, shifted_enlarging

sides = st.integers(1, 40)


def test_the_taps_of_a_small_line() -> None:
    # Two samples enlarged to four: 1, ¾+¼, ¼+¾, 1; each tap reads the row before, at, and after.
    matrix = shifted_enlarging(4, 2, align_corners=False)
    assert matrix[:, 0].tolist() == [[0, 1, 0.75], [1, 0.75, 0.25], [0.75, 0.25, 0], [0.25, 0, 0]]


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 2),
    size=st.tuples(sides, sides),
    maps=st.lists(st.tuples(st.integers(1, 3), sides, sides), min_size=1, max_size=3),
    align_corners=st.booleans(),
    block=st.sampled_from([1, 5, 64]),
)
def test_it_is_the_convolution_of_the_enlarged_maps(
    batch: int,
    size: tuple[int, int],
    maps: list[tuple[int, int, int]],
    align_corners: bool,
    block: int,
) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(batch, *shape, dtype=torch.float64) for shape in maps]
    weights = [torch.randn(4, channels, 3, 3, dtype=torch.float64) for channels, _, _ in maps]
    expected = conv_by_the_formula(inputs, torch.cat(weights, 1), size, align_corners).permute(0, 2, 3, 1)
    module = EnlargedConv(weights, align_corners)
    before = taps.COLUMNS, taps.ROWS
    taps.COLUMNS = taps.ROWS = block
    try:
        found = module(torch.empty(batch, 1, *size), inputs)
    finally:
        taps.COLUMNS, taps.ROWS = before
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    traceable = module._traceable(torch.empty(batch, 1, *size), inputs)
    torch.testing.assert_close(traceable, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("inference", [True, False])
def test_operators_serve_both_modes(inference: bool) -> None:
    module = EnlargedConv([torch.ones(1, 1, 3, 3)], align_corners=False)
    for mode in (inference, not inference):
        with torch.inference_mode(mode):
            assert module(torch.empty(1, 1, 4, 4), [torch.ones(1, 1, 2, 2)]).sum() == 100  # 4·4 + 8·6 + 4·9
