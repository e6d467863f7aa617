"""Swin blocks as segmentation networks run them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerBlock, window_partition, window_reverse
from torch import Tensor, nn


class PaddedSwinBlock(SwinTransformerBlock):
    """A block that pads the map to whole windows before it shifts them.

    timm shifts first, so that the padding lands in other windows. All published segmentation networks on Swin were
    trained with the order used here, except those of segmentation_models_pytorch. The two orders agree where windows
    fill the map.
    """

    def _attn(self, x: Tensor) -> Tensor:
        _, height, width, channels = x.shape
        rows, columns = self.window_size
        x = F.pad(x, (0, 0, 0, -width % columns, 0, -height % rows))
        padded = (x.shape[1], x.shape[2])
        shift = tuple(self.shift_size)
        if any(shift):
            x = torch.roll(x, (-shift[0], -shift[1]), (1, 2))
        mask = self.get_attn_mask(x)
        windows = window_partition(x, self.window_size).view(-1, rows * columns, channels)
        windows = self.attn(windows, mask=mask).view(-1, rows, columns, channels)
        x = window_reverse(windows, self.window_size, *padded)
        if any(shift):
            x = torch.roll(x, shift, (1, 2))
        return x[:, :height, :width].contiguous()


def has_windows(model: nn.Module) -> bool:
    """Whether a timm model is a Swin."""
    return any(isinstance(module, SwinTransformerBlock) for module in model.modules())


def pad_before_shift(model: nn.Module) -> None:
    """Make every Swin block of a timm model pad before it shifts."""
    for module in model.modules():
        # timm offers no way to choose the block's class.
        if type(module) is SwinTransformerBlock:
            module.__class__ = PaddedSwinBlock
