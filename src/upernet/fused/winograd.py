"""3×3 convolutions by Winograd's algorithm F(4×4, 3×3), as three matrix products (Lavin and Gray 2016).

A tile of 4×4 answers reads 6×6 positions. Its input is transformed to 36 values per channel, which are multiplied with
the transformed kernel, and the 36 products are transformed back: 36 multiply-adds in place of 144 for each pair of
channels. The transforms are matrix products too, so that no kernels of our own are needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TILES = 192
"""About how many tiles each thread transforms at once: their values stay in the cache."""
TRANSFORM = 96
"""What transforming one value costs, in multiply-adds: it is bound by memory, not by arithmetic."""
LARGEST = 36 * 512 * 512
"""Most values of a transformed kernel, 36 MiB in float32. Larger ones belong to small maps, for which reading the
kernel takes as long as is saved."""

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


def transform_matrices(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The matrices that transform tiles: (36, 36) from 6×6 positions, and (16, 36) to 4×4 answers."""
    rows, answers = (torch.tensor(m, dtype=torch.float64, device="cpu") for m in (_INPUT, _OUTPUT))
    return torch.kron(rows, rows).to(dtype), torch.kron(answers, answers).to(dtype)


def transform_kernel(weight: Tensor) -> Tensor:
    """A kernel (C_out, C_in, 3, 3), transformed in float64, as (36, C_in, C_out) of its own dtype."""
    points = torch.tensor(_KERNEL, dtype=torch.float64, device=weight.device)
    transformed = torch.einsum("ai,bj,ocij->abco", points, points, weight.detach().double())
    return transformed.flatten(0, 1).to(weight.dtype).contiguous()


def pays(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a module is a convolution that Winograd's algorithm computes with less work, the transforms included."""
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
    tile = 36 / 16
    small = 36 * channels * answers <= LARGEST
    return fits and small and tile * (channels * answers + TRANSFORM * (channels + answers)) < 9 * channels * answers


class Kernel(NamedTuple):
    """One of several convolutions of the same map.

    Attributes:
        weight: (36, C_in, C_out), transformed.
        bias: (C_out,).
        added: (B, H, W, C_out), added to the answer; or None.
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
    batch, channels, height, width = x.shape
    down, across = -(-height // 4), -(-width // 4)
    into, back = (m.to(x.device) for m in transform_matrices(x.dtype))
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 4 * across - width + 1, 1, 4 * down - height + 1)).contiguous()
    answers = [x.new_empty(batch, 4 * down, 4 * across, len(k.bias)) for k in kernels]
    image, row, column, _ = padded.stride()
    for images, rows in _bands(batch, down, across):
        count, high = images.stop - images.start, rows.stop - rows.start
        size, stride = (6, 6, count, high, across, channels), (row, column, image, 4 * row, 4 * column, 1)
        start = padded.storage_offset() + images.start * image + 4 * rows.start * row
        tiles = padded.as_strided(size, stride, start).reshape(36, -1)
        tiles = (into @ tiles).view(36, -1, channels)
        for kernel, answer in zip(kernels, answers, strict=True):
            products = torch.bmm(tiles, kernel.weight)
            products[BIAS_AT] += kernel.bias
            values = (back @ products.view(36, -1)).view(4, 4, count, high, across, -1)
            band = answer[images, 4 * rows.start : 4 * rows.stop]
            band.view(count, high, 4, across, 4, -1).copy_(values.permute(2, 3, 0, 4, 1, 5))
            if kernel.added is not None:
                own = kernel.added[images, 4 * rows.start : 4 * rows.stop]
                band[:, : own.shape[1], :width] += own
            if kernel.relu:
                band.relu_()
    # A cut answer is copied, so that it is channels last without gaps.
    return [answer[:, :height, :width].contiguous().permute(0, 3, 1, 2) for answer in answers]


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
    return _convolve(x, [Kernel(weight, bias, added, relu)])[0].contiguous()


@_winograd.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, added: Tensor | None = None, relu: bool = False) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[2], x.shape[2], x.shape[3])


class WinogradConv(nn.Module):
    """A 3×3 convolution with stride 1 and zero padding of 1, and the ReLU after it if there is one."""

    def __init__(self, convolution: nn.Conv2d, relu: bool = False) -> None:
        """Transform the weights of a convolution that `pays`."""
        super().__init__()
        weight, bias = convolution.weight, convolution.bias
        self.weight = nn.Parameter(transform_kernel(weight), requires_grad=False)
        bias = weight.new_zeros(len(weight)) if bias is None else bias.detach()
        self.bias = nn.Parameter(bias, requires_grad=False)
        self.relu = relu

    def kernel(self, added: Tensor | None = None) -> Kernel:
        """The weights for `convolve`."""
        return Kernel(self.weight, self.bias, added, self.relu)

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Convolve (B, C_in, H, W), with a map (B, H, W, C_out) that is added before the ReLU."""
        return convolve(x, [self.kernel(added)])[0]
