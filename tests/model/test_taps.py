"""`model/taps.py`: the convolution of resized maps by products at their own sizes, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from resized_maps import conv_by_the_formula
from torch import Tensor

from upernet.config import ModelConfig
from upernet.model import taps
from upernet.model.decoder import Decoder, MergingConv

SIDES = st.tuples(st.integers(1, 9), st.integers(1, 9))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**31), st.integers(1, 3), SIDES, st.lists(st.tuples(SIDES, st.integers(1, 4)), max_size=3),
    st.integers(1, 5), st.booleans(), st.booleans(),
)  # fmt: skip
def test_equal_to_the_formula_forward_and_backward(
    seed: int,
    batch: int,
    size: tuple[int, int],
    others: list[tuple[tuple[int, int], int]],
    channels: int,
    align_corners: bool,
    always: bool,
) -> None:
    """In float64, so that nothing but the formula is compared; with taps where they are less work, or always."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    maps = [randn(batch, 2, *size), *(randn(batch, c, *own) for own, c in others)]
    weight = randn(channels, sum(m.shape[1] for m in maps), 3, 3)
    expected = conv_by_the_formula(maps, weight, maps[0].shape[2:], align_corners)
    above = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        if always:
            patch.setattr(taps, "is_less_work", lambda shape, channels, size: tuple(shape[2:]) != tuple(size))
        ours = taps.conv_of_resized(maps, weight, align_corners)
    # The weights of the resizing are float32, as those of PyTorch are for float32.
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    for a, b in zip(
        torch.autograd.grad(ours, [*maps, weight], above),
        torch.autograd.grad(expected, [*maps, weight], above),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)


def test_work_is_counted() -> None:
    """Of the published network on 512×512, worked out by hand: 9·64²·512 + 9·64²·128 + 3·64·128² < 9·128²·512."""
    assert taps.is_less_work((2, 512, 64, 64), 512, (128, 128))
    assert not taps.is_less_work((2, 512, 128, 128), 512, (128, 128))  # nothing to resize
    assert not taps.is_less_work((2, 8, 64, 128), 8, (128, 256))  # so narrow that resizing costs more


@pytest.mark.parametrize("order", ["conv_upsample", "upsample_conv"])
@pytest.mark.parametrize("align_corners", [False, True])
def test_a_decoder_trains_alike_with_and_without(order: Any, align_corners: bool) -> None:
    """Outputs, gradients and running statistics of every level."""
    torch.manual_seed(1)
    config = ModelConfig(width=24, ppm_order=order, align_corners=align_corners)
    features = [torch.randn(2, c, s, s + 1) for c, s in ((3, 16), (4, 8), (5, 4), (40, 8))]
    found = []
    one = Decoder([3, 4, 5, 40], config).train()
    two = Decoder([3, 4, 5, 40], config).train()
    two.load_state_dict(one.state_dict())
    for module in two.modules():
        if isinstance(module, MergingConv):
            module.taps = True
    for decoder in (one, two):
        inputs = [f.clone().requires_grad_() for f in features]
        levels = decoder(inputs, ["fused", "p3"])
        torch.stack([x.square().sum() for x in levels.values()]).sum().backward()
        gradients = [t.grad for t in (*inputs, *decoder.parameters())]
        found.append([*levels.values(), *gradients, *decoder.buffers()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-4 * max(1.0, b.abs().max().item()))


def test_evaluation_follows_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    block = MergingConv([2, 2], 3, False)
    block.taps = True
    maps = [torch.randn(2, 2, 6, 6), torch.randn(2, 2, 3, 3)]
    ran: list[int] = []
    convolve = taps.conv_of_resized
    monkeypatch.setattr("upernet.model.decoder.conv_of_resized", lambda *args: (ran.append(1), convolve(*args))[1])
    block.eval()(maps[0], maps[1:])
    assert not ran
    block.train()(maps[0], maps[1:])
    assert ran


def test_half_precision_under_autocast() -> None:
    """The result has the precision of an ordinary convolution there, and the weights keep theirs."""
    maps = [torch.randn(1, 16, 8, 8, requires_grad=True), torch.randn(1, 64, 4, 4, requires_grad=True)]
    weight = torch.randn(16, 80, 3, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = taps.conv_of_resized(maps, weight, False)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    exact = conv_by_the_formula([m.detach() for m in maps], weight.detach(), maps[0].shape[2:], False)
    torch.testing.assert_close(out.float(), exact, rtol=0.05, atol=0.02 * exact.abs().max().item())
