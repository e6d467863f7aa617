"""Resizing of images and label maps by OpenCV, as the published networks were trained and measured.

Half-pixel centres and no smoothing when shrinking. OpenCV works in the calling thread alone, here and in every other
use of it in this process: threads of its own do not survive the start of a data loader's workers, which would wait for
them.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import Tensor

cv2.setNumThreads(1)

Size = tuple[int, int]
Window = tuple[int, int, int, int]
"""Top, left, height and width in pixels of the resized image."""


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
        window: Which part of it to return; all of it if none. Pixels beyond its `reach` do not matter.

    Returns:
        (3, h, w) uint8, laid out (h, w, 3) in memory; a view of the image itself if it has that size.

    Raises:
        MemoryError: If it does not fit into the memory.
    """
    top, left, height, width = window or (0, 0, *size)
    part = slice(top, top + height), slice(left, left + width)
    whole = tuple(image.shape[-2:])
    if tuple(size) == whole:
        return image[:, *part]
    rows, columns = reach(whole[0], size[0], top + height), reach(whole[1], size[1], left + width)
    # By factors, not by size: those of the whole image hold for its upper left part too.
    fy, fx = size[0] / whole[0], size[1] / whole[1]
    if (round(rows * fy), round(columns * fx)) == (rows, columns):
        rows, columns = whole  # OpenCV does not resize what would keep its size
    pixels = np.ascontiguousarray(image[:, :rows, :columns].permute(1, 2, 0).numpy())
    try:
        resized = cv2.resize(pixels, None, fx=fx, fy=fy, interpolation=cv2.INTER_LINEAR)
    except cv2.error as error:
        if error.code != cv2.Error.StsNoMem:
            raise
        raise MemoryError(str(error)) from error
    return torch.from_numpy(resized[part]).permute(2, 0, 1)


def reach(before: int, after: int, stop: int) -> int:
    """How many rows (or columns), from the first, of an image the first `stop` rows of the resized one are made of.

    Args:
        before: Rows of the image.
        after: Rows of the resized image.
        stop: At most `after`.
    """
    return min(before, math.ceil(stop * before / after) + 1)  # the filter reaches a row beyond


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
    part[rows].take(columns - columns[0], axis=1, out=result, mode="wrap")  # all lie inside; to check takes as long
    return torch.from_numpy(result)


def _nearest(before: int, after: int, start: int, count: int) -> np.ndarray:
    # By way of the factor, rounded, as OpenCV: that decides where the quotient is a whole number.
    step = 1 / (after / before)
    return np.floor(np.arange(start, start + count) * step).astype(np.intp).clip(max=before - 1)
