"""A 3×3 convolution over maps that are resized and put together first, with its products at each map's own size.

Resizing and convolution are linear: conv(concat_l up(f_l)) = Σ_l Σ_taps shift(up(W_l,tap f_l)). The channels of a map
are mixed by its weights where it has few pixels, nine times (once for each tap); the nine results are resized, shifted
and added. Resizing and shifting are matrices from the left and the right; a shift's zero padding is a row of zeros:

    out = Σ_dy Y_dy (Σ_dx (f W_dy,dx) X_dx),   Y_dy: (H, h), X_dx: (W, w)

Neither the resized maps nor their concatenation is ever made, and the gradient needs the maps themselves alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from upernet.model.bilinear import cached_matrix, read_by_taps


def conv_of_resized(maps: Sequence[Tensor], weight: Tensor, align_corners: bool) -> Tensor:
    """3×3 convolution, padded by zeros, over maps that are resized bilinearly to the first one's size and concatenated.

    Args:
        maps: (B, C_i, h_i, w_i), the first one (B, C_0, H, W); of a floating type.
        weight: (D, Σ C_i, 3, 3).
        align_corners: The bilinear convention.

    Returns:
        (B, D, H, W), with channels innermost. Equal to the formula up to rounding; so is its gradient.
    """
    device, size = maps[0].device.type, (maps[0].shape[2], maps[0].shape[3])
    weights = weight.split([m.shape[1] for m in maps], dim=1)
    by_taps = [is_less_work(m.shape, weight.shape[0], size) for m in maps]
    whole = [(m, w) for m, w, taps in zip(maps, weights, by_taps, strict=True) if not taps]
    coarse = [(m, w) for m, w, taps in zip(maps, weights, by_taps, strict=True) if taps]
    full = [
        m if m.shape[2:] == size else F.interpolate(m, size, mode="bilinear", align_corners=align_corners)
        for m, _ in whole
    ]
    # The first map has the full size, so that there always is one to convolve as usual.
    out = F.conv2d(_joined(full), _joined([w for _, w in whole]), padding=1)
    if not coarse:
        return out
    out = out.contiguous(memory_format=torch.channels_last)
    with torch.autocast(device, enabled=False):  # the convolution above has chosen the precision
        inputs = [t.to(out.dtype) for m, w in coarse for t in (m, w)]
        result: Tensor = _Taps.apply(align_corners, out, *inputs)
    return result


def is_less_work(shape: Sequence[int], channels: int, size: tuple[int, int]) -> bool:
    """Whether products at a map's own size take fewer multiply-adds than at the full size, resizing included.

    Args:
        shape: (B, C, h, w) of the map.
        channels: Channels of the convolution's result, D.
        size: (H, W) of the result.
    """
    _, c, h, w = shape
    products, across, down = 9 * h * w * c, 9 * h * w * size[1], 3 * h * size[0] * size[1]
    return (h, w) != size and products + across + down < 9 * size[0] * size[1] * c


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tuple(tensors), dim=1)


class _Taps(torch.autograd.Function):
    """Add the convolutions of coarser maps to that of the maps at full size."""

    @staticmethod
    def forward(ctx: Any, align_corners: bool, base: Tensor, *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*inputs)
        ctx.align_corners = align_corners
        ctx.mark_dirty(base)
        batch, channels, height, width = base.shape
        out = base.permute(0, 2, 3, 1).view(batch, height, width * channels)
        for f, weight in zip(inputs[::2], inputs[1::2], strict=True):
            rows, columns = _matrices(f, (height, width), align_corners)
            pixels = _pixels(f)
            for dy in range(3):
                taps = (pixels @ _row_of_taps(weight, dy).T).view(-1, 3 * f.shape[3], channels)
                wide = (columns @ taps).view(batch, f.shape[2], width * channels)
                out.baddbmm_(rows[dy].expand(batch, -1, -1), wide)
        return base

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        batch, channels, height, width = gradient.shape
        above = gradient.permute(0, 2, 3, 1).view(batch, height, width * channels)
        gradients: list[Tensor] = []
        for f, weight in zip(inputs[::2], inputs[1::2], strict=True):
            rows, columns = _matrices(f, (height, width), ctx.align_corners)
            pixels = _pixels(f)
            of_pixels = torch.zeros_like(pixels)
            of_weight = torch.empty_like(weight)
            for dy in range(3):
                wide = (rows[dy].T @ above).view(-1, width, channels)
                taps = (columns.T @ wide).view(-1, 3 * channels)
                of_pixels.addmm_(taps, _row_of_taps(weight, dy))
                of_weight[:, :, dy] = (taps.T @ pixels).view(3, channels, -1).permute(1, 2, 0)
            shape = f.shape[0], f.shape[2], f.shape[3], f.shape[1]
            gradients += [of_pixels.view(shape).permute(0, 3, 1, 2), of_weight]
        return None, gradient, *gradients


def _pixels(f: Tensor) -> Tensor:
    """(B, C, h, w) as (B·h·w, C)."""
    return f.permute(0, 2, 3, 1).reshape(-1, f.shape[1])


def _row_of_taps(weight: Tensor, dy: int) -> Tensor:
    """(3·D, C): the weights of the three taps of a row, one tap after the other."""
    return weight[:, :, dy].permute(2, 0, 1).reshape(-1, weight.shape[1])


def _matrices(f: Tensor, size: tuple[int, int], align_corners: bool) -> tuple[Tensor, Tensor]:
    """Y (3, H, h), and X (W, w·3) in the order of `_pixels` times `_row_of_taps`: samples, and for each its taps."""
    rows, columns = (
        read_by_taps(cached_matrix(before, after, align_corners, f.device).to(f.dtype))
        for before, after in zip(f.shape[2:], size, strict=True)
    )
    return rows, columns.permute(1, 2, 0).reshape(size[1], -1)
