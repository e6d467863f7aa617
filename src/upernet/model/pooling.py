"""Pooling a whole map to a few bins per side, written as two small matrices: A_h X A_wᵀ.

One form serves both rules of the PPM, on every device and in every export format, and is exact for any size of map.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Pooling = Literal["adaptive", "precise"]


def pool_matrix(size: int, bins: int, kind: Pooling) -> Tensor:
    """The weights with which `size` samples of a line are averaged into `bins` bins.

    - adaptive: bin b is the mean of samples floor(b·size/bins) … ceil((b+1)·size/bins) - 1, as in
      `torch.nn.functional.adaptive_avg_pool2d`; bins overlap where size is no multiple of bins. Rows sum to 1.
    - precise: precise RoI pooling of the whole line (Xiao et al. 2018, released code). The samples at 0 … size-1 are
      joined linearly, fading to 0 at -1 and at size; bin b is the mean of that function over
      [b·size/bins, (b+1)·size/bins]. The last row sums to less than 1 because of the fade.

    Args:
        size: Samples on the line, at least 1.
        bins: Bins to average into, at least 1; may exceed `size`.
        kind: Which of the two rules.

    Returns:
        (bins, size) float32, computed in float64.
    """
    return torch.tensor(_weights(size, bins, kind), dtype=torch.float32)


def pool(x: Tensor, bins: int, kind: Pooling) -> Tensor:
    """Average a map into bins × bins.

    Args:
        x: (B, C, H, W) of any floating type.
        bins: Bins per side.
        kind: See `pool_matrix`.

    Returns:
        (B, C, bins, bins) of x's type; the sums run in float32 at least, under autocast too.
    """
    exact = torch.promote_types(x.dtype, torch.float32)
    # The matrices come from pageable memory, which a non-blocking copy has read before it returns: no wait for the GPU.
    height, width = (pool_matrix(n, bins, kind).to(x.device, exact, non_blocking=True) for n in x.shape[-2:])
    with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
        return (height @ (x.to(exact) @ width.T)).to(x.dtype)


@lru_cache(maxsize=1024)  # Arrays, not tensors: a tensor cached while a graph is traced would be a fake one for ever.
def _weights(size: int, bins: int, kind: Pooling) -> NDArray[np.float64]:
    """(bins, size) float64 of `pool_matrix`."""
    if kind == "adaptive":
        first = np.arange(bins) * size // bins
        last = -(-np.arange(1, bins + 1) * size // bins)
        samples = np.arange(size)
        inside = (first[:, None] <= samples) & (samples < last[:, None])
        adaptive: NDArray[np.float64] = inside / inside.sum(axis=1, keepdims=True)
        return adaptive
    edges = np.arange(bins + 1)[:, None] * size / bins
    t = np.clip(edges - np.arange(size), -1, 1)
    # Integral from -1 to t of the hat max(0, 1 - |t|).
    below = np.where(t < 0, (1 + t) ** 2 / 2, 1 - (1 - t) ** 2 / 2)
    precise: NDArray[np.float64] = np.diff(below, axis=0) * bins / size
    return precise
