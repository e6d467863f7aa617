"""Bilinear upsampling of logits, whole or a few rows at a time.

The bilinear convention is `align_corners` of `torch.nn.functional.interpolate`. The filter is not widened when
shrinking.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from upernet.resize import Size

BAND = 2**19
"""Most values in a band of logits, images × classes × rows × width: 2 MiB of float32, which fit into a CPU's cache."""


def resize(logits: Tensor, size: Size, align_corners: bool) -> Tensor:
    """Resize logits bilinearly, (B, K, h, w) → (B, K, H, W)."""
    return F.interpolate(logits, size, mode="bilinear", align_corners=align_corners)


def upsample_rows(
    logits: Tensor,
    size: Size,
    start: int,
    stop: int,
    align_corners: bool,
    *,
    height: int | None = None,
    first: int = 0,
) -> Tensor:
    """Rows `start` to `stop` of `resize(logits, size, align_corners)`, without the other rows.

    Args:
        logits: (B, K, h, w) float32: the whole map, or some rows of it, among them those given by `source_rows`.
        size: (H, W) of the whole result.
        start: First row of the result.
        stop: Row of the result after the last.
        align_corners: The bilinear convention.
        height: Rows of the whole map; None if `logits` is the whole map.
        first: The row of the whole map with which `logits` starts.

    Returns:
        (B, K, stop - start, W) float32.
    """
    above, below, weight = neighbours(
        logits.shape[2] if height is None else height, size[0], start, stop, align_corners, logits.device
    )
    weight = weight[:, None]
    narrow = logits[:, :, above - first] * (1 - weight) + logits[:, :, below - first] * weight
    # Classes innermost make this, softmax and arg-max two to five times as fast on a CPU.
    narrow = narrow.contiguous(memory_format=torch.channels_last)
    # The height stays, so that only columns are interpolated.
    return F.interpolate(narrow, (stop - start, size[1]), mode="bilinear", align_corners=align_corners)


def source_rows(
    height: int, full: int, start: int, stop: int, align_corners: bool, device: torch.device
) -> tuple[int, int]:
    """First row, and row after the last, of the part of a map from which resized rows `start` to `stop` are computed.

    Args:
        height: Rows of the map.
        full: Rows of the map once it is resized.
        start: First of the resized rows.
        stop: Resized row after the last.
        align_corners: The bilinear convention.
        device: The device on which `upsample_rows` will compute, so that both round alike.
    """
    above, below, _ = neighbours(height, full, start, stop, align_corners, device)
    return int(above[0]), int(below[-1]) + 1


def neighbours(
    length: int, full: int, start: int, stop: int, align_corners: bool, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """The two rows of a map, or its two columns, between which each row or column of the resized map lies.

    Args:
        length: Rows of the map.
        full: Rows of the map once it is resized.
        start: First of the resized rows.
        stop: Resized row after the last.
        align_corners: The bilinear convention.
        device: Device of the result.

    Returns:
        The row above and the row below, int64, and the weight of the row below, float32 in [0, 1].
    """
    rows = torch.arange(start, stop, dtype=torch.float32, device=device)
    if align_corners:
        y = rows * ((length - 1) / (full - 1) if full > 1 else 0.0)
    else:
        y = ((rows + 0.5) * (length / full) - 0.5).clamp(min=0)
    above = y.long().clamp(max=length - 1)
    return above, (above + 1).clamp(max=length - 1), y - above
