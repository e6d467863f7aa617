"""`model/bilinear.py` against PyTorch's own resizing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from upernet.model.bilinear import bilinear_matrix, cached_matrix, read_by_taps, support


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 200), st.booleans(), st.data())
def test_the_weights_are_those_of_interpolate(size: int, new: int, align_corners: bool, data: st.DataObject) -> None:
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        matrix = bilinear_matrix(size, new, align_corners, dtype)
        line = torch.eye(size, dtype=dtype)[None, :, None]  # a channel for each sample
        expected = F.interpolate(line, (1, new), mode="bilinear", align_corners=align_corners)[0, :, 0].T
        torch.testing.assert_close(matrix, expected, rtol=0, atol=tolerance)
    assert torch.equal(cached_matrix(size, new, align_corners, torch.device("cpu")), matrix)
    start = data.draw(st.integers(0, new - 1))
    stop = data.draw(st.integers(start + 1, new))
    first, last = support(size, new, align_corners, start, stop)
    assert not matrix[start:stop, :first].any()
    assert not matrix[start:stop, last:].any()
    assert matrix[start:stop, first].any()
    assert matrix[start:stop, last - 1].any()


def test_neighbours_of_a_small_line() -> None:
    """Two samples enlarged to four, 1, ¾+¼, ¼+¾, 1: each tap reads the row before, at, and after."""
    before, own, after = read_by_taps(bilinear_matrix(2, 4, False, torch.float64))
    assert own.tolist() == [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    assert before.tolist() == [[0, 0], *own.tolist()[:3]]
    assert after.tolist() == [*own.tolist()[1:], [0, 0]]
