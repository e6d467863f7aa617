"""The class of the largest upsampled logit at every pixel, without upsampling the logits everywhere.

Four neighbouring values of a map are the corners of a cell, and bilinear interpolation mixes them with weights that are
not negative and add up to one. Two things follow for all pixels of a cell:

- A class that has the largest logit at all four corners has it at every pixel. Only the other cells, which lie along
  the borders between classes, are interpolated.
- Some class reaches the largest of the classes' smallest corners at every pixel. A class whose corners are all below
  that value has the largest logit nowhere in the cell.

So the answer is the arg-max of the logits interpolated in exact arithmetic, the first of equal classes included, except
that rounding decides between classes whose interpolated logits differ by less than that. Logits must be finite: zero
times infinity is no number, wherever they are interpolated.
"""

from __future__ import annotations

import torch
from torch import Tensor

from upernet.inference.upsample import BAND, neighbours, upsample_rows
from upernet.resize import Size

AT_ONCE = 2**16
"""Most values in the corners of the cells that are interpolated together: cells × 4 × classes. A few neighbouring cells
have few classes between them."""

MOST = 0.75
"""Share of the cells above which it takes less time to interpolate all pixels, as for a network without training."""

FEWEST = 4
"""Pixels per cell below which it takes less time to interpolate all pixels, as when shrinking."""


def largest_class(
    logits: Tensor, size: Size, start: int, stop: int, align_corners: bool, where: Tensor | None = None
) -> Tensor:
    """Rows `start` to `stop` of `resize(logits, size, align_corners).argmax(1)`.

    Args:
        logits: (B, K, h, w) float32, fastest with channels last in memory.
        size: (H, W) of the whole result, in each direction larger or smaller than the map.
        start: First row of the result.
        stop: Row of the result after the last.
        align_corners: The bilinear convention.
        where: (B, stop - start, W) bool: the pixels that matter; the others may hold any class. None for all.

    Returns:
        (B, stop - start, W) int64.
    """
    _, classes, height, width = logits.shape
    y = _Side(height, size[0], start, stop, align_corners, logits.device)
    x = _Side(width, size[1], 0, size[1], align_corners, logits.device)
    pixels = y.offsets.shape[1] * x.offsets.shape[1]
    if (stop - start) * size[1] < FEWEST * y.rows * x.rows or pixels * classes > BAND:
        return _everywhere(logits, size, start, stop, align_corners)
    used = logits[:, :, y.first : y.first + y.rows, x.first : x.first + x.rows]
    flat = used.permute(0, 2, 3, 1).contiguous()
    likeliest = flat.argmax(-1)
    upper, lower = likeliest[:, y.before], likeliest[:, y.after]
    corner = upper[:, :, x.before]
    mixed = (corner != upper[:, :, x.after]) | (corner != lower[:, :, x.before]) | (corner != lower[:, :, x.after])
    # Left out are cells without a pixel, which there are where one side shrinks, or without a pixel that matters.
    mixed &= (y.counts > 0)[:, None] & (x.counts > 0)
    if where is not None:
        image, row, column = where.nonzero(as_tuple=True)
        matters = torch.zeros_like(mixed)
        matters[image, y.cells[row], x.cells[column]] = True
        mixed &= matters
    ids = corner[:, y.cells][:, :, x.cells]
    image, i, j = mixed.nonzero(as_tuple=True)
    if not len(image):
        return ids
    if len(image) > MOST * mixed.numel():
        return _everywhere(logits, size, start, stop, align_corners)
    above, below = (image * y.rows + y.before[i]) * x.rows, (image * y.rows + y.after[i]) * x.rows
    left, right = x.before[j], x.after[j]
    corners = torch.stack([above + left, above + right, below + left, below + right], 1)
    weights = (y.weights[i][:, :, None, :, None] * x.weights[j][:, None, :, None, :]).reshape(-1, pixels, 4)
    step = max(1, AT_ONCE // (4 * classes))
    winners = [
        _winners(flat.view(-1, classes)[some], share)
        for some, share in zip(corners.split(step), weights.split(step), strict=True)
    ]
    target = (image[:, None] * (stop - start) + y.offsets[i])[:, :, None] * size[1] + x.offsets[j][:, None]
    # A cell of fewer pixels than the largest repeats its last one, with the same weights and the same answer.
    ids.view(-1)[target.flatten()] = torch.cat(winners).flatten()
    return ids


def _everywhere(logits: Tensor, size: Size, start: int, stop: int, align_corners: bool) -> Tensor:
    """The same from all pixels' logits, a band at a time."""
    rows = max(1, BAND // (logits.shape[0] * logits.shape[1] * size[1]))
    spans = [(first, min(first + rows, stop)) for first in range(start, stop, rows)]
    return torch.cat([upsample_rows(logits, size, *span, align_corners).argmax(1) for span in spans], 1)


class _Side:
    """The cells along one side of a map, and the pixels of the resized map that lie in each.

    A cell reaches from one row of the map to the next (or from one column to the next). The first and the last have the
    same row at both ends: there lie the pixels beyond the outermost rows.

    Attributes:
        first: First row of the map that is used.
        rows: Number of rows that are used; the cells' rows are counted from the first.
        before: (cells,) int64: the row at which each cell begins.
        after: (cells,) int64: the row at which it ends.
        cells: (pixels,) int64: the cell of each pixel.
        counts: (cells,) int64: number of pixels of each cell.
        offsets: (cells, most pixels) int64: the pixels of each cell, the last one repeated.
        weights: (cells, most pixels, 2) float32: the weights of both rows for those pixels.
    """

    def __init__(
        self, length: int, full: int, start: int, stop: int, align_corners: bool, device: torch.device
    ) -> None:
        before, after, weight = neighbours(length, full, start, stop, align_corners, device)
        self.first = int(before[0])
        self.rows = int(after[-1]) + 1 - self.first
        ends = torch.arange(self.rows + 1, device=device)
        self.before, self.after = (ends - 1).clamp(min=0), ends.clamp(max=self.rows - 1)
        self.cells = before - self.first + ((before > self.first) | (weight > 0))
        self.counts = torch.bincount(self.cells, minlength=self.rows + 1)
        stops = self.counts.cumsum(0)
        steps = torch.arange(int(self.counts.max()), device=device)
        self.offsets = torch.minimum((stops - self.counts)[:, None] + steps, (stops - 1)[:, None]).clamp(min=0)
        shares = weight[self.offsets]
        self.weights = torch.stack([1 - shares, shares], -1)


def _winners(corners: Tensor, weights: Tensor) -> Tensor:
    """The class of the largest interpolated logit, (n, pixels) int64, of cells (n, 4, K) with (n, pixels, 4)."""
    bound = corners.amin(1).amax(1, keepdim=True)
    possible = (~(corners.amax(1) < bound)).any(0).nonzero()[:, 0]  # not a number: anything is possible
    if len(possible) < corners.shape[2]:
        corners = corners[:, :, possible]
    return possible[(weights @ corners).argmax(-1)]
