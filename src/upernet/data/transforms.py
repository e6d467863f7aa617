"""Random geometry and colour for training.

There are three geometries: our own on torchvision's v2 functionals; that of the published recipes
(`AugmentConfig.box`), which gives the same pixels as the reference; and that of the authors' code for whole images
(`AugmentConfig.short_sides`).
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
from upernet.data.sample import PAD_GREY, Padding
from upernet.labels import IGNORE
from upernet.resize import Size, Window, fit, reach, resize_image, resize_labels

LONGEST = 8
"""Largest aspect ratio of an image that is enlarged until it fills the crop. A longer image is cut to this: a line of
pixels must not fill the memory."""

REDRAWS = 10
"""How many more crops are tried if one label covers too much of the crop."""


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

    def draw_short_side(self) -> int | None:
        """Draw the shorter side that all images of a batch share; None if the configuration names none."""
        sides = self.config.short_sides
        return sides[int(torch.randint(len(sides), ()).item())] if sides else None

    def __call__(
        self, image: Photograph, maps: dict[str, Tensor], short_side: int | None = None
    ) -> tuple[Tensor, dict[str, Tensor], Padding | None]:
        """Cut one training view.

        An image with maps is padded where it does not fill the crop: grey in the image, `IGNORE` in the maps. An image
        without maps is enlarged to fill the crop instead, since its one label would cover the padding too. An image
        that is not cropped is padded later, with its batch.

        Args:
            image: A photograph of H×W pixels, of which only the rows that the view needs are decoded.
            maps: Label maps by name, each (H, W) of a signed type.
            short_side: The shorter side of the view if it is not cropped. If not given, it is drawn.

        Returns:
            The image (3, h, w) uint8 and its maps int64, h and w as configured, the maps smaller by `label_stride`; and
            the place of the padding if that has another colour than grey.

        Raises:
            UserError: If the photograph's file is damaged.
        """
        config = self.config
        short_side = short_side or self.draw_short_side()
        if short_side is not None:
            return self._whole(image, maps, short_side)
        padding = None
        if config.box is not None:
            view, cut, padding = self._fitted(image, maps, config.box)
        else:
            view, cut = self._scaled(image, maps)
        start, step = config.label_stride // 2, config.label_stride
        return view, {name: value[start::step, start::step] for name, value in cut.items()}, padding

    def _whole(
        self, image: Photograph, maps: dict[str, Tensor], short_side: int
    ) -> tuple[Tensor, dict[str, Tensor], Padding | None]:
        """A view of the whole image, as in the authors' code: flip, scale, colour."""
        config = self.config
        height, width = image.size
        factor = short_side / min(height, width)
        if config.long_side is not None:
            factor = min(factor, config.long_side / max(height, width))
        size = max(1, int(height * factor)), max(1, int(width * factor))
        flip = uniform(0, 1) < config.flip
        pixels = _tensor(image, height)
        view = self.colour(resize_image(pixels.flip(-1) if flip else pixels, size))
        rows, columns = (_centres(*pair, config.label_stride) for pair in zip(image.size, size, strict=True))
        if flip:
            columns = width - 1 - columns
        targets = {name: value[rows[:, None], columns].long() for name, value in maps.items()}
        return view, targets, None if config.pad_colour is None else Padding(*size, config.pad_colour)

    def _scaled(self, image: Photograph, maps: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """A view by our own geometry: crop, scale, flip, colour, padding."""
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

        # Crop first, so that only pixels that are kept are resized and coloured. Maps are resized as plain tensors,
        # since v2 would use the older "nearest" for masks, which is half a pixel off the image.
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
        """A view by the geometry of the published recipes, in their order: scale, crop, flip, colour, padding."""
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
    """(3, H, W) uint8, of which at least the first `rows` rows are decoded."""
    return torch.from_numpy(image.decode(rows)).permute(2, 0, 1)


def _centres(before: int, after: int, stride: int) -> Tensor:
    """The rows (or columns) of a map that its resized and thinned copy shows, as in Pillow's nearest filter.

    Row i of the copy is row `stride` · i + `stride` // 2 of the resized map, which shows the row of the map in
    which its middle lies.

    Args:
        before: Rows of the map.
        after: Rows of the resized map.
        stride: Every how many of these are kept.

    Returns:
        int64, one for each row of the copy.
    """
    kept = torch.arange(stride // 2, after, stride)
    return (2 * kept + 1) * before // (2 * after)


def _draw_part(size: Size) -> Window:
    """The whole of an image, or a random part of it with aspect ratio `LONGEST` if it is more elongated than that."""
    height, width = size
    length = LONGEST * min(height, width)
    if max(height, width) <= length:
        return Window.whole(size)
    start = int(torch.randint(max(height, width) - length + 1, ()).item())
    return Window(start, 0, start + length, width) if height > width else Window(0, start, height, start + length)


def _framed(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Put an image (3, H, W) uint8 at the upper left of a grey one (3, h, w), which is laid out so in memory."""
    height, width = image.shape[-2:]
    result = torch.full((3, *size), PAD_GREY, dtype=torch.uint8)
    pixels = image.permute(1, 2, 0).numpy()
    for channel, plane in enumerate(result[:, :height, :width].numpy()):
        cv2.extractChannel(pixels, channel, plane)  # in a fifth of the time that torch takes
    return result


def is_varied(labels: Tensor, ratio: float) -> bool:
    """Whether a map shows several labels, and the largest covers less than a given share of the labelled pixels.

    Args:
        labels: (H, W) of a signed type, `IGNORE` where unlabelled.
        ratio: The share, at most 1.
    """
    values = labels.numpy()
    sampled = values[::16, ::16]
    sampled = sampled[sampled != IGNORE]
    if sampled.size:
        # Usually it is enough to count the label that is commonest in a sample, much quicker than counting all labels.
        largest = np.count_nonzero(values == np.bincount(sampled).argmax())
        labelled = np.count_nonzero(values != IGNORE)
        if largest / labelled >= ratio or (labelled - largest) / labelled < ratio:
            return bool(largest / labelled < ratio)
    counts = np.bincount(values[values != IGNORE])
    return int(np.count_nonzero(counts)) > 1 and bool(counts.max() / counts.sum() < ratio)


class _Span(NamedTuple):
    """A cut along one axis, in pixels: its first pixel, its length, its length once scaled, and the padding before."""

    start: int
    length: int
    scaled: int
    padding: int


def _draw_span(size: int, crop: int, scale: float) -> _Span:
    """Draw a random cut that fits into the crop once scaled; if the crop is larger, its place there is random too.

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
