"""A convolution of resized maps, as its formula reads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def conv_by_the_formula(
    maps: Sequence[Tensor], weight: Tensor, size: tuple[int, int] | torch.Size, align_corners: bool
) -> Tensor:
    """3×3 convolution, padded by zeros, of maps (B, C_i, h_i, w_i) that are resized to a size and put together."""
    same = [F.interpolate(m, size, mode="bilinear", align_corners=align_corners) for m in maps]
    return F.conv2d(torch.cat(same, dim=1), weight, padding=1)
