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
from torch import Tensor, nn

COLUMNS, ROWS = 32, 16
"""Size of the blocks of the answer that are computed at once, so that operators stay narrow and maps in the cache."""


def enlarging(out: int, size: int, align_corners: bool) -> Tensor:
    """The matrix by which `interpolate(mode="bilinear")` enlarges or shrinks one side of a map.

    Args:
        out: Samples of the answer, at least 1; a symbolic size while a graph is traced.
        size: Samples of the map, at least 1.
        align_corners: As in `torch.nn.functional.interpolate`.

    Returns:
        (out, size) float64 on the CPU.
    """
    place = torch.arange(out, dtype=torch.float64, device="cpu")
    # torch takes the first sample where there is only one to compute.
    one = torch.full((), out - 1, dtype=torch.float64, device="cpu").clamp(min=1)
    place = place * ((size - 1) / one) if align_corners else (place + 0.5) * (size / out) - 0.5
    place = place.clamp(min=0, max=size - 1)
    return (1 - (place[:, None] - torch.arange(size, dtype=torch.float64, device="cpu")).abs()).clamp(min=0)


def shifted_enlarging(out: int, size: int, align_corners: bool) -> Tensor:
    """What each tap of a kernel of three reads of the enlarged map: (out, size, 3) float64, 0 beyond the border."""
    matrix = enlarging(out, size, align_corners)
    none = torch.zeros_like(matrix[:1])
    before, after = torch.cat([none, matrix[:-1]]), torch.cat([matrix[1:], none])
    return torch.stack([before, matrix, after], dim=2)


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

    def __init__(self, weights: Sequence[Tensor], align_corners: bool) -> None:
        """Rearrange the weights: the taps become channels of the answer of one matrix product.

        Args:
            weights: For each map, the part (D, C, 3, 3) of the kernel that reads it.
            align_corners: How the maps are enlarged.
        """
        super().__init__()
        self.align_corners = align_corners
        self.width = len(weights[0])
        # (ky, C, kx·D): for each row of the kernel, its three taps side by side.
        taps = [w.detach().permute(2, 1, 3, 0).reshape(3, w.shape[1], -1).contiguous() for w in weights]
        self.taps = nn.ParameterList(nn.Parameter(t, requires_grad=False) for t in taps)

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Convolve the enlarged maps.

        Args:
            maps: For each part of the kernel (B, C, h, w), of any sizes.
            size: (H, W) of the answer.

        Returns:
            (B, H, W, D), channels last, without bias.
        """
        inputs = [m.permute(0, 2, 3, 1) for m in maps]
        if torch.compiler.is_compiling():
            return self._whole(inputs, size)
        answer = inputs[0].new_empty(len(maps[0]), *size, self.width)
        for i, rows in enumerate(answer):
            self._fill(rows, [m[i] for m in inputs])
        return answer

    def _whole(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """All rows at once, with operators that a graph computes from sizes that are not known yet."""
        height, width = size
        across, down = [], []
        for m, taps in zip(maps, self.taps, strict=True):
            batch, h, w = m.shape[:3]
            operator = shifted_enlarging(width, w, self.align_corners).to(m.device, m.dtype).reshape(width, w * 3)
            products = (m.reshape(batch, 1, h * w, -1) @ taps).reshape(batch, 3, h, w * 3, self.width)
            across.append((operator @ products).reshape(batch, 3 * h, width * self.width))
            operator = shifted_enlarging(height, h, self.align_corners).to(m.device, m.dtype)
            down.append(operator.transpose(1, 2).reshape(height, 3 * h))
        return (torch.cat(down, 1) @ torch.cat(across, 1)).reshape(-1, height, width, self.width)

    def _fill(self, answer: Tensor, maps: Sequence[Tensor]) -> None:
        """Compute the answer (H, W, D) for one image from its maps (h, w, C)."""
        height, width, depth = answer.shape
        wide = [self._across(m, taps, width) for m, taps in zip(maps, self.taps, strict=True)]
        columns = [_blocks(height, len(m), self.align_corners, ROWS, m.dtype) for m in maps]
        for blocks in zip(*columns, strict=True):
            rows = answer[blocks[0].start : blocks[0].stop].view(-1, width * depth)
            for number, (block, m) in enumerate(zip(blocks, wide, strict=True)):
                source, operator = m[block.first : block.last].view(-1, width * depth), block.operator.to(m.device)
                torch.addmm(rows, operator, source, beta=min(number, 1), out=rows)

    def _across(self, m: Tensor, taps: Tensor, width: int) -> Tensor:
        """The products (h, ky, W, D) of a map (h, w, C), enlarged across and added up over kx."""
        h, w = m.shape[:2]
        flat = m.reshape(h * w, -1)
        wide = m.new_empty(h, 3, width, self.width)
        for ky in range(3):
            products = (flat @ taps[ky]).view(h, w * 3, self.width)
            for block in _blocks(width, w, self.align_corners, COLUMNS, m.dtype):
                source = products[:, 3 * block.first : 3 * block.last]
                wide[:, ky, block.start : block.stop] = block.operator.to(m.device) @ source
        return wide
