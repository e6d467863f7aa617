"""Resizing of images and label maps by OpenCV, as the published networks were trained and measured.

Pixel centres lie at half pixels, and nothing is smoothed when shrinking. OpenCV works in the calling thread alone, here
and in every other use of it in this process: threads of its own do not survive the start of a data loader's workers,
which would wait for them forever.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

cv2.setNumThreads(1)

Size = tuple[int, int]
"""Height and width in pixels."""


class Window(NamedTuple):
    """A rectangle of pixels: first row and column, and row and column after the last."""

    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def whole(cls, size: Size) -> Window:
        """All of an image of that size."""
        return cls(0, 0, *size)

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def size(self) -> Size:
        return self.height, self.width

    @property
    def rows(self) -> slice:
        return slice(self.top, self.bottom)

    @property
    def columns(self) -> slice:
        return slice(self.left, self.right)


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
        window: The part of the resized image to return; None for all of it. Pixels of `image` beyond the window's
            `reach` do not matter.

    Returns:
        (3, h, w) uint8, laid out (h, w, 3) in memory; a view of the image itself if it has that size.

    Raises:
        MemoryError: If the resized image does not fit into the memory.
    """
    window = window or Window.whole(size)
    whole = tuple(image.shape[-2:])
    if tuple(size) == whole:
        return image[:, window.rows, window.columns]
    rows, columns = reach(whole[0], size[0], window.bottom), reach(whole[1], size[1], window.right)
    # OpenCV gets factors instead of a size: those of the whole image hold for its upper left part too.
    fy, fx = size[0] / whole[0], size[1] / whole[1]
    if (round(rows * fy), round(columns * fx)) == (rows, columns):
        rows, columns = whole  # OpenCV does not resize if the size would stay the same
    pixels = np.ascontiguousarray(image[:, :rows, :columns].permute(1, 2, 0).numpy())
    try:
        resized = cv2.resize(pixels, None, fx=fx, fy=fy, interpolation=cv2.INTER_LINEAR)
    except cv2.error as error:
        if error.code != cv2.Error.StsNoMem:
            raise
        raise MemoryError(str(error)) from error
    return torch.from_numpy(resized[window.rows, window.columns]).permute(2, 0, 1)


def reach(before: int, after: int, stop: int) -> int:
    """How many rows (or columns) from the top of an image are needed for the first `stop` rows of the resized image.

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
        window: The part of the resized map to return; None for all of it.

    Returns:
        (h, w) of the same type, equal to OpenCV's `INTER_NEAREST` cropped to the window: row i is taken from row
        floor(i · H / h), which when shrinking lies above and to the left of where the image is sampled.
    """
    window = window or Window.whole(size)
    if tuple(size) == tuple(labels.shape):
        return labels[window.rows, window.columns].contiguous()
    rows = _nearest(labels.shape[0], size[0], window.top, window.bottom)
    columns = _nearest(labels.shape[1], size[1], window.left, window.right)
    part = labels.numpy()[:, columns[0] : columns[-1] + 1]
    result = np.empty(window.size, dtype=part.dtype)
    # No index is out of range, and to check that takes as long as the copy: "wrap" does not check.
    part[rows].take(columns - columns[0], axis=1, out=result, mode="wrap")
    return torch.from_numpy(result)


def _nearest(before: int, after: int, start: int, stop: int) -> np.ndarray:
    """The rows, of `before`, from which rows `start` to `stop` of a map resized to `after` rows are taken."""
    # The factor is rounded first, as OpenCV does: that decides the row where the quotient is a whole number.
    step = 1 / (after / before)
    return np.floor(np.arange(start, stop) * step).astype(np.intp).clip(max=before - 1)
