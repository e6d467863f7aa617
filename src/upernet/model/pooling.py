"""Pooling of a map of any size to a few bins per side, as two small matrix products: A_h X A_wᵀ.

The matrices are built from the size of the map by tensor operations alone. `torch.export` can therefore trace them with
symbolic height and width, and an exported network pools maps of every size as this one does.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from upernet.model.constants import constant

Pooling = Literal["adaptive", "precise"]


def pool_matrix(size: int, bins: int, kind: Pooling) -> Tensor:
    """Build the weights that average `size` samples of a line into `bins` bins.

    - adaptive: bin b is the mean of samples floor(b·size/bins) … ceil((b+1)·size/bins) - 1, as in
      `torch.nn.functional.adaptive_avg_pool2d`; bins overlap where size is no multiple of bins. Rows sum to 1.
    - precise: precise RoI pooling of the whole line (Xiao et al. 2018, released code). The samples at 0 … size-1 are
      joined linearly, fading to 0 at -1 and at size; bin b is the mean of that function over
      [b·size/bins, (b+1)·size/bins]. The last row sums to less than 1 because of the fade.

    Args:
        size: Samples on the line, at least 1; a symbolic size while a graph is traced.
        bins: Bins to average into, at least 1; may exceed `size`.
        kind: Which of the two rules.

    Returns:
        (bins, size) float32 on the CPU, computed in float64.
    """
    edges = torch.arange(bins + 1, dtype=torch.float64, device="cpu")[:, None] * size
    samples = torch.arange(size, dtype=torch.float64, device="cpu")
    if kind == "adaptive":
        # In units of 1 / bins, where all edges are whole numbers: the sample's interval overlaps that of the bin.
        inside = (edges[:-1] < (samples + 1) * bins) & (samples * bins < edges[1:])
        return (inside / inside.sum(dim=1, keepdim=True, dtype=torch.float64)).float()
    t = (edges / bins - samples).clamp(-1, 1)
    # Integral from -1 to t of the hat max(0, 1 - |t|).
    below = torch.where(t < 0, (1 + t) ** 2 / 2, 1 - (1 - t) ** 2 / 2)
    return (below.diff(dim=0) * bins / size).float()


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
    if torch.compiler.is_compiling():
        height, width = (pool_matrix(n, bins, kind).to(x.device, exact) for n in x.shape[-2:])
    else:
        height, width = (constant(pool_matrix, n, bins, kind, device=x.device, dtype=exact) for n in x.shape[-2:])
    with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
        return (height @ (x.to(exact) @ width.T)).to(x.dtype)
