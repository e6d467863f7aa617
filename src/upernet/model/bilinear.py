"""Bilinear resizing of a line as a matrix, for sums that are resized and for gradients that are matrix products too."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def bilinear_matrix(size: int, new: int, align_corners: bool, device: torch.device) -> Tensor:
    """The weights with which `torch.nn.functional.interpolate` resizes a line bilinearly.

    Args:
        size: Samples on the line, at least 1.
        new: Samples on the resized line, at least 1.
        align_corners: The bilinear convention.
        device: Where to put it. A GPU is not waited for.

    Returns:
        (new, size) float32. Rows sum to 1 and have at most two entries, next to each other.
    """
    return torch.from_numpy(_known_matrix(size, new, align_corners)).to(device, non_blocking=True)


def support(size: int, new: int, align_corners: bool, start: int, stop: int) -> tuple[int, int]:
    """The first sample, and the one after the last, from which resized samples `start` to `stop` are computed."""
    columns = np.flatnonzero(_known_matrix(size, new, align_corners)[start:stop].sum(axis=0))
    return int(columns[0]), int(columns[-1]) + 1


@lru_cache(maxsize=256)
def _known_matrix(size: int, new: int, align_corners: bool) -> NDArray[np.float32]:
    """`bilinear_matrix`, computed once; in float32 like the positions that `interpolate` computes."""
    x = np.arange(new, dtype=np.float32)
    if align_corners:
        x *= np.float32((size - 1) / (new - 1) if new > 1 else 0)
    else:
        x = ((x + np.float32(0.5)) * np.float32(size / new) - np.float32(0.5)).clip(min=0)
    below = x.astype(np.intp).clip(max=size - 1)
    share = (x - below.astype(np.float32)).clip(0, 1)
    matrix = np.zeros((new, size), np.float32)
    rows = np.arange(new)
    matrix[rows, below] += 1 - share
    matrix[rows, (below + 1).clip(max=size - 1)] += share
    return matrix
