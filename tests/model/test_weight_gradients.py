"""Gradients of convolutions by matrix products, against PyTorch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from upernet.model import weight_gradients
from upernet.model.weight_gradients import QuickWeightGradients


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    size=st.tuples(st.integers(7, 12), st.integers(7, 12)),
    kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    bias=st.booleans(),
)
def test_gradients_are_those_of_pytorch(
    seed: int, batch: int, channels: Any, size: Any, kernel: Any, stride: Any, padding: Any, bias: bool
) -> None:
    torch.manual_seed(seed)
    conv = nn.Conv2d(*channels, kernel, stride, padding, bias=bias)
    found = []
    x = torch.randn(batch, channels[0], *size).to(memory_format=torch.channels_last)
    for context in (torch.enable_grad(), QuickWeightGradients()):
        own = x.clone().requires_grad_()
        with context:
            y = conv(own)
        found.append([y, *torch.autograd.grad(y.square().sum(), [own, *conv.parameters()])])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * max(1.0, b.abs().max().item()))


@pytest.mark.parametrize(
    ("options", "quick"),
    [
        ({"kernel_size": 3, "padding": 1}, True),
        ({"kernel_size": 3, "stride": 2}, True),
        ({"kernel_size": 1}, False),
        ({"kernel_size": 3, "groups": 2}, False),
        ({"kernel_size": 3, "dilation": 2}, False),
        ({"kernel_size": 3, "padding": "same"}, False),
    ],
)
def test_which_convolutions(options: dict[str, Any], quick: bool) -> None:
    conv = nn.Conv2d(4, 4, **options)
    x = torch.randn(1, 4, 8, 8).to(memory_format=torch.channels_last)
    with QuickWeightGradients():
        name = conv(x).grad_fn.name()
        with torch.no_grad():
            assert conv(x).grad_fn is None
    assert ("Convolution" in name) != quick
    assert "Convolution" in conv(x).grad_fn.name()


def test_a_context_knows_whether_it_is_open() -> None:
    assert not isinstance(QuickWeightGradients.again(), QuickWeightGradients)
    with QuickWeightGradients():
        assert isinstance(QuickWeightGradients.again(), QuickWeightGradients)
    assert not isinstance(weight_gradients.QuickWeightGradients.again(), QuickWeightGradients)
