"""Random geometry and colour for training.

Two geometries: our own on torchvision's v2 functionals, and that of the published recipes (`AugmentConfig.box`), equal
to what the reference computes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from upernet.data.config import AugmentConfig
from upernet.data.images import Photograph
from upernet.data.photometric import distort, uniform
from upernet.data.sample import Padding
from upernet.labels import IGNORE
from upernet.resize import Size, Window, fit, reach, resize_image, resize_labels

PAD_GREY = 128
"""Image value beyond the border; the maps say `IGNORE` there."""

LONGEST = 8
"""Sides of an image that is enlarged until it fills the crop: a line of pixels must not fill the memory."""

REDRAWS = 10
"""Other crops that are tried where one label has too much of a crop."""


class Augment:
    """Random scale, crop, flip and colour; draws from torch's global generator."""

    def __init__(self, config: AugmentConfig):
        self.config = config
        jitter = (config.brightness, config.contrast, config.saturation, config.hue)
        self.colour: Callable[[Tensor], Tensor] = v2.Compose(
            ([v2.ColorJitter(*jitter)] if any(jitter) else [])
            + ([v2.RandomGrayscale(config.grey)] if config.grey else [])
            or [v2.Identity()]
        )
        if config.photometric:
            self.colour = distort

    def __call__(self, image: Photograph, maps: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], Padding | None]:
        """Cut one training view.

        Args:
            image: H×W pixels, of which only rows that the view needs are decoded.
            maps: (H, W) of a signed type each.

        Returns:
            Image (3, h, w) uint8 and maps (h, w) int64, h and w as configured; pixels from beyond the border are grey
            and `IGNORE`. An image without maps is scaled up to fill the crop instead: its one label would cover the
            padding too. Last, where that padding lies if its colour is not grey.

        Raises:
            UserError: If the photograph's file is damaged.
        """
        if self.config.box is not None:
            return self._fitted(image, maps, self.config.box)
        view, cut = self._scaled(image, maps)
        return view, cut, None

    def _scaled(self, image: Photograph, maps: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.config
        height, width = image.size
        base = config.short_side / min(height, width) if config.short_side else 1.0
        low, high = config.scale
        scale = base * math.exp(uniform(math.log(low), math.log(high)))
        stretch = math.exp(uniform(-1, 1) * math.log(config.aspect) / 2)
        if not maps:
            scale = max(scale, config.crop[0] / height / stretch, config.crop[1] / width * stretch)
        down = _draw_span(height, config.crop[0], scale * stretch)
        across = _draw_span(width, config.crop[1], scale / stretch)
        flip = uniform(0, 1) < config.flip
        border = [
            across.padding,
            down.padding,
            config.crop[1] - across.scaled - across.padding,
            config.crop[0] - down.scaled - down.padding,
        ]

        def geometry(x: Tensor, how: InterpolationMode) -> Tensor:
            # torch's bilinear filter for bytes breaks down on a result of one pixel.
            how = how if down.scaled * across.scaled > 1 else InterpolationMode.NEAREST_EXACT
            box = [down.start, across.start, down.length, across.length]
            x = F.resized_crop(x, *box, [down.scaled, across.scaled], how, antialias=True)
            return F.horizontal_flip(x) if flip else x

        # Crop first: only pixels that are kept get resized, and only they get coloured. Maps are resized as plain
        # tensors, since v2 would use the older "nearest" for masks, which lies half a pixel beside the image.
        view = geometry(_tensor(image, down.start + down.length), InterpolationMode.BILINEAR)
        view = F.pad(self.colour(view), border, fill=PAD_GREY)
        cut = {
            name: F.pad(geometry(value[None], InterpolationMode.NEAREST_EXACT), border, fill=IGNORE)[0].long()
            for name, value in maps.items()
        }
        return view, cut

    def _fitted(
        self, image: Photograph, maps: dict[str, Tensor], box: tuple[int, int]
    ) -> tuple[Tensor, dict[str, Tensor], Padding | None]:
        """In the order of the recipes: scale, crop, flip, colour, padding."""
        config = self.config
        ratio = uniform(*config.scale)
        part = Window.whole(image.size) if maps else _draw_part(image.size)
        size = fit(part.size, (int(box[0] * ratio), int(box[1] * ratio)))
        if not maps:
            grow = max(1.0, config.crop[0] / size[0], config.crop[1] / size[1])
            size = math.ceil(size[0] * grow), math.ceil(size[1] * grow)
        height, width = min(config.crop[0], size[0]), min(config.crop[1], size[1])
        names = iter(maps)
        first = next(names, None)
        cut: dict[str, Tensor] = {}
        for draw in range(REDRAWS + 1):
            top = int(torch.randint(size[0] - height + 1, ()).item())
            left = int(torch.randint(size[1] - width + 1, ()).item())
            window = Window(top, left, top + height, left + width)
            if first is None:
                break
            cut[first] = resize_labels(maps[first], size, window)
            if config.cat_max_ratio == 1 or draw == REDRAWS or is_varied(cut[first], config.cat_max_ratio):
                break
        cut |= {name: resize_labels(maps[name], size, window) for name in names}
        pixels = _tensor(image, part.top + reach(part.height, size[0], window.bottom))
        view = resize_image(pixels[:, part.rows, part.columns], size, window)
        flip = uniform(0, 1) < config.flip
        view = _framed(self.colour(view.flip(-1) if flip else view), config.crop)
        targets = {name: (value.flip(-1) if flip else value).long() for name, value in cut.items()}
        if (height, width) == tuple(config.crop):
            return view, targets, None
        border = [0, config.crop[1] - width, 0, config.crop[0] - height]
        targets = {name: pad(value, border, value=IGNORE) for name, value in targets.items()}
        return view, targets, None if config.pad_colour is None else Padding(height, width, config.pad_colour)


def _tensor(image: Photograph, rows: int) -> Tensor:
    """(3, H, W) uint8, decoded as far down as `rows` at least."""
    return torch.from_numpy(image.decode(rows)).permute(2, 0, 1)


def _draw_part(size: Size) -> Window:
    """All of an image; of one more elongated than `LONGEST`, a random part that is not."""
    height, width = size
    length = LONGEST * min(height, width)
    if max(height, width) <= length:
        return Window.whole(size)
    start = int(torch.randint(max(height, width) - length + 1, ()).item())
    return Window(start, 0, start + length, width) if height > width else Window(0, start, height, start + length)


def _framed(image: Tensor, size: tuple[int, int]) -> Tensor:
    """An image (3, H, W) uint8 at the upper left of a grey one, laid out (3, h, w) in memory."""
    height, width = image.shape[-2:]
    result = torch.full((3, *size), PAD_GREY, dtype=torch.uint8)
    pixels = image.permute(1, 2, 0).numpy()
    for channel, plane in enumerate(result[:, :height, :width].numpy()):
        cv2.extractChannel(pixels, channel, plane)  # in a fifth of the time that torch takes
    return result


def is_varied(labels: Tensor, ratio: float) -> bool:
    """Whether a map shows more than one label, and the largest covers less than a share of the labelled pixels.

    Args:
        labels: (H, W) of a signed type, `IGNORE` where unlabelled.
        ratio: The share, at most 1.
    """
    values = labels.numpy()
    few = values[::16, ::16]
    few = few[few != IGNORE]
    if few.size:
        # Mostly, to count the commonest of a few pixels' labels is enough, and much quicker than to count all labels.
        largest = np.count_nonzero(values == np.bincount(few).argmax())
        labelled = np.count_nonzero(values != IGNORE)
        if largest / labelled >= ratio or (labelled - largest) / labelled < ratio:
            return bool(largest / labelled < ratio)
    counts = np.bincount(values[values != IGNORE])
    return int(np.count_nonzero(counts)) > 1 and bool(counts.max() / counts.sum() < ratio)


class _Span(NamedTuple):
    """What is cut out along one axis, in pixels: first pixel and length, length once scaled, padding before it."""

    start: int
    length: int
    scaled: int
    padding: int


def _draw_span(size: int, crop: int, scale: float) -> _Span:
    """A random cut of what fits into the crop once it is scaled, at a random place where the crop is larger.

    Args:
        size: Length of the image along this axis.
        crop: Length of the crop.
        scale: Factor by which the cut is enlarged.
    """
    length = min(size, max(1, round(crop / scale)))
    start = int(torch.randint(size - length + 1, ()).item())
    scaled = crop if length < size else min(crop, max(1, round(size * scale)))
    padding = int(torch.randint(crop - scaled + 1, ()).item())
    return _Span(start, length, scaled, padding)
