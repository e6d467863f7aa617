"""3×3 convolutions of maps that were enlarged before, computed at the maps' own resolution.

Enlarging a map bilinearly and convolving it are both linear, so their order may change: each of the nine taps of the
kernel is a 1×1 convolution, which is computed before enlarging, on fewer positions; then the nine results are enlarged,
shifted and added up. The answer is the same up to rounding, at the borders too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upernet.fused.gather import add_taps
from upernet.fused.workspace import pieces
from upernet.model.bilinear import bilinear_matrix, read_by_taps
from upernet.model.constants import constant

COLUMNS, ROWS = 32, 16
"""Size of the blocks of the answer that are computed at once, so that operators stay narrow and maps in the cache."""


def shifted_enlarging(out: int, size: int, align_corners: bool) -> Tensor:
    """What each tap of a kernel of three reads of the enlarged map: (out, size, 3) float64, 0 beyond the border."""
    return read_by_taps(bilinear_matrix(size, out, align_corners, torch.float64)).permute(1, 2, 0)


class _Block(NamedTuple):
    """Neighbouring samples of an answer, and what they are computed from.

    Attributes:
        start: First sample of the answer.
        stop: Sample after the last.
        first: First sample of the map.
        last: Sample of the map after the last.
        operator: (stop - start, 3·(last - first)), a factor for each tap of each sample of the map.
    """

    start: int
    stop: int
    first: int
    last: int
    operator: Tensor


@lru_cache(maxsize=256)
def _blocks(out: int, size: int, align_corners: bool, step: int, dtype: torch.dtype) -> list[_Block]:
    """The operator of one side in blocks of `step` samples of the answer, without the zeros to their sides."""
    with torch.inference_mode(False):  # kept for callers with and without inference mode
        matrix = shifted_enlarging(out, size, align_corners).to(dtype)
        blocks = []
        for start in range(0, out, step):
            rows = matrix[start : start + step]
            used = rows.abs().sum(dim=(0, 2)).nonzero()
            first, last = int(used[0]), int(used[-1]) + 1
            operator = rows[:, first:last].reshape(len(rows), -1).contiguous()
            blocks.append(_Block(start, start + len(rows), first, last, operator))
        return blocks


class EnlargedConv(nn.Module):
    """The part of a 3×3 convolution that reads maps which were enlarged to the size of the answer."""

    def __init__(self, weights: Sequence[Tensor], align_corners: bool, whole: bool = True) -> None:
        """Rearrange the weights: the taps become channels of the answer of one matrix product.

        Args:
            weights: For each map, the part (D, C, 3, 3) of the kernel that reads it.
            align_corners: How the maps are enlarged.
            whole: Whether a traced graph holds the module as one operation of ours. If not, it holds ordinary ones.
        """
        super().__init__()
        self.align_corners = align_corners
        self.whole = whole
        # (ky, C, kx·D): for each row of the kernel, its three taps side by side.
        taps = [w.detach().permute(2, 1, 3, 0).reshape(3, w.shape[1], -1).contiguous() for w in weights]
        self.taps = nn.ParameterList(nn.Parameter(t, requires_grad=False) for t in taps)

    def forward(self, x: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Convolve the enlarged maps.

        Args:
            x: (B, C_0, H, W), of which only the size matters: that of the answer.
            maps: For each part of the kernel (B, C, h, w), of any sizes.

        Returns:
            (B, H, W, D), channels last, without bias.
        """
        if not torch.compiler.is_compiling():
            return _convolve(x, maps, list(self.taps), self.align_corners)
        if self.whole:
            answer: Tensor = torch.ops.upernet.enlarged_conv(x, list(maps), list(self.taps), self.align_corners)
            return answer
        return self._traceable(x, maps)

    def add_to(self, base: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Convolve the enlarged maps, and add a map to the answer.

        On a GPU, and in mixed precision, that takes a few large matrix products. Where a compiler traces it for a GPU,
        it is a gather.

        Args:
            base: (B, D, H, W).
            maps: As in `forward`.

        Returns:
            (B, D, H, W), channels last, of the type of `base`.
        """
        kind, traced = base.device.type, torch.compiler.is_compiling()
        if kind == "meta" or (kind == "cpu" and (traced or not torch.is_autocast_enabled("cpu"))):
            return base + self(base, maps).permute(0, 3, 1, 2)
        base = base.permute(0, 2, 3, 1)
        products = [_products(m, taps) for m, taps in zip(maps, self.taps, strict=True)]
        add = add_taps if traced else _add_by_matrices
        return add(base, products, self.align_corners).permute(0, 3, 1, 2)

    def _traceable(self, x: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """The same in operations that are traced with free sizes: no axis of unknown size is merged with another."""
        answer: Tensor | None = None
        for m, taps in zip(maps, self.taps, strict=True):
            weight = taps.transpose(1, 2).reshape(-1, taps.shape[1], 1, 1)
            products = F.conv2d(m, weight).chunk(9, dim=1)
            down, across = (
                read_by_taps(bilinear_matrix(size, out, self.align_corners, torch.float64)).to(m.device, m.dtype)
                for out, size in zip(x.shape[-2:], m.shape[-2:], strict=True)
            )
            left, middle, right = across.transpose(1, 2).unbind()
            for ky, rows in enumerate(down.unbind()):
                wide = products[3 * ky] @ left + products[3 * ky + 1] @ middle + products[3 * ky + 2] @ right
                own = rows @ wide
                answer = own if answer is None else answer + own
        assert answer is not None
        return answer.permute(0, 2, 3, 1)


def _products(m: Tensor, taps: Tensor) -> Tensor:
    """The products of a map (B, C, h, w) with the nine taps, as `add_taps` takes them: (3, B, h, w, 3, D)."""
    batch, channels, height, width = m.shape
    flat = m.permute(0, 2, 3, 1).reshape(1, -1, channels)
    return torch.matmul(flat, taps).view(3, batch, height, width, 3, -1)


def _add_by_matrices(base: Tensor, products: Sequence[Tensor], align_corners: bool) -> Tensor:
    """The same as `add_taps`, by one matrix product for the columns of each map and one for all rows together."""
    batch, height, width, channels = base.shape
    downs, wide = [], []
    for product in products:
        h, w = product.shape[2:4]
        device, dtype = product.device, product.dtype
        across = constant(_columns, width, w, align_corners, device=device, dtype=dtype)
        wide.append((across @ product.flatten(3, 4)).transpose(0, 1))  # (B, 3, h, W, D)
        downs.append(constant(_rows, height, h, align_corners, device=device, dtype=dtype))  # (H, 3, h)
    down = torch.cat(downs, 2).flatten(1).expand(batch, -1, -1)
    sources = torch.cat(wide, 2).view(batch, -1, width * channels)
    return torch.baddbmm(base.reshape(batch, height, -1), down, sources).view_as(base)


def _columns(out: int, size: int, align_corners: bool) -> Tensor:
    """The matrix (out, 3·size) that enlarges a row: for each sample of the map its three taps."""
    return shifted_enlarging(out, size, align_corners).flatten(1)


def _rows(out: int, size: int, align_corners: bool) -> Tensor:
    """The matrix (out, 3, size) that enlarges a column: for each tap all samples of the map."""
    return shifted_enlarging(out, size, align_corners).transpose(1, 2).contiguous()


def _convolve(x: Tensor, maps: Sequence[Tensor], taps: Sequence[Tensor], align_corners: bool) -> Tensor:
    height, width = x.shape[-2:]
    answer = maps[0].new_empty(len(x), height, width, taps[0].shape[2] // 3)
    for image, filled in enumerate(answer):
        for number, (m, kernel) in enumerate(zip(maps, taps, strict=True)):
            wide = _across(m[image], kernel, width, align_corners)
            for block in _blocks(height, m.shape[2], align_corners, ROWS, m.dtype):
                rows = filled[block.start : block.stop].view(block.stop - block.start, -1)
                source = wide[block.first : block.last].view(-1, rows.shape[1])
                torch.addmm(rows, block.operator.to(m.device), source, beta=min(number, 1), out=rows)
    return answer


def _across(m: Tensor, taps: Tensor, width: int, align_corners: bool) -> Tensor:
    """The products (h, ky, W, D) of a map (C, h, w), enlarged across and added up over kx."""
    channels, h, w = m.shape
    flat = m.permute(1, 2, 0).reshape(h * w, channels)
    depth = taps.shape[2] // 3
    wide, products = pieces(m, (h, 3, width, depth), (h, 3 * w, depth))
    for ky in range(3):
        torch.mm(flat, taps[ky].to(m.dtype), out=products.view(h * w, -1))
        for block in _blocks(width, w, align_corners, COLUMNS, m.dtype):
            source = products[:, 3 * block.first : 3 * block.last]
            wide[:, ky, block.start : block.stop] = block.operator.to(m.device) @ source
    return wide


@torch.library.custom_op("upernet::enlarged_conv", mutates_args=())
def _enlarged_conv(x: Tensor, maps: list[Tensor], taps: list[Tensor], align_corners: bool) -> Tensor:
    """`EnlargedConv` as an operation that a traced graph holds whole."""
    return _convolve(x, maps, taps, align_corners)


@_enlarged_conv.register_fake
def _(x: Tensor, maps: list[Tensor], taps: list[Tensor], align_corners: bool) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[2], x.shape[3], taps[0].shape[2] // 3)
