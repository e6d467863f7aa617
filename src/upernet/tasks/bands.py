"""What a loss needs of the logits at the target's size, computed in bands of rows from the logits of the head.

The map of all classes at the target's size is the largest array of a training step, several times over: logits,
log-probabilities and the gradients of both. A loss needs little of it: the log-probability of the truth at each pixel,
or a few sums. These summaries are computed a band at a time, and a band is computed anew for its gradient, so that only
arrays of the head's own size and one band are ever held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from upernet.model.bilinear import cached_matrix, support

Summarise = Callable[[Tensor, Tensor], Sequence[Tensor]]
"""Logits (B, K, r, W) and groups (B, r, W) of a band of rows, float32 and int64, to its summaries."""

BAND_BYTES = {"cpu": 8 * 2**20, "cuda": 128 * 2**20}
"""Size of a band's logits: on a CPU what its caches hold, on a GPU enough to keep it busy. At least a row is taken."""


def summaries(
    logits: Tensor, groups: Tensor, summarise: Summarise, joined: Sequence[bool], align_corners: bool
) -> tuple[Tensor, ...]:
    """The summaries of logits that are resized bilinearly to the size of the groups, without resizing them whole.

    Args:
        logits: (B, K, h, w) of any floating type.
        groups: int64 (B, H, W).
        summarise: Computes a band's summaries with differentiable operations. It is called once more for each band when
            the gradient is computed.
        joined: For each summary whether those of the bands are joined along their rows, (B, S, r, W) to (B, S, H, W),
            or added.
        align_corners: The bilinear convention.

    Returns:
        The summaries of the whole map, float32.
    """
    result: tuple[Tensor, ...] = _Summaries.apply(logits, groups, summarise, tuple(joined), align_corners)
    return result


class _Bands:
    """The bands of one map."""

    def __init__(self, logits: Tensor, groups: Tensor, align_corners: bool):
        # Rows are made by a matrix product from the left and columns by one from the right, which on a CPU takes half
        # the time of `interpolate`. The gradients are matrix products too, the same ones in every run.
        self.logits, self.groups = logits.float().contiguous(), groups
        (h, w), (full_h, full_w) = logits.shape[2:], groups.shape[1:]
        self.sizes = h, full_h, align_corners
        self.down = cached_matrix(*self.sizes, logits.device)
        self.across = cached_matrix(w, full_w, align_corners, logits.device).T
        row = 4 * logits.shape[0] * logits.shape[1] * full_w
        rows = max(1, BAND_BYTES.get(logits.device.type, BAND_BYTES["cuda"]) // row)
        self.bounds = [(start, min(start + rows, full_h)) for start in range(0, full_h, rows)]

    def source(self, start: int, stop: int) -> slice:
        """The rows of the logits that a band is computed from."""
        return slice(*support(*self.sizes, start, stop))

    def resized(self, part: Tensor, start: int, stop: int) -> Tensor:
        """(B, K, stop - start, W) from the rows `source`."""
        # Columns last: they make the map large.
        return (self.down[start:stop, self.source(start, stop)] @ part) @ self.across


class _Summaries(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, groups: Tensor, summarise: Summarise, joined: tuple[bool, ...], align_corners: bool
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(logits, groups)
        ctx.settings = summarise, joined, align_corners
        found: list[Sequence[Tensor]] = []
        with torch.autocast(logits.device.type, enabled=False):
            bands = _Bands(logits, groups, align_corners)
            for start, stop in bands.bounds:
                part = bands.logits[:, :, bands.source(start, stop)]
                found.append(summarise(bands.resized(part, start, stop), groups[:, start:stop]))
        return tuple(
            torch.cat(each, dim=2) if join else torch.stack(each).sum(0)
            for join, each in zip(joined, zip(*found, strict=True), strict=True)
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        logits, groups = ctx.saved_tensors
        summarise, joined, align_corners = ctx.settings
        with torch.autocast(logits.device.type, enabled=False):
            bands = _Bands(logits, groups, align_corners)
            total = torch.zeros_like(bands.logits)
            for start, stop in bands.bounds:
                rows = bands.source(start, stop)
                part = bands.logits[:, :, rows].detach().requires_grad_()
                with torch.enable_grad():
                    own = summarise(bands.resized(part, start, stop), groups[:, start:stop])
                above = [g[:, :, start:stop] if join else g for join, g in zip(joined, gradients, strict=True)]
                (gradient,) = torch.autograd.grad(own, part, above)
                total[:, :, rows] += gradient
        return total.to(logits.dtype), None, None, None, None
