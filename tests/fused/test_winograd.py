"""Winograd's algorithm against the plain convolution."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from upernet.fused import winograd
from upernet.fused.winograd import Kernel, WinogradConv, convolve, pays
from upernet.fused.workspace import Workspace, using


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 4),
    channels=st.integers(1, 5),
    height=st.integers(1, 23),
    width=st.integers(1, 23),
    answers=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    tiles=st.sampled_from([1, 3, 8, 1000]),
    added=st.booleans(),
    relu=st.booleans(),
    last=st.booleans(),
    always=st.booleans(),
    workspace=st.sampled_from([Workspace(), None]),
)
def test_it_is_a_convolution(
    batch: int,
    channels: int,
    height: int,
    width: int,
    answers: list[int],
    tiles: int,
    added: bool,
    relu: bool,
    last: bool,
    always: bool,
    workspace: Workspace | None,
) -> None:
    torch.manual_seed(0)
    x = torch.randn(batch, channels, height, width, dtype=torch.float64)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    kernels, expected = [], []
    for count in answers:
        weight, bias = torch.randn(count, channels, 3, 3).double(), torch.randn(count).double()
        more = torch.randn(batch, height, width, count).double() if added else None
        kernels.append(Kernel(weight.flatten(2), bias, None if more is None else more.clone(), relu))
        plain = F.conv2d(x, weight, bias, padding=1)
        plain = plain if more is None else plain + more.permute(0, 3, 1, 2)
        expected.append(F.relu(plain) if relu else plain)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(winograd, "TILES", tiles)
        if always:
            patched.setattr(winograd, "_is_less_work", lambda shape, answers: True)
        with using(workspace):
            found = convolve(x, kernels)
    for own, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(own, plain, rtol=0, atol=1e-11)
        assert own.is_contiguous(memory_format=torch.channels_last)


def test_the_operation_of_graphs_gives_the_same() -> None:
    convolution, x = nn.Conv2d(5, 7, 3, padding=1), torch.randn(2, 5, 9, 14)
    module = WinogradConv(convolution, relu=True)
    added = torch.randn(2, 9, 14, 7)
    found = torch.ops.upernet.winograd(x, *module.kernel(added))
    torch.testing.assert_close(found, module(x, added))
    torch.library.opcheck(torch.ops.upernet.winograd, (x, *module.kernel(added)), test_utils="test_faketensor")


@pytest.mark.parametrize(
    ("convolution", "expected"),
    [
        (nn.Conv2d(512, 512, 3, padding=1), True),
        (nn.Conv2d(128, 128, 3, padding="same"), True),
        (nn.Conv2d(64, 64, 3, padding=1), False),  # the transforms would take more than is saved
        (nn.Conv2d(512, 8, 3, padding=1), False),
        (nn.Conv2d(512, 512, 3, padding=1, stride=2), False),
        (nn.Conv2d(512, 512, 3, padding=2, dilation=2), False),
        (nn.Conv2d(512, 512, 3), False),
        (nn.Conv2d(512, 512, 3, padding=1, groups=2), False),
        (nn.Conv2d(512, 512, 3, padding=1, padding_mode="reflect"), False),
        (nn.Conv2d(512, 512, 1), False),
        (nn.ConvTranspose2d(512, 512, 3, padding=1), False),
    ],
)
def test_where_it_pays(convolution: nn.Module, expected: bool) -> None:
    assert pays(convolution) is expected


def test_small_maps_are_convolved_plainly() -> None:
    """On few tiles, transforming the kernel takes longer than is saved; heads that share a map decide together."""
    assert not winograd._is_less_work((1, 512, 16, 16), 512)
    assert winograd._is_less_work((1, 512, 32, 32), 512)
    assert winograd._is_less_work((4, 512, 16, 16), 512)


def test_a_workspace_is_kept_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, like = Workspace(), torch.empty(0, dtype=torch.float64)
    with torch.inference_mode():
        workspace.pieces(like, [(2, 3), (5,)])
    first, second = workspace.pieces(like, [(2, 3), (5,)])
    first.fill_(1)  # without inference mode, too
    second.fill_(2)
    assert first.dtype == torch.float64
    assert first.sum() == 6
    assert workspace.pieces(like, [(1,)])[0].data_ptr() == first.data_ptr()
    monkeypatch.setattr("upernet.fused.workspace.MOST_BYTES", 64)
    assert workspace.pieces(like, [(9,)])[0].data_ptr() != first.data_ptr()
