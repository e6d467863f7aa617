"""Swin blocks as segmentation networks run them, for sizes that are symbols while a graph is traced.

All sizes are quotients that are rounded up, times the side of a window; tracing can then tell that windows fill a map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import PatchMerging, SwinTransformerBlock
from torch import Tensor, nn


class PaddedSwinBlock(SwinTransformerBlock):
    """A block that pads the map to whole windows before it shifts them.

    timm shifts first, so that the padding lands in other windows. All published segmentation networks on Swin were
    trained with the order used here, except those of segmentation_models_pytorch. The two orders agree where windows
    fill the map.
    """

    def _attn(self, x: Tensor) -> Tensor:
        return _fit(self._shift_back(self._attend(self._shift(self._pad(x)))), x.shape[1:3])

    def _pad(self, x: Tensor) -> Tensor:
        return _fit(x, [n * side for n, side in zip(self._windows(x), self.window_size, strict=True)])

    def _windows(self, x: Tensor) -> list[int]:
        """How many windows cover the map (B, H, W, C), down and across."""
        return [(size + side - 1) // side for size, side in zip(x.shape[1:3], self.window_size, strict=True)]

    def _shift(self, x: Tensor) -> Tensor:
        shift = tuple(self.shift_size)
        return torch.roll(x, (-shift[0], -shift[1]), (1, 2)) if any(shift) else x

    def _shift_back(self, x: Tensor) -> Tensor:
        shift = tuple(self.shift_size)
        return torch.roll(x, shift, (1, 2)) if any(shift) else x

    def _attend(self, x: Tensor) -> Tensor:
        """Attention within each window of a map (B, H, W, C) that windows fill."""
        batch, channels = x.shape[0], x.shape[3]
        (down, across), (rows, columns) = self._windows(x), self.window_size
        mask = self.get_attn_mask(x)
        x = x.reshape(batch, down, rows, across, columns, channels).transpose(2, 3)
        x = self.attn(x.reshape(batch * down * across, rows * columns, channels), mask=mask)
        x = x.reshape(batch, down, across, rows, columns, channels).transpose(2, 3)
        return x.reshape(batch, down * rows, across * columns, channels)

    def get_attn_mask(
        self, x: Tensor | None = None, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Tensor | None:
        """What keeps positions apart that are neighbours only because the map was shifted.

        Args:
            x: The map (B, H, W, C); None, as timm asks while it builds a block, gives timm's own mask.
            device: Device of the mask if there is no map.
            dtype: Type of the mask if there is no map.

        Returns:
            (windows, positions, positions): 0, or -100 between such positions; None for a block that does not shift.
        """
        if x is None or not any(self.shift_size):
            return super().get_attn_mask(x, device, dtype)
        down, across = (
            _regions(count, side, shift, x.device)
            for count, side, shift in zip(self._windows(x), self.window_size, self.shift_size, strict=True)
        )
        regions = (down[:, None, :, None] * 3 + across[None, :, None, :]).reshape(-1, self.window_area)
        apart = regions[:, None] != regions[:, :, None]
        return torch.zeros(apart.shape, dtype=x.dtype, device=x.device).masked_fill(apart, -100.0)


def _fit(x: Tensor, size: Sequence[int]) -> Tensor:
    """Pad a map (B, H, W, C) with zeros below and to the right, or cut it, to a size (h, w)."""
    # Cutting by slices, tracing could not tell that the result has this size.
    return F.pad(x, (0, 0, 0, size[1] - x.shape[2], 0, size[0] - x.shape[1]))


def _regions(count: int, side: int, shift: int, device: torch.device) -> Tensor:
    """The region of each sample of a shifted line of `count` windows, (count, side): 0, 1 or 2.

    Only the last window holds samples of both ends of the line.
    """
    samples = torch.arange(count * side, device=device).reshape(count, side)
    if not shift:
        return torch.zeros_like(samples)
    return (samples >= count * side - side).long() + (samples >= count * side - shift).long()


class ShiftedSwinBlock(PaddedSwinBlock):
    """A block that shifts its windows before it pads the map, as timm does."""

    def _attn(self, x: Tensor) -> Tensor:
        return self._shift_back(_fit(self._attend(self._pad(self._shift(x))), x.shape[1:3]))


class TraceablePatchMerging(PatchMerging):
    """timm's halving of a map."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, ceil(H / 2), ceil(W / 2), 2C)."""
        batch, height, width, channels = x.shape
        rows, columns = (height + 1) // 2, (width + 1) // 2
        x = (
            _fit(x, (2 * rows, 2 * columns))
            .reshape(batch, rows, 2, columns, 2, channels)
            .permute(0, 1, 3, 4, 2, 5)
            .flatten(3)
        )
        halved: Tensor = self.reduction(self.norm(x))
        return halved


def has_windows(model: nn.Module) -> bool:
    """Whether a timm model is a Swin."""
    return any(isinstance(module, SwinTransformerBlock) for module in model.modules())


def set_blocks(model: nn.Module, shift_first: bool) -> None:
    """Give the layers of a timm model, if it is a Swin, the classes of this file."""
    kinds = {
        SwinTransformerBlock: ShiftedSwinBlock if shift_first else PaddedSwinBlock,
        PatchMerging: TraceablePatchMerging,
    }
    for module in model.modules():
        # timm offers no way to choose the class.
        module.__class__ = kinds.get(type(module), type(module))
