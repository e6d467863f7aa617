"""TensorFlow's SAME padding with amounts in closed form, for sizes that are symbols while a graph is traced.

timm computes the amounts from a quotient, which it rounds up, and a maximum. In a chain of layers these nest, and
tracing an EfficientNet for images of any size takes minutes. The amounts here are the same numbers, and tracing takes
seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.helpers import to_2tuple
from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame
from torch import Tensor, nn


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Samples to add before and after a line, so that a window moving over it gives ceil(size / stride) samples.

    Args:
        size: Samples on the line; a symbolic size while a graph is traced.
        kernel: Samples in the window.
        stride: Distance between two windows.
        dilation: Distance between two samples of a window.
    """
    # With the padding, the line has stride · ceil(size / stride) + beyond samples. In this form the size of the result
    # is simplified to the rounded-up quotient, which stays short over many layers.
    beyond = dilation * (kernel - 1) + 1 - stride
    total = stride * ((size + stride - 1) // stride) + beyond - size if stride > 1 else beyond
    if beyond < 0:  # A maximum is hard to trace, and a window at least as wide as the stride never needs it.
        total = max(total, 0)
    before = total // 2
    return before, total - before


_Sides = int | Sequence[int]


def pad_same(x: Tensor, kernel: _Sides, stride: _Sides, dilation: _Sides = 1, value: float = 0.0) -> Tensor:
    """Pad a map (B, C, h, w) as `same_padding` says. Numbers are for both sides, or for height and width."""
    window = [to_2tuple(sides) for sides in (kernel, stride, dilation)]
    rows, columns = (same_padding(*side) for side in zip(x.shape[-2:], *window, strict=True))
    return F.pad(x, (*columns, *rows), value=value)


class SameConv2d(Conv2dSame):
    """timm's SAME convolution, traceable."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, h, w) to (B, C_out, ceil(h / stride), ceil(w / stride))."""
        x = pad_same(x, self.kernel_size, self.stride, self.dilation)
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class SameMaxPool2d(MaxPool2dSame):
    """timm's SAME max pooling, traceable."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, ceil(h / stride), ceil(w / stride))."""
        x = pad_same(x, self.kernel_size, self.stride, self.dilation, value=-float("inf"))
        return F.max_pool2d(x, self.kernel_size, self.stride, 0, self.dilation, self.ceil_mode)


class SameAvgPool2d(AvgPool2dSame):
    """timm's SAME average pooling, traceable."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, ceil(h / stride), ceil(w / stride))."""
        x = pad_same(x, self.kernel_size, self.stride)
        return F.avg_pool2d(x, self.kernel_size, self.stride, 0, self.ceil_mode, self.count_include_pad)


_TRACEABLE: dict[type[nn.Module], type[nn.Module]] = {
    Conv2dSame: SameConv2d,
    MaxPool2dSame: SameMaxPool2d,
    AvgPool2dSame: SameAvgPool2d,
}


def make_padding_traceable(model: nn.Module) -> None:
    """Give every layer of a timm model that pads in this way the traceable class. Its answers stay the same."""
    for module in model.modules():
        # timm offers no way to choose the layer's class.
        module.__class__ = _TRACEABLE.get(type(module), type(module))
