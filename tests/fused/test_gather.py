"""The taps of enlarged maps added to a map: by a gather, by matrices, and compiled."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from resized_maps import conv_by_the_formula
from torch import Tensor

from upernet.fused.gather import add_taps
from upernet.fused.taps import EnlargedConv, _add_by_matrices, _products

sides = st.integers(1, 24)


def drawn(
    batch: int, size: tuple[int, int], shapes: list[tuple[int, int, int]], channels: int = 4
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """A map (B, D, H, W), coarser ones, and their kernels; float64."""
    torch.manual_seed(0)
    base = torch.randn(batch, channels, *size, dtype=torch.float64)
    maps = [torch.randn(batch, *shape, dtype=torch.float64) for shape in shapes]
    return base, maps, [torch.randn(channels, shape[0], 3, 3, dtype=torch.float64) for shape in shapes]


def by_the_formula(base: Tensor, maps: list[Tensor], weights: list[Tensor], align_corners: bool) -> Tensor:
    return base + conv_by_the_formula(maps, torch.cat(weights, 1), base.shape[2:], align_corners)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    size=st.tuples(sides, sides),
    shapes=st.lists(st.tuples(st.integers(1, 3), sides, sides), min_size=1, max_size=3),
    align_corners=st.booleans(),
    add=st.sampled_from([add_taps, _add_by_matrices]),
)
def test_it_is_the_convolution_of_the_enlarged_maps(
    batch: int,
    size: tuple[int, int],
    shapes: list[tuple[int, int, int]],
    align_corners: bool,
    add: Callable[[Tensor, list[Tensor], bool], Tensor],
) -> None:
    base, maps, weights = drawn(batch, size, shapes)
    products = [_products(m, t) for m, t in zip(maps, EnlargedConv(weights, align_corners).taps, strict=True)]
    found = add(base.permute(0, 2, 3, 1), products, align_corners).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, by_the_formula(base, maps, weights, align_corners), rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sums_are_rounded_once(dtype: torch.dtype) -> None:
    base, maps, weights = drawn(2, (24, 17), [(3, 12, 9), (2, 6, 5), (3, 1, 1)])
    taps = EnlargedConv(weights, False).taps
    products = [_products(m, t).to(dtype) for m, t in zip(maps, taps, strict=True)]
    base = base.permute(0, 2, 3, 1).to(dtype)
    exact = add_taps(base.double(), [p.double() for p in products], False)
    found = add_taps(base, products, False)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 2])
def test_mixed_precision_uses_matrices(batch: int) -> None:
    base, maps, weights = drawn(batch, (24, 17), [(3, 12, 9), (2, 6, 5), (3, 1, 1)])
    module = EnlargedConv([w.float() for w in weights], False)
    with torch.autocast("cpu", torch.bfloat16):
        found = module.add_to(base.bfloat16(), [m.float() for m in maps])
    assert found.dtype == torch.bfloat16 and found.is_contiguous(memory_format=torch.channels_last)
    exact = by_the_formula(base, maps, weights, False)
    assert (found - exact).abs().max() < 0.03 * exact.std()


def test_a_compiler_takes_it_with_free_sizes() -> None:
    # Without the last step, the writing of kernels, which takes half a minute.
    compiled = torch.compile(add_taps, dynamic=True, fullgraph=True, backend="aot_eager")
    for size, shape in (((12, 10), (2, 6, 5)), ((19, 8), (2, 7, 3))):
        base, maps, weights = drawn(2, size, [shape])
        products = [_products(maps[0].float(), EnlargedConv([weights[0].float()], False).taps[0])]
        base = base.float().permute(0, 2, 3, 1)
        torch.testing.assert_close(compiled(base, products, False), add_taps(base, products, False))
