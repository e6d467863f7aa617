"""The size at which an image is shown to the network, and the windows that slide over it."""

from __future__ import annotations

from dataclasses import replace

from upernet.config import InferenceConfig
from upernet.resize import Size, Window

MIN_SIDE = 32
"""Smallest side, in pixels, that every backbone accepts."""

MAX_ASPECT = 8
"""Largest aspect ratio of a picture that is enlarged as far as `short_side` asks. A longer picture is enlarged less: a
1 px line must not fill the memory."""


def passes(config: InferenceConfig) -> list[tuple[InferenceConfig, float]]:
    """The settings and the factor of the size for each time that an image is shown, mirror images aside."""
    if config.short_sides:
        return [(replace(config, short_side=side, short_sides=()), 1.0) for side in config.short_sides]
    return [(config, ratio) for ratio in config.scales]


def network_size(height: int, width: int, config: InferenceConfig, ratio: float = 1.0) -> Size:
    """The size at which the network sees an image: the aspect ratio is kept, halves round up, no side is below 32 px.

    With `multiple`, sides are cut to whole pixels and then rounded up to multiples of it, which changes the aspect
    ratio a little (SPEC E6).

    The image is fitted into the box of `short_side` and `max_side`, each times `ratio` and cut to whole pixels (SPEC
    C1), or into its own size times `ratio` where `scale_of` is `image` (SPEC D2).
    """
    short, long = min(height, width), max(height, width)
    if config.scale_of == "image":
        scale = min(int(long * ratio + 0.5) / long, int(short * ratio + 0.5) / short)
    else:
        scale = int(config.short_side * ratio) / short if config.short_side else ratio
        if config.short_side and scale > 1:
            scale = min(scale, max(long, MAX_ASPECT * max(MIN_SIDE, short * scale)) / long)
        if config.max_side:
            scale = min(scale, int(config.max_side * ratio) / long)
    if config.multiple is None:
        return max(MIN_SIDE, int(height * scale + 0.5)), max(MIN_SIDE, int(width * scale + 0.5))
    height, width = (max(MIN_SIDE, int(side * scale)) for side in (height, width))
    return -(-height // config.multiple) * config.multiple, -(-width // config.multiple) * config.multiple


def window_spans(length: int, window: int, stride: int) -> list[tuple[int, int]]:
    """First pixel and pixel after the last of each window along one side (SPEC C1).

    The last window is moved back so that it ends with the side. A side shorter than the window is one window.
    """
    count = max(length - window + stride - 1, 0) // stride + 1
    ends = [min(i * stride + window, length) for i in range(count)]
    return [(max(end - window, 0), end) for end in ends]


def sliding_windows(size: Size, config: InferenceConfig) -> list[Window]:
    """The windows of an input of size (h, w), all of one size, row by row; the whole input if `window` is not set."""
    if config.window is None or config.stride is None:
        return [Window.whole(size)]
    rows, columns = (window_spans(*side) for side in zip(size, config.window, config.stride, strict=True))
    return [Window(top, left, bottom, right) for top, bottom in rows for left, right in columns]
