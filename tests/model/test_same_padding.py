"""`model/same_padding.py`: the same numbers as timm's SAME padding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import get_same_padding
from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame
from torch import nn

from upernet.model.backbone import Backbone
from upernet.model.same_padding import make_padding_traceable, same_padding


@given(size=st.integers(1, 3000), kernel=st.integers(1, 9), stride=st.integers(1, 9), dilation=st.integers(1, 4))
def test_amounts_are_those_of_timm(size: int, kernel: int, stride: int, dilation: int) -> None:
    before, after = same_padding(size, kernel, stride, dilation)
    total = get_same_padding(size, kernel, stride, dilation)
    assert (before, after) == (total // 2, total - total // 2)


@pytest.mark.parametrize("size", [(7, 10), (8, 9), (1, 2)])
@pytest.mark.parametrize(
    "layer",
    [
        Conv2dSame(4, 6, 3, stride=2),
        Conv2dSame(4, 4, (5, 3), stride=(2, 1), dilation=2, groups=4, bias=False),
        Conv2dSame(4, 6, 1, stride=3),
        MaxPool2dSame(3, 2),
        AvgPool2dSame(2, 1),
        AvgPool2dSame(3, 2, count_include_pad=False),
    ],
    ids=str,
)
def test_layers_give_the_answers_of_timm(layer: nn.Module, size: tuple[int, int]) -> None:
    x = torch.randn(2, 4, *size)
    parent, kind = nn.Sequential(layer), type(layer)
    expected = parent(x)
    make_padding_traceable(parent)
    assert type(layer) is not kind
    assert torch.equal(parent(x), expected)
    layer.__class__ = kind


def test_a_backbone_has_no_layer_that_is_hard_to_trace() -> None:
    kinds = {type(module) for module in Backbone("tf_efficientnet_lite0", {}).modules()}
    assert Conv2dSame not in kinds
