"""From a photograph of any size to the network and back to maps of the photograph's size."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from upernet.config import InferenceConfig, UserError
from upernet.tasks.base import Task

MIN_SIDE = 32
"""Smallest side, in pixels, that every backbone accepts."""

MAX_ASPECT = 8
"""A picture more elongated than this is enlarged less than `short_side` asks: a 1 px line must not fill the memory."""


def network_size(height: int, width: int, config: InferenceConfig) -> tuple[int, int]:
    """Size at which an image is shown to the network: aspect kept, rounded, no side under 32 px."""
    short, long = min(height, width), max(height, width)
    scale = config.short_side / short if config.short_side else 1.0
    if scale > 1:
        scale = min(scale, max(long, MAX_ASPECT * max(MIN_SIDE, short * scale)) / long)
    if config.max_side:
        scale = min(scale, config.max_side / long)
    return max(MIN_SIDE, round(height * scale)), max(MIN_SIDE, round(width * scale))


def network_input(image: Tensor, config: InferenceConfig) -> Tensor:
    """(3, H, W) uint8 RGB → (1, 3, h, w) float32 in [0, 1]."""
    size = network_size(image.shape[-2], image.shape[-1], config)
    x = image[None].float() / 255
    if size == tuple(image.shape[-2:]):
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=config.antialias).clamp(0, 1)


def resize(logits: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Bilinear (B, K, h, w) → (B, K, H, W)."""
    return F.interpolate(logits, size, mode="bilinear", align_corners=align_corners)


def order_tasks(tasks: Mapping[str, Task]) -> dict[str, Task]:
    """The same tasks, each after those it needs.

    Raises:
        UserError: If tasks need one another in a circle.
    """
    ordered: dict[str, Task] = {}
    while len(ordered) < len(tasks):
        ready = [
            n for n, t in tasks.items() if n not in ordered and all(m in ordered or m not in tasks for m in t.needs)
        ]
        if not ready:
            raise UserError(f"tasks need one another in a circle: {', '.join(n for n in tasks if n not in ordered)}")
        ordered |= {n: tasks[n] for n in ready}
    return ordered


def upsample_rows(logits: Tensor, size: tuple[int, int], start: int, stop: int, align_corners: bool) -> Tensor:
    """Rows `start` to `stop` of `F.interpolate(logits, size, mode="bilinear")`, without the other rows.

    Args:
        logits: (B, K, h, w) float32.
        size: (H, W) of the whole result.
        start: First row.
        stop: Row after the last.
        align_corners: The bilinear convention.

    Returns:
        (B, K, stop - start, W) float32.
    """
    height, (full, width) = logits.shape[2], size
    rows = torch.arange(start, stop, dtype=torch.float32, device=logits.device)
    if align_corners:
        y = rows * ((height - 1) / (full - 1) if full > 1 else 0.0)
    else:
        y = ((rows + 0.5) * (height / full) - 0.5).clamp(min=0)
    above = y.long().clamp(max=height - 1)
    below = (above + 1).clamp(max=height - 1)
    weight = (y - above)[:, None]
    narrow = logits[:, :, above] * (1 - weight) + logits[:, :, below] * weight
    # Classes innermost make this, softmax and arg-max two to five times as fast on a CPU.
    narrow = narrow.contiguous(memory_format=torch.channels_last)
    # The height stays, so that only columns are interpolated.
    return F.interpolate(narrow, (stop - start, width), mode="bilinear", align_corners=align_corners)
