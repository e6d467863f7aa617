"""3×3 convolutions by Winograd's algorithm F(4×4, 3×3), as three matrix products (Lavin and Gray 2016).

A tile of 4×4 answers reads 6×6 positions. Its input is transformed to 36 values per channel, which are multiplied with
the transformed kernel, and the 36 products are transformed back: 36 multiply-adds in place of 144 for each pair of
channels. The transforms are matrix products too, so that no kernels of our own are needed.

A transformed kernel takes four times the memory of the kernel. It is made anew on every call, which takes a few
thousandths of the time that the algorithm saves, and all kernels are made in the same memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upernet.fused.workspace import pieces

TILES = 192
"""About how many tiles each thread transforms at once: their values stay in the cache."""
TRANSFORM = 96
"""What transforming one value of a map costs, in multiply-adds: it is bound by memory, not by arithmetic."""
KERNEL = 80
"""What transforming one value of a kernel, and reading it once more, costs in multiply-adds."""
LARGEST = 36 * 512 * 512
"""Most values of a transformed kernel, 36 MiB in float32."""

# Lavin and Gray 2016, section 4.1, with the points 0, ±1, ±2 and ∞.
_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_OUTPUT = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)
BIAS_AT = 7
"""Which of the 36 products reaches all 16 answers with factor 1, so that the bias is added there."""


def transform_matrices(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The matrices that transform both sides of a tile at once.

    Returns:
        (36, 36) for 6×6 positions of a map, (36, 9) for the taps of a kernel, and (16, 36) from the products to 4×4
        answers.
    """
    sides = (torch.tensor(m, dtype=torch.float64, device="cpu") for m in (_INPUT, _KERNEL, _OUTPUT))
    into, kernel, back = (torch.kron(side, side).to(dtype) for side in sides)
    return into, kernel, back


def pays(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a module is a convolution that Winograd's algorithm computes with less work where maps are large."""
    if type(module) is not nn.Conv2d:
        return False
    fits = (
        module.kernel_size == (3, 3)
        and module.stride == module.dilation == (1, 1)
        and module.padding in ((1, 1), "same")
        and module.padding_mode == "zeros"
        and module.groups == 1
    )
    channels, answers = module.in_channels, module.out_channels
    if not fits or 36 * channels * answers > LARGEST:
        return False
    return _is_less_work((1, channels, 1024, 1024), answers)


def _is_less_work(shape: Sequence[int], answers: int) -> bool:
    """Whether tiles take less work than the plain convolution.

    Args:
        shape: (B, C_in, H, W) of the map.
        answers: Channels of the answer, C_out; of several convolutions of the same map together.
    """
    batch, channels, height, width = shape
    tiles = batch * -(-height // 4) * -(-width // 4)
    products = tiles * (channels * answers + TRANSFORM * (channels + answers))
    return 36 * (products + KERNEL * channels * answers) < 9 * batch * height * width * channels * answers


class Kernel(NamedTuple):
    """One of several convolutions of the same map.

    Attributes:
        weight: (C_out, C_in, 9), the taps row by row.
        bias: (C_out,).
        added: (B, H, W, C_out), added to the answer, which may take its place in memory; or None.
        relu: Whether negative answers become 0.
    """

    weight: Tensor
    bias: Tensor
    added: Tensor | None = None
    relu: bool = False


def convolve(x: Tensor, kernels: Sequence[Kernel]) -> list[Tensor]:
    """Convolve a map with zero padding of 1. The map is transformed once for all kernels.

    Args:
        x: (B, C_in, H, W).
        kernels: The convolutions.

    Returns:
        For each kernel (B, C_out, H, W), channels last in memory.
    """
    if torch.compiler.is_compiling():
        return [torch.ops.upernet.winograd(x, *kernel) for kernel in kernels]
    return _convolve(x, kernels)


def _convolve(x: Tensor, kernels: Sequence[Kernel]) -> list[Tensor]:
    exact = x.dtype in (torch.float32, torch.float64)  # in bf16 or fp16 the transforms would lose too many digits
    if exact and _is_less_work(x.shape, sum(len(kernel.bias) for kernel in kernels)):
        return _convolve_tiles(x, kernels)
    return [_convolve_plainly(x, kernel) for kernel in kernels]


def _convolve_plainly(x: Tensor, kernel: Kernel) -> Tensor:
    answer = F.conv2d(x, kernel.weight.unflatten(2, (3, 3)), kernel.bias, padding=1)
    answer = answer.contiguous(memory_format=torch.channels_last)
    if kernel.added is not None:
        answer += kernel.added.permute(0, 3, 1, 2)
    return answer.relu_() if kernel.relu else answer


def _convolve_tiles(x: Tensor, kernels: Sequence[Kernel]) -> list[Tensor]:
    batch, channels, height, width = x.shape
    down, across = -(-height // 4), -(-width // 4)
    into, kernel_matrix, back = (m.to(x.device) for m in transform_matrices(x.dtype))
    bands = list(_bands(batch, down, across))
    most = across * max((images.stop - images.start) * (rows.stop - rows.start) for images, rows in bands)
    widest = max(len(kernel.bias) for kernel in kernels)
    padded, first, second, third, *weights = pieces(
        x,
        (batch, 4 * down + 2, 4 * across + 2, channels),
        (36 * most * max(channels, widest),),  # for positions, and then for products
        (36 * most * channels,),
        (16 * most * widest,),
        *((36, len(kernel.bias), channels) for kernel in kernels),
    )
    _pad(x.permute(0, 2, 3, 1), padded)
    for kernel, weight in zip(kernels, weights, strict=True):
        torch.mm(kernel_matrix, kernel.weight.view(-1, 9).T, out=weight.view(36, -1))
    shapes = [(batch, 4 * down, 4 * across, len(kernel.bias)) for kernel in kernels]
    answers = [
        kernel.added if kernel.added is not None and kernel.added.shape == shape else x.new_empty(shape)
        for kernel, shape in zip(kernels, shapes, strict=True)
    ]
    image, row, column, _ = padded.stride()
    for images, rows in bands:
        count, high = images.stop - images.start, rows.stop - rows.start
        tiles = count * high * across
        size, stride = (6, 6, count, high, across, channels), (row, column, image, 4 * row, 4 * column, 1)
        start = padded.storage_offset() + images.start * image + 4 * rows.start * row
        positions = _part(first, size).copy_(padded.as_strided(size, stride, start))
        values = torch.mm(into, positions.view(36, -1), out=_part(second, (36, tiles * channels)))
        for kernel, weight, answer in zip(kernels, weights, answers, strict=True):
            products = _part(first, (36, tiles, len(kernel.bias)))
            torch.bmm(values.view(36, tiles, channels), weight.transpose(1, 2), out=products)
            products[BIAS_AT] += kernel.bias
            blocks = _part(third, (16, products[0].numel()))
            torch.mm(back, products.view(36, -1), out=blocks)
            band = answer[images, 4 * rows.start : 4 * rows.stop]
            ordered = blocks.view(4, 4, count, high, across, -1).permute(2, 3, 0, 4, 1, 5)
            if answer is kernel.added:
                band.view(count, high, 4, across, 4, -1).add_(ordered)
            else:
                band.view(count, high, 4, across, 4, -1).copy_(ordered)
                if kernel.added is not None:
                    own = kernel.added[images, 4 * rows.start : 4 * rows.stop]
                    band[:, : own.shape[1], :width] += own
            if kernel.relu:
                band.relu_()
    # A cut answer is copied, so that it is channels last without gaps.
    return [answer[:, :height, :width].contiguous().permute(0, 3, 1, 2) for answer in answers]


def _part(memory: Tensor, shape: Sequence[int]) -> Tensor:
    return memory[: math.prod(shape)].view(tuple(shape))


def _pad(x: Tensor, padded: Tensor) -> None:
    """Copy a map (B, H, W, C) into a larger one, with zeros around it: one row above and one column before."""
    _, height, width, _ = x.shape
    padded[:, 1 : height + 1, 1 : width + 1] = x
    for border in (padded[:, 0], padded[:, height + 1 :], padded[:, :, 0], padded[:, :, width + 1 :]):
        border.zero_()


def _bands(batch: int, down: int, across: int) -> Iterator[tuple[slice, slice]]:
    """Images, and rows of tiles, that are convolved at once."""
    limit = TILES * torch.get_num_threads()
    if down * across > limit:
        high = max(1, round(limit / across))
        for i in range(batch):
            for top in range(0, down, high):
                yield slice(i, i + 1), slice(top, min(top + high, down))
    else:
        count = limit // (down * across)
        for i in range(0, batch, count):
            yield slice(i, min(i + count, batch)), slice(0, down)


@torch.library.custom_op("upernet::winograd", mutates_args=())
def _winograd(x: Tensor, weight: Tensor, bias: Tensor, added: Tensor | None = None, relu: bool = False) -> Tensor:
    """`convolve` with one kernel, as an operation that a traced graph holds whole."""
    # Tracing asks much of maps in another layout, and engines choose their own.
    kernel = Kernel(weight, bias, None if added is None else added.clone(), relu)
    return _convolve(x, [kernel])[0].contiguous()


@_winograd.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, added: Tensor | None = None, relu: bool = False) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0], x.shape[2], x.shape[3])


class WinogradConv(nn.Module):
    """A 3×3 convolution with stride 1 and zero padding of 1, and the ReLU after it if there is one."""

    def __init__(self, convolution: nn.Conv2d, relu: bool = False) -> None:
        """Take over the weights of a convolution that `pays`."""
        super().__init__()
        weight, bias = convolution.weight.detach(), convolution.bias
        self.weight = nn.Parameter(weight.flatten(2).contiguous(), requires_grad=False)
        bias = weight.new_zeros(len(weight)) if bias is None else bias.detach()
        self.bias = nn.Parameter(bias, requires_grad=False)
        self.relu = relu

    def kernel(self, added: Tensor | None = None) -> Kernel:
        """The weights for `convolve`."""
        return Kernel(self.weight, self.bias, added, self.relu)

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Convolve (B, C_in, H, W), with a map (B, H, W, C_out) that is added before the ReLU."""
        return convolve(x, [self.kernel(added)])[0]
