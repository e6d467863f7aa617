"""Quick gradients of convolutions on a CPU, where maps have channels innermost.

PyTorch computes the gradient of a convolution's weights several times more slowly in that layout than in its default
one, and everything else more quickly. As one matrix product per tap it is the quickest in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode


class QuickWeightGradients(TorchFunctionMode):
    """A context in which `torch.conv2d` on a CPU gets its weights' gradient from matrix products.

    Results are those of PyTorch, gradients are equal up to rounding. Convolutions in groups, of 1×1, with dilation, in
    half precision and on other devices are left to PyTorch.
    """

    _entered: ClassVar[int] = 0

    def __enter__(self) -> Self:
        QuickWeightGradients._entered += 1
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        QuickWeightGradients._entered -= 1
        super().__exit__(*error)

    @classmethod
    def again(cls) -> AbstractContextManager[object]:
        """Such a context if one is open, and otherwise an empty one."""
        return cls() if cls._entered else nullcontext()

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.conv2d:
            return _convolve(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _convolve(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    quick = (
        groups == 1
        and not isinstance(padding, str)
        and _pair(dilation) == (1, 1)
        and max(weight.shape[2:]) > 1
        and input.ndim == 4
        and input.device.type == "cpu"
        and input.dtype == weight.dtype == torch.float32
        and torch.is_grad_enabled()
        and weight.requires_grad
        and not torch.is_autocast_enabled("cpu")
        and input.is_contiguous(memory_format=torch.channels_last)
    )
    if not quick:
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    out = _Convolution.apply(input, weight, _pair(stride), _pair(padding))
    return out if bias is None else out + bias[:, None, None]


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.settings = stride, padding
        return F.conv2d(x, weight, None, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding = ctx.settings
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x, _, _ = torch.ops.aten.convolution_backward(
                gradient, x, weight, None, stride, padding, (1, 1), False, (0, 0), 1, (True, False, False)
            )
        return of_x, _weight_gradient(gradient, x, weight, stride, padding), None, None


def _weight_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """(D, C, k_h, k_w): for each tap, the product of the result's gradients and the pixels that the tap saw."""
    channels, height, width = gradient.shape[1:]
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0]))
    result = torch.empty_like(weight, memory_format=torch.channels_last)
    # An image at a time, whose pixels stay in the caches better than those of a whole batch.
    for i, (own, image) in enumerate(zip(gradient.permute(0, 2, 3, 1), padded, strict=True)):
        above = own.reshape(-1, channels).T
        for dy in range(weight.shape[2]):
            rows = image[dy : dy + stride[0] * (height - 1) + 1 : stride[0]]
            for dx in range(weight.shape[3]):
                seen = rows[:, dx : dx + stride[1] * (width - 1) + 1 : stride[1]].reshape(-1, weight.shape[1])
                product = above @ seen
                if i:
                    result[:, :, dy, dx] += product
                else:
                    result[:, :, dy, dx] = product
    return result
