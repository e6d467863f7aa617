"""Images of any kind as tensors, and several of them in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from upernet.data.images import read_image, to_rgb
from upernet.errors import UserError


class Picture(NamedTuple):
    """An image as `to_picture` gives it, and the name of its file, which is empty if it came from memory."""

    pixels: Tensor
    name: str

    @classmethod
    def of(cls, image: Any) -> Picture:
        name = str(image) if isinstance(image, (str, Path)) else str(getattr(image, "filename", ""))
        return cls(to_picture(image), name)


def in_batches(images: Iterable[Any], most: int) -> Iterator[list[Picture]]:
    """Batches of at most `most` neighbouring pictures of equal size and type; images are read only when needed."""
    waiting: list[Picture] = []
    for image in images:
        picture = Picture.of(image)
        if waiting and _kind(picture) != _kind(waiting[0]):
            yield waiting
            waiting = []
        waiting.append(picture)
        if len(waiting) == most:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _kind(picture: Picture) -> tuple[Any, ...]:
    return picture.pixels.shape, picture.pixels.dtype, picture.pixels.device


def to_picture(image: Any) -> Tensor:
    """Convert any image that `Parser` takes to (3, H, W) RGB in [0, 255]: uint8, or float32 if it came as floats.

    Raises:
        UserError: If the image cannot be read, or `Parser` does not take its shape, type or values.
    """
    if isinstance(image, (str, Path)):
        image = read_image(image)
    elif isinstance(image, Image.Image):
        image = np.array(to_rgb(image))
    if isinstance(image, np.ndarray):
        kind, valid, shape = "array", "(H, W, 3), (H, W), or (B, H, W, 3) for several", image.shape
        if image.ndim == 2:
            image = image[..., None]
        if image.ndim == 3:
            image = image.transpose(2, 0, 1)
        floating = np.issubdtype(image.dtype, np.floating)
        if floating or image.dtype == np.uint8:
            # A copy: torch takes neither read-only memory nor negative strides nor foreign byte order.
            image = torch.from_numpy(np.array(image, dtype=np.float32 if floating else np.uint8, order="C"))
    elif isinstance(image, Tensor):
        kind, valid, shape = "tensor", "(3, H, W), (1, H, W), or (B, 3, H, W) for several", tuple(image.shape)
    else:
        raise UserError(
            f"image of type {type(image).__name__}; valid: path, PIL image, (H, W, 3) array, (3, H, W) tensor"
        )
    if image.ndim != 3 or image.shape[0] not in (1, 3) or 0 in image.shape:
        raise UserError(f"{kind} of shape {tuple(shape)}; valid: {valid}")
    if not isinstance(image, Tensor) or not (image.dtype == torch.uint8 or image.is_floating_point()):
        raise UserError(f"{kind} of {str(image.dtype).removeprefix('torch.')}; valid: uint8, or float in [0, 1]")
    if image.is_floating_point():
        image = image.detach().float()
        low, high = image.min().item(), image.max().item()
        # Resampling overshoots by a hair; anything more is another range. NaN fails as well.
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            raise UserError(f"{kind} of floats from {low:g} to {high:g}; valid: [0, 1], or uint8")
        image = image.clamp(0, 1) * 255
    rgb: Tensor = image.expand(3, -1, -1)
    return rgb
