"""Bilinear resizing of a line as a matrix, for sums that are resized and for gradients that are matrix products too."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


def bilinear_matrix(size: int, new: int, align_corners: bool, dtype: torch.dtype) -> Tensor:
    """The weights with which `torch.nn.functional.interpolate` resizes a line bilinearly.

    They are computed by tensor operations alone, so that they can be traced.

    Args:
        size: Samples on the line, at least 1; a symbolic size while a graph is traced.
        new: Samples on the resized line, at least 1; it may be symbolic too.
        align_corners: The bilinear convention.
        dtype: In what positions are computed: float32 as `interpolate` does, or float64.

    Returns:
        (new, size) of that type on the CPU. Rows sum to 1 and have at most two entries, next to each other.
    """
    place = torch.arange(new, dtype=dtype, device="cpu").unsqueeze(1)
    if align_corners:
        # torch takes the first sample where there is only one to compute.
        intervals = torch.full((), new - 1, dtype=torch.float64, device="cpu").clamp(min=1)
        place = place * ((size - 1) / intervals)
    else:
        place = ((place + 0.5) * (size / new) - 0.5).clamp(min=0)
    below = place.floor().clamp(max=size - 1)
    share, above = place - below, (below + 1).clamp(max=size - 1)
    samples = torch.arange(size, dtype=dtype, device="cpu")
    return (samples == below) * (1 - share) + (samples == above) * share


def cached_matrix(size: int, new: int, align_corners: bool, device: torch.device) -> Tensor:
    """`bilinear_matrix` in float32, computed once.

    Args:
        size: Samples on the line, at least 1.
        new: Samples on the resized line, at least 1.
        align_corners: The bilinear convention.
        device: Where to put it. A GPU is not waited for.
    """
    return torch.from_numpy(_known_matrix(size, new, align_corners)).to(device, non_blocking=True)


def read_by_taps(matrix: Tensor) -> Tensor:
    """What the three taps of a convolution read of a resized line that is padded by zeros.

    Args:
        matrix: (new, size), the result of `bilinear_matrix`.

    Returns:
        (3, new, size): the matrix that gives for each sample the one before it, the sample itself, the one after it.
    """
    padded = F.pad(matrix, (0, 0, 1, 1))
    return torch.stack([padded[:-2], matrix, padded[2:]])


def support(size: int, new: int, align_corners: bool, start: int, stop: int) -> tuple[int, int]:
    """The first sample, and the one after the last, from which resized samples `start` to `stop` are computed."""
    columns = np.flatnonzero(_known_matrix(size, new, align_corners)[start:stop].sum(axis=0))
    return int(columns[0]), int(columns[-1]) + 1


@lru_cache(maxsize=256)
def _known_matrix(size: int, new: int, align_corners: bool) -> NDArray[np.float32]:
    """An array, since a tensor made in inference mode could not serve training later."""
    return bilinear_matrix(size, new, align_corners, torch.float32).numpy()
