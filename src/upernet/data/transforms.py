"""Random geometry and colour for training, on torchvision's v2 functionals."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from upernet.data.config import AugmentConfig
from upernet.data.labels import IGNORE

PAD_GREY = 128
"""Image value beyond the border; the maps say `IGNORE` there."""


class Augment:
    """Random scale, crop, flip and colour; draws from torch's global generator."""

    def __init__(self, config: AugmentConfig):
        self.config = config
        jitter = (config.brightness, config.contrast, config.saturation, config.hue)
        self.colour = v2.Compose(
            ([v2.ColorJitter(*jitter)] if any(jitter) else [])
            + ([v2.RandomGrayscale(config.grey)] if config.grey else [])
            or [v2.Identity()]
        )

    def __call__(self, image: Tensor, maps: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Cut one training view.

        Args:
            image: (3, H, W) uint8.
            maps: (H, W) int64 each.

        Returns:
            Image (3, h, w) uint8 and maps (h, w) int64, h and w as configured; pixels from beyond the border are grey
            and `IGNORE`. An image without maps is scaled up to fill the crop instead: its one label would cover the
            padding too.
        """
        config = self.config
        height, width = image.shape[-2:]
        base = config.short_side / min(height, width) if config.short_side else 1.0
        low, high = config.scale
        scale = base * math.exp(_uniform(math.log(low), math.log(high)))
        stretch = math.exp(_uniform(-1, 1) * math.log(config.aspect) / 2)
        if not maps:
            scale = max(scale, config.crop[0] / height / stretch, config.crop[1] / width * stretch)
        top, rows, out_rows, above = _window(height, config.crop[0], scale * stretch)
        left, columns, out_columns, before = _window(width, config.crop[1], scale / stretch)
        flip = _uniform(0, 1) < config.flip
        pad = [before, above, config.crop[1] - out_columns - before, config.crop[0] - out_rows - above]

        def geometry(x: Tensor, how: InterpolationMode) -> Tensor:
            # torch's bilinear filter for bytes breaks down on a result of one pixel.
            how = how if out_rows * out_columns > 1 else InterpolationMode.NEAREST_EXACT
            x = F.resized_crop(x, top, left, rows, columns, [out_rows, out_columns], how, antialias=True)
            return F.horizontal_flip(x) if flip else x

        # Crop first: only pixels that are kept get resized, and only they get coloured. Maps are resized as plain
        # tensors, since v2 would use the older "nearest" for masks, which lies half a pixel beside the image.
        view = F.pad(self.colour(geometry(image, InterpolationMode.BILINEAR)), pad, fill=PAD_GREY)
        cut = {
            name: F.pad(geometry(value[None], InterpolationMode.NEAREST_EXACT), pad, fill=IGNORE)[0]
            for name, value in maps.items()
        }
        return view, cut


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


def _window(size: int, crop: int, scale: float) -> tuple[int, int, int, int]:
    """Along one axis: start and length of the cut in the image, its length once scaled, and the padding before it."""
    length = min(size, max(1, round(crop / scale)))
    start = int(torch.randint(size - length + 1, ()).item())
    scaled = crop if length < size else min(crop, max(1, round(size * scale)))
    before = int(torch.randint(crop - scaled + 1, ()).item())
    return start, length, scaled, before
