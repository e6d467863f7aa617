"""Random colour of the published recipes, computed on bytes: each step clips its result to 0 … 255 and truncates it.

Hue, saturation and value are those of OpenCV for bytes, with hue in steps of 2°.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch

BRIGHTNESS = 32.0
"""Largest value that is added to, or subtracted from, all channels."""
FACTORS = (0.5, 1.5)
"""Bounds of the factors of contrast and saturation."""
HUE = 18
"""Hue is shifted by -HUE to HUE - 1 steps of 2°."""

_HUE, _SATURATION = 0, 1


def distort(image: torch.Tensor) -> torch.Tensor:
    """Change brightness, contrast, saturation and hue, each with probability 1/2, by torch's global generator.

    Contrast comes second or last, with probability 1/2 each.

    Args:
        image: (3, H, W) uint8 RGB, in any memory layout; fastest as (H, W, 3) in memory.

    Returns:
        (3, H, W) uint8 RGB, laid out (H, W, 3) in memory; the image itself if nothing is changed.
    """
    pixels = image.permute(1, 2, 0).numpy()
    if _coin():
        pixels = scale_and_shift(pixels, 1.0, uniform(-BRIGHTNESS, BRIGHTNESS))
    early = _coin()
    if early and _coin():
        pixels = scale_and_shift(pixels, uniform(*FACTORS), 0.0)
    if _coin():
        pixels = scale_saturation(pixels, uniform(*FACTORS))
    if _coin():
        pixels = shift_hue(pixels, int(torch.randint(-HUE, HUE, ()).item()))
    if not early and _coin():
        pixels = scale_and_shift(pixels, uniform(*FACTORS), 0.0)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def scale_and_shift(values: np.ndarray, factor: float, offset: float) -> np.ndarray:
    """uint8 `values · factor + offset`, computed in single precision, clipped to 0 … 255 and truncated; any shape."""
    sums = np.arange(256, dtype=np.float32) * np.float32(factor) + np.float32(offset)
    return cv2.LUT(np.ascontiguousarray(values), sums.clip(0, 255).astype(np.uint8)).reshape(values.shape)


def scale_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiply the saturation of an image (H, W, 3) uint8 RGB by a factor of at least 0."""
    return _through_hsv(image, _SATURATION, scale_and_shift(np.arange(256, dtype=np.uint8), factor, 0.0))


def shift_hue(image: np.ndarray, steps: int) -> np.ndarray:
    """Turn the hue of an image (H, W, 3) uint8 RGB by any number of steps of 2°."""
    return _through_hsv(image, _HUE, ((np.arange(256) + steps) % 180).astype(np.uint8))


def _through_hsv(image: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
    """Convert to hue, saturation and value, map one of them through a table (256,) uint8, and convert back."""
    hsv = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2HSV)
    cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, channel), table), hsv, channel)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, hsv)


def uniform(low: float, high: float) -> float:
    """A uniform random number between two bounds, from torch's global generator."""
    return low + (high - low) * torch.rand(()).item()


def _coin() -> bool:
    return bool(torch.rand(()).item() < 0.5)
