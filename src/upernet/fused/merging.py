"""The convolutions that read several levels of the pyramid, computed at the resolution of each."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from upernet.fused.taps import EnlargedConv
from upernet.fused.winograd import WinogradConv, pays
from upernet.model.decoder import MergingConv


class FusedMergingConv(nn.Module):
    """What a `MergingConv` computes, without enlarging the coarser maps."""

    def __init__(self, merging: MergingConv, winograd: bool) -> None:
        """Divide a convolution, into which its batch norm is folded, by the maps that it reads.

        Args:
            merging: The convolution.
            winograd: Whether to use Winograd's algorithm for the map that is not enlarged, if it `pays`.
        """
        super().__init__()
        weight, *coarser = merging.conv.weight.split(merging.in_channels, dim=1)
        own = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, device="meta")
        own.weight, own.bias = nn.Parameter(weight.clone(), requires_grad=False), merging.conv.bias
        self.own = WinogradConv(own, relu=True) if winograd and pays(own) else own
        # For all sizes: coarser maps have half the size of x or less. On images of 32 px alone, the bins of the pyramid
        # pooling are more than the pixels of c5, and their taps cost some milliseconds more than resizing them.
        self.coarser = EnlargedConv(coarser, merging.align_corners, whole=winograd)

    def forward(self, x: Tensor, coarser: Sequence[Tensor]) -> Tensor:
        """(B, C_0, H, W) and coarser maps (B, C_i, h_i, w_i) to (B, D, H, W)."""
        if isinstance(self.own, WinogradConv):
            merged: Tensor = self.own(x, self.coarser(x, coarser))
            return merged
        return F.relu_(self.coarser.add_to(self.own(x), coarser))
