"""`model/bilinear.py` against PyTorch's own resizing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from upernet.model.bilinear import bilinear_matrix, support


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 200), st.booleans(), st.data())
def test_the_weights_are_those_of_interpolate(size: int, new: int, align_corners: bool, data: st.DataObject) -> None:
    matrix = bilinear_matrix(size, new, align_corners, torch.device("cpu"))
    line = torch.eye(size)[None, :, None]  # a channel for each sample
    expected = F.interpolate(line, (1, new), mode="bilinear", align_corners=align_corners)[0, :, 0].T
    torch.testing.assert_close(matrix, expected, rtol=0, atol=1e-5)
    start = data.draw(st.integers(0, new - 1))
    stop = data.draw(st.integers(start + 1, new))
    first, last = support(size, new, align_corners, start, stop)
    assert not matrix[start:stop, :first].any()
    assert not matrix[start:stop, last:].any()
    assert matrix[start:stop, first].any()
    assert matrix[start:stop, last - 1].any()
