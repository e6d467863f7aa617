"""Random colour of the published recipes, on bytes: what each step gives is cut to 0 … 255 and to a whole number.

Hue, saturation and value are OpenCV's for bytes, hue in steps of 2°; so are the results, for every colour.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

BRIGHTNESS = 32.0
"""Bound of what is added to all channels."""
FACTORS = (0.5, 1.5)
"""Bounds of the factors of contrast and saturation."""
HUE = 18
"""Hue is shifted by -HUE to HUE - 1 steps of 2°."""

_BLOCK = 1 << 16
"""Pixels worked on at a time: what they take stays in the processor's cache."""

_ROUNDING = 2.0**-10
"""More than single precision can err by where numbers lie below 512."""


def distort(image: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue, each with probability 1/2; draws from torch's global generator.

    Contrast comes second or last, with probability 1/2 each.

    Args:
        image: (3, H, W) uint8 RGB.

    Returns:
        (3, H, W) uint8 RGB; the image itself if nothing was drawn.
    """
    pixels = image.numpy()
    if _coin():
        pixels = scale_and_shift(pixels, 1.0, _uniform(-BRIGHTNESS, BRIGHTNESS))
    early = _coin()
    if early and _coin():
        pixels = scale_and_shift(pixels, _uniform(*FACTORS), 0.0)
    if _coin():
        pixels = scale_saturation(pixels, _uniform(*FACTORS))
    if _coin():
        pixels = shift_hue(pixels, int(torch.randint(-HUE, HUE, ()).item()))
    if not early and _coin():
        pixels = scale_and_shift(pixels, _uniform(*FACTORS), 0.0)
    return torch.from_numpy(pixels)


def scale_and_shift(values: np.ndarray, factor: float, offset: float) -> np.ndarray:
    """`values · factor + offset`, cut to 0 … 255 and to whole numbers; any shape, uint8."""
    given = np.ascontiguousarray(values).reshape(-1)
    whole = math.floor(offset)
    if factor == 1 and _ROUNDING < offset - whole < 1 - _ROUNDING and abs(whole) < 256:
        # Nowhere does the sum, in single precision, reach the next whole number: bytes suffice.
        result = torch.from_numpy(given).clamp(max(0, -whole), min(255, 255 - whole)).numpy()
        result += np.uint8(whole % 256)
        return result.reshape(values.shape)
    result = np.empty_like(given)
    for start in range(0, len(given), _BLOCK):
        some = slice(start, start + _BLOCK)
        x = given[some].astype(np.float32)
        x *= np.float32(factor)
        if offset:
            x += np.float32(offset)
        result[some] = np.clip(x, 0, 255, out=x)
    return result.reshape(values.shape)


def scale_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiply the saturation of an image (3, H, W) uint8 RGB by at least 0."""
    return _through_hsv(image, 0, scale_and_shift(_SATURATIONS, factor, 0.0))


def shift_hue(image: np.ndarray, steps: int) -> np.ndarray:
    """Turn the hue of an image (3, H, W) uint8 RGB by -76 to 76 steps of 2°."""
    return _through_hsv(image, steps, _SATURATIONS)


def _through_hsv(image: np.ndarray, steps: int, saturations: np.ndarray) -> np.ndarray:
    """To hue, saturation and value and back.

    Args:
        image: (3, H, W) uint8 RGB.
        steps: What is added to the hue.
        saturations: (65536,) uint8, the saturation at 256 · value + spread, the difference of highest and lowest.
    """
    given = np.ascontiguousarray(image).reshape(3, -1)
    result = np.empty_like(given)
    for start in range(0, given.shape[1], _BLOCK):
        some = slice(start, start + _BLOCK)
        red, green, blue = given[:, some]
        value = np.maximum(np.maximum(red, green), blue)
        spread = value - np.minimum(np.minimum(red, green), blue)

        # Around the hues: red at 0, green at 2 · spread, blue at 4 · spread.
        r, g, b, wide = (x.astype(np.int16) for x in (red, green, blue, spread))
        position = r - g + 4 * wide
        _put(position, b - r + 2 * wide, value == green)
        _put(position, g - b, value == red)
        index = spread.astype(np.int32)
        index *= 1536
        index += position
        index += 255
        hue = _look_up(_HUES, index)
        # Bytes: below 0 lies 255.
        hue += np.uint8(steps % 256)
        hue += np.uint8(180 if steps < 0 else 256 - 180) & -(hue >= 180).view(np.uint8)

        np.copyto(index, value)
        index <<= 8
        index += spread
        _to_rgb(hue, _look_up(saturations, index), value, result[:, some])
    return result.reshape(image.shape)


def _to_rgb(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray, result: np.ndarray) -> None:
    """Colours (3, N) uint8 of hue 0 … 179, saturation and value, (N,) uint8 each."""
    index = hue.astype(np.int32)
    index <<= 8
    index += saturation
    bright = value * np.float32(1 / 255)
    middle = _look_up(_MIDDLES, index)
    middle *= bright
    middle *= 255
    pale = saturation * np.float32(1 / 255)
    np.subtract(1, pale, out=pale)
    pale *= bright
    pale *= 255
    low = pale.astype(np.uint8)
    # Each channel is highest in two of the six sectors of 30 and lowest in two others. Bytes: below 0 lies 255.
    red, green, blue = result
    result[:] = middle.astype(np.uint8)
    _put(red, value, hue - np.uint8(30) >= 120)
    _put(red, low, hue - np.uint8(60) < 60)
    _put(green, value, hue - np.uint8(30) < 60)
    _put(green, low, hue >= 120)
    _put(blue, value, hue - np.uint8(90) < 60)
    _put(blue, low, hue < 60)


def _look_up(table: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Entries (N,) of a table at (N,) int32; NumPy would first copy the index to 64 bits."""
    found: np.ndarray = torch.from_numpy(table).index_select(0, torch.from_numpy(index)).numpy()
    return found


def _put(target: np.ndarray, source: np.ndarray, where: np.ndarray) -> None:
    """`numpy.copyto(target, source, where=where)` of whole numbers, in a tenth of the time."""
    change = target ^ source
    change &= -where.view(np.uint8).astype(target.dtype, copy=False)
    target ^= change


def _coin() -> bool:
    return bool(torch.rand(()).item() < 0.5)


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Saturation at 256 · value + spread, uint8; hue at 1536 · spread + 255 + position, uint8; and at 256 · hue +
    saturation, float32, what the middle channel is of the highest.

    The position runs from -spread to 5 · spread, once around the hues. Quotients have 12 bits after the point.
    """
    number = np.arange(256)
    divisor = np.maximum(number, 1)
    per_value = np.rint((255 << 12) / divisor).astype(np.int64)
    per_spread = np.rint((180 << 12) / (6 * divisor)).astype(np.int64) * (number > 0)
    saturations = (number * per_value[:, None] + 2048 >> 12).clip(max=255)
    hues = (np.arange(-255, 1281) * per_spread[:, None] + 2048 >> 12) % 180
    turn = np.arange(180, dtype=np.float32) * np.float32(6 / 180)
    sector = np.floor(turn)
    part = turn - sector
    parts = np.where(sector % 2 == 0, 1 - part, part)
    # One rounding for product and difference, as OpenCV's vector units do it.
    pale = (number.astype(np.float32) * np.float32(1 / 255)).astype(np.float64)
    middles = 1 - parts.astype(np.float64)[:, None] * pale
    return saturations.astype(np.uint8).ravel(), hues.astype(np.uint8).ravel(), middles.astype(np.float32).ravel()


_SATURATIONS, _HUES, _MIDDLES = _tables()
