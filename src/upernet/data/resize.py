"""Resizing as OpenCV does it, of no more than the part that is asked for.

Half-pixel centres and no smoothing when shrinking: what the published networks were trained and measured with. The
bilinear filter is OpenCV's on bytes to the last bit: 11-bit weights, columns before rows, bits dropped after each.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

Size = tuple[int, int]
Window = tuple[int, int, int, int]
"""Top, left, height and width in pixels of the resized image."""

_ROWS = 32
"""Rows worked on at a time: what they take stays in the processor's cache."""


def fit(size: Size, box: Size) -> Size:
    """Largest size of the same aspect whose longer and shorter side fit those of a box.

    Args:
        size: Height and width.
        box: Two sides in either order; each bounds the side of its rank, whichever way up the image is.

    Returns:
        Height and width, rounded half up, at least 1.
    """
    factor = min(max(box) / max(size), min(box) / min(size))
    return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))


def resize_image(image: Tensor, size: Size, window: Window | None = None) -> Tensor:
    """Resize an image bilinearly, or compute one window of the resized image.

    Args:
        image: (3, H, W) uint8, in any memory layout; fastest as decoded, (H, W, 3) in memory.
        size: Height and width of the whole resized image.
        window: Which part of it to return; all of it if none.

    Returns:
        (3, h, w) uint8, equal to what OpenCV's `INTER_LINEAR` gives, cropped to the window.
    """
    top, left, height, width = window or (0, 0, *size)
    if tuple(size) == tuple(image.shape[-2:]):
        return image[:, top : top + height, left : left + width].contiguous()
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    left_of, right_of, (_, weights) = _taps(pixels.shape[1], size[1], left, width)
    above, below, (upper, lower) = _taps(pixels.shape[0], size[0], top, height)
    # At the left and right OpenCV drops the second weight. At the top and bottom it keeps both, and rounds each.
    weights[left_of == right_of] = 0
    used, place = np.unique(np.concatenate([above, below]), return_inverse=True)
    above, below = place[:height], place[height:]
    columns = slice(int(left_of[0]), int(right_of[-1]) + 1)

    # Colours are taken apart on the way: a row of one colour, then of the next.
    near, far = ((3 * (x - columns.start) + np.arange(3)[:, None]).ravel() for x in (left_of, right_of))
    weights = np.tile(weights, 3)
    across = np.empty((len(used), 3 * width), dtype=np.int32)
    for start in range(0, len(used), _ROWS):
        sums = across[start : start + _ROWS]
        lines = pixels[used[start : start + _ROWS], columns].reshape(len(sums), -1)
        one = lines.take(near, axis=1).astype(np.int32)
        sums[:] = lines.take(far, axis=1)
        sums -= one
        sums *= weights
        sums >>= 4
        one <<= 7
        sums += one

    result = np.empty((3, height, width), dtype=np.uint8)
    for start in range(0, height, _ROWS):
        rows = slice(start, start + _ROWS)
        sums = across[above[rows]]
        sums *= upper[rows, None]
        sums >>= 16
        rest = across[below[rows]]
        rest *= lower[rows, None]
        rest >>= 16
        sums += rest
        sums += 2
        sums >>= 2
        result[:, rows] = sums.reshape(-1, 3, width).transpose(1, 0, 2)
    return torch.from_numpy(result)


def resize_labels(labels: Tensor, size: Size, window: Window | None = None) -> Tensor:
    """Resize a label map, or compute one window of the resized map: each pixel takes one label.

    Args:
        labels: (H, W) of any type.
        size: Height and width of the whole resized map.
        window: Which part of it to return; all of it if none.

    Returns:
        (h, w) of the same type, equal to what OpenCV's `INTER_NEAREST` gives, cropped to the window: row i comes from
        row floor(i · H / h), which when shrinking lies up and left of where the image is sampled.
    """
    top, left, height, width = window or (0, 0, *size)
    if tuple(size) == tuple(labels.shape):
        return labels[top : top + height, left : left + width].contiguous()
    rows = _nearest(labels.shape[0], size[0], top, height)
    columns = _nearest(labels.shape[1], size[1], left, width)
    part = labels.numpy()[:, columns[0] : columns[-1] + 1]
    return torch.from_numpy(part[rows].take(columns - columns[0], axis=1))


def _taps(before: int, after: int, start: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Along one axis: the two source pixels of each result pixel from `start` on, and their weights (2, count) int32.

    Beyond the border lies the border's pixel.
    """
    position = ((np.arange(start, start + count) + 0.5) * (before / after) - 0.5).astype(np.float32)
    floor = np.floor(position)
    part = position - floor
    weights = np.rint(np.stack([1 - part, part]) * np.float32(2048)).astype(np.int32)
    first = floor.astype(np.intp)
    return first.clip(0, before - 1), (first + 1).clip(0, before - 1), weights


def _nearest(before: int, after: int, start: int, count: int) -> np.ndarray:
    # By way of the factor, rounded, as OpenCV: that decides where the quotient is a whole number.
    step = 1 / (after / before)
    return np.floor(np.arange(start, start + count) * step).astype(np.intp).clip(max=before - 1)
