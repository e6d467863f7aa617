"""Bilinear upsampling, whole and a few rows at a time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from upernet.inference.upsample import resize, source_rows, upsample_rows


@pytest.mark.parametrize("align_corners", [False, True])
def test_logits_are_resized_in_the_networks_own_convention(align_corners: bool) -> None:
    logits = torch.randn(2, 5, 4, 6)
    expected = F.interpolate(logits, (9, 13), mode="bilinear", align_corners=align_corners)
    assert torch.equal(resize(logits, (9, 13), align_corners), expected)
    assert torch.equal(resize(logits, (9, 13), align_corners)[..., 0, 0], logits[..., 0, 0]) or not align_corners


SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9)), st.tuples(st.integers(1, 40), st.integers(1, 40))


@given(*SIZES, st.integers(1, 12), st.booleans(), st.integers(0, 2**31))
@settings(max_examples=80, deadline=None)
def test_rows_are_those_of_the_whole(
    small: tuple[int, int], large: tuple[int, int], rows: int, align_corners: bool, seed: int
) -> None:
    logits = torch.randn(2, 3, *small, generator=torch.Generator().manual_seed(seed))
    whole = resize(logits, large, align_corners)
    bands = [
        upsample_rows(logits, large, start, min(start + rows, large[0]), align_corners)
        for start in range(0, large[0], rows)
    ]
    torch.testing.assert_close(torch.cat(bands, 2), whole, rtol=1e-5, atol=1e-5)


@given(*SIZES, st.booleans(), st.data())
@settings(max_examples=80, deadline=None)
def test_rows_need_no_others_than_their_source_rows(
    before: tuple[int, int], after: tuple[int, int], align_corners: bool, data: st.DataObject
) -> None:
    """Upwards and downwards; the result is the same to the bit."""
    for height, full in ((before[0], after), (after[0], before)):
        start = data.draw(st.integers(0, full[0] - 1))
        stop = data.draw(st.integers(start + 1, full[0]))
        logits = torch.randn(1, 2, height, 5, generator=torch.Generator().manual_seed(height))
        first, last = source_rows(height, full[0], start, stop, align_corners, logits.device)
        assert 0 <= first < last <= height
        part = upsample_rows(logits[:, :, first:last], full, start, stop, align_corners, height=height, first=first)
        assert torch.equal(part, upsample_rows(logits, full, start, stop, align_corners))


def test_source_rows_by_hand() -> None:
    """4 rows to 8: row 2 lies at 0.75, row 5 at 2.25; with corners aligned rows 2 and 5 lie at 6/7 and 15/7."""
    cpu = torch.device("cpu")
    assert source_rows(4, 8, 2, 6, False, cpu) == (0, 4)
    assert source_rows(4, 8, 3, 5, False, cpu) == (1, 3)
    assert source_rows(4, 8, 2, 6, True, cpu) == (0, 4)
    assert source_rows(4, 8, 3, 5, True, cpu) == (1, 3)
    assert source_rows(4, 8, 7, 8, True, cpu) == (3, 4)
