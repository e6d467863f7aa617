"""The taps of `EnlargedConv` added up by a gather, for a compiler, which makes few kernels of it.

Every sample of the answer reads, of each map, nine taps at the four samples around it: along each side six, two of each
of three taps. As ordinary operations that would be slow. A compiler makes one kernel for the columns of each map, and
one for the rows of all maps together, which adds them to the answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def add_taps(base: Tensor, products: Sequence[Tensor], align_corners: bool) -> Tensor:
    """Enlarge the products of nine taps, shift them, and add them to a map.

    Sums are computed in float32 at least. Sizes may be symbolic.

    Args:
        base: (B, H, W, D), to which is added.
        products: For each coarser map (3, B, h, w, 3, D): for each row of the kernel, for each sample of the map, the
            products of the row's three taps.
        align_corners: How the maps are enlarged.

    Returns:
        (B, H, W, D) of the type of `base`.
    """
    exact = torch.promote_types(base.dtype, torch.float32)
    answer = base.to(exact)
    for product in products:
        ky, y, down = _read(base.shape[1], product.shape[2], align_corners, answer)
        kx, x, across = _read(base.shape[2], product.shape[3], align_corners, answer)
        columns = (product[:, :, :, x, kx[:, None]].to(exact) * across[..., None]).sum(dim=3)  # (3, B, h, W, D)
        rows = columns.transpose(0, 1)[:, ky[:, None], y]  # (B, 6, H, W, D)
        answer = answer + (rows * down[..., None, None]).sum(dim=1)
    return answer.to(base.dtype)


def _read(out: int, size: int, align_corners: bool, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What is read along one side: of each tap of the kernel, two neighbouring samples of the map.

    Args:
        out: Samples of the answer.
        size: Samples of the map.
        align_corners: How the map is enlarged.
        like: Has the type and the device of the shares.

    Returns:
        Tap (6,) and sample (6, out), int64, and the sample's share (6, out), 0 beyond the border.
    """
    number = torch.arange(6, device=like.device)
    tap, upper = number // 2, (number % 2)[:, None]
    position = torch.arange(out, device=like.device) + tap[:, None] - 1
    inside = (position >= 0) & (position < out)
    place = position.clamp(0, out - 1).to(like.dtype)
    place = place * ((size - 1) / max(out - 1, 1)) if align_corners else (place + 0.5) * (size / out) - 0.5
    place = place.clamp(0, size - 1)
    low = place.floor()
    share = torch.where(upper == 1, place - low, 1 - (place - low))
    return tap, (low.long() + upper).clamp(max=size - 1), share * inside
