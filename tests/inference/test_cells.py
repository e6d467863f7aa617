"""The class of the largest upsampled logit, found from the corners of cells."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import upernet.inference.cells
from upernet.inference.cells import largest_class
from upernet.inference.upsample import resize

PRUNED = {"FEWEST": 0, "MOST": 1.0}
"""Settings with which no map is interpolated everywhere."""


def smooth(shape: tuple[int, int, int, int], seed: int) -> Tensor:
    """(B, K, h, w) logits in which neighbours are often of one class."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(*shape[:2], 1 + shape[2] // 3, 1 + shape[3] // 3, generator=generator)
    return 4 * resize(coarse, shape[2:], True) + 0.3 * torch.randn(shape, generator=generator)


def assert_likeliest(ids: Tensor, logits: Tensor) -> None:
    """Ids are the arg-max of logits (B, K, H, W), or of classes whose logits are equal up to rounding."""
    assert ids.shape == logits[:, 0].shape and ids.dtype == torch.int64
    behind = logits.amax(1) - logits.gather(1, ids[:, None])[:, 0]
    assert behind.max() <= 2e-5  # logits up to about 20, of 24 bits


@settings(max_examples=150, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    align_corners=st.booleans(),
    at_once=st.sampled_from([1, 90, 2**16]),
    constants=st.sampled_from([PRUNED, PRUNED, {}]),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_rows_are_the_argmax_of_the_upsampled_logits(
    shape: tuple[int, int, int, int],
    size: tuple[int, int],
    align_corners: bool,
    at_once: int,
    constants: dict[str, float],
    seed: int,
    data: st.DataObject,
) -> None:
    """Enlarging and shrinking, in one direction or both, all rows or some, everywhere or where a mask says so."""
    logits = smooth(shape, seed)
    start = data.draw(st.integers(0, size[0] - 1))
    stop = data.draw(st.integers(start + 1, size[0]))
    full = resize(logits, size, align_corners)[:, :, start:stop]
    with patch.multiple(upernet.inference.cells, AT_ONCE=at_once, **constants):
        assert_likeliest(largest_class(logits, size, start, stop, align_corners), full)
        where = torch.rand(full[:, 0].shape, generator=torch.Generator().manual_seed(seed)) < 0.2
        ids = largest_class(logits, size, start, stop, align_corners, where)
        certain = full.argmax(1)
        assert_likeliest(torch.where(where, ids, certain), full)


@settings(max_examples=60, deadline=None)
@given(
    classes=st.integers(2, 6),
    small=st.tuples(st.integers(2, 7), st.integers(2, 7)),
    times=st.sampled_from([2, 4, 8]),
    align_corners=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_equal_logits_go_to_the_first_class(
    classes: int, small: tuple[int, int], times: int, align_corners: bool, seed: int
) -> None:
    """Small whole numbers, of which many are equal, and weights that are parts of 16: no step rounds."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(0, 3, (1, classes, *small), generator=generator).float()
    height, width = ((side - 1) * times + 1 if align_corners else side * times for side in small)
    expected = resize(logits, (height, width), align_corners).argmax(1)
    with patch.multiple(upernet.inference.cells, **PRUNED):
        assert torch.equal(largest_class(logits, (height, width), 0, height, align_corners), expected)


def test_a_class_that_leads_at_no_corner_may_win_inside() -> None:
    """Between (4, 0, 3) and (0, 4, 3) the third class leads in the middle half."""
    logits = torch.tensor([[[[4.0, 0.0]], [[0.0, 4.0]], [[3.0, 3.0]]]])
    with patch.multiple(upernet.inference.cells, **PRUNED):
        assert largest_class(logits, (1, 17), 0, 1, True).tolist() == [[[0] * 5 + [2] * 7 + [1] * 5]]


def test_only_cells_between_classes_are_interpolated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Class 0 on the left, 1 on the right; the other 98 are nowhere."""
    logits = torch.full((1, 100, 8, 8), -9.0)
    logits[:, 0, :, :4], logits[:, 1, :, 4:], logits[:, 2] = 5.0, 5.0, 1.0
    logits[:, 0, :, 4:], logits[:, 1, :, :4] = 0.0, 0.0
    seen: list[tuple[int, ...]] = []
    real = upernet.inference.cells._winners

    def spy(corners: Tensor, weights: Tensor) -> Tensor:
        seen.append((len(corners), weights.shape[1]))
        return real(corners, weights)

    monkeypatch.setattr(upernet.inference.cells, "_winners", spy)
    ids = largest_class(logits, (32, 32), 0, 32, False)
    assert (ids[..., :16] == 0).all() and (ids[..., 16:] == 1).all()
    assert seen == [(9, 16)]  # one column of cells, with the two halves beyond the outermost rows


@pytest.mark.parametrize("where", ["some", "everywhere"])
def test_logits_that_are_no_numbers_stop_nothing(where: str) -> None:
    logits = smooth((1, 5, 6, 6), 0)
    logits[:, :, : 3 if where == "some" else 6] = float("nan")
    with patch.multiple(upernet.inference.cells, **PRUNED):
        ids = largest_class(logits, (24, 24), 0, 24, False)
    assert ids.min() >= 0 and ids.max() <= 4
    if where == "some":
        assert_likeliest(ids[:, -8:], resize(logits, (24, 24), False)[:, :, -8:])
