"""Resizing as OpenCV does it, of no more than the part that is asked for.

Half-pixel centres and no smoothing when shrinking: what the published networks were trained and measured with. The
bilinear filter is OpenCV's on bytes to the last bit: 11-bit weights, columns before rows, bits dropped after each.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

Size = tuple[int, int]
Window = tuple[int, int, int, int]
"""Top, left, height and width in pixels of the resized image."""

_BLOCK = 3 << 16
"""Values worked on at a time: what they take stays in the processor's cache."""

_UNCHECKED: Final = "wrap"
"""How NumPy takes indices that all lie inside: by default it makes sure of that, in twice the time."""


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
    if pixels.shape[1] == 1:
        pixels = pixels.repeat(2, axis=1)
    left_of, right_of, (_, weights) = _taps(image.shape[2], size[1], left, width)
    above, below, (upper, lower) = _taps(pixels.shape[0], size[0], top, height)
    # At the left and right OpenCV drops the second weight. At the top and bottom it keeps both, and rounds each.
    weights[left_of == right_of] = 0
    # Two columns at least. The last has no right neighbour: there it is the neighbour itself, with all the weight.
    first = min(int(left_of[0]), pixels.shape[1] - 2)
    last = max(int(right_of[-1]), first + 1)
    weights[left_of == last] = 2048
    # Colours are taken apart on the way: a row of one colour, then of the next.
    near = (3 * (np.minimum(left_of, last - 1) - first) + np.arange(3)[:, None]).ravel()
    weights = np.tile(weights.astype(np.int16), 3)
    used, place = np.unique(np.concatenate([above, below]), return_inverse=True)
    above, below = place[:height], place[height:]

    result = np.empty((3, height, width), dtype=np.uint8)
    step = max(1, _BLOCK // (3 * width))
    for start in range(0, height, step):
        rows = slice(start, start + step)
        base, end = above[start], below[rows][-1] + 1
        lines = pixels[used[base:end], first : last + 1].reshape(end - base, -1)
        across = _blend_columns(lines, near, weights)
        sums = _weigh(across[above[rows] - base], upper[rows])
        sums += _weigh(across[below[rows] - base], lower[rows])
        sums += 2
        sums >>= 2
        result[:, rows] = sums.reshape(-1, 3, width).transpose(1, 0, 2)
    return torch.from_numpy(result)


def _blend_columns(lines: np.ndarray, near: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Rows (R, 3·W) uint8 at new columns: each the values at `near` and 3 to the right of it, in 7 more bits.

    Args:
        lines: Pixels of 3 values.
        near: (N,) positions in a row.
        weights: (N,) int16, of the value to the right, of 2048.

    Returns:
        (R, N) int16, 0 … 32640: 128 times the value, rounded down.
    """
    # A value and its right neighbour move as one number of 16 bits.
    pairs = lines[:, 3:].astype(np.uint16)
    pairs <<= 8
    pairs |= lines[:, :-3]
    far = np.empty((len(lines), len(near)), dtype=np.uint16)
    pairs.take(near, axis=1, out=far, mode=_UNCHECKED)
    one = (far & 255).view(np.int16)
    far >>= 8
    difference = far.view(np.int16)
    difference -= one
    # Products with all 11 bits of a weight would need more than 16.
    rest = difference * (weights & 15)
    rest >>= 4
    difference *= weights >> 4
    difference += rest
    one <<= 7
    difference += one
    return difference


def _weigh(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Rows (R, N) int16 times their weights (R,) int32, over 65536, rounded down: (R, N) int32."""
    product = rows.astype(np.int32)
    torch.from_numpy(product).mul_(torch.from_numpy(weights)[:, None])  # in a third of the time NumPy takes
    product >>= 16
    return product


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
    result = np.empty((height, width), dtype=part.dtype)
    part[rows].take(columns - columns[0], axis=1, out=result, mode=_UNCHECKED)
    return torch.from_numpy(result)


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
