"""Samples and batches, the form in which data reach the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from upernet.data.faults import Skipped
from upernet.labels import IGNORE

PAD_GREY = 128
"""Value of padding in an image; label maps hold `IGNORE` there."""


@dataclass(frozen=True)
class Padding:
    """The part of a view that the image at its upper left does not cover. Bytes may not express its colour exactly.

    Attributes:
        height: Rows of the image itself; the rows below are padding.
        width: Columns of the image itself; the columns to the right are padding.
        colour: RGB in [0, 1].
    """

    height: int
    width: int
    colour: tuple[float, float, float]


@dataclass
class Sample:
    """One image and the labels that its source gives it.

    Attributes:
        image: (3, H, W) uint8, RGB.
        targets: Task target → map (H, W) int64 or id () int64, in the source's own label ids, `IGNORE` where
            unlabelled. A target that the source does not label has no key.
        source: Name of the source.
        id: Name of the image within the source.
        padding: The part of `image` that is padding with a colour of its own; None if there is none.
    """

    image: Tensor
    targets: dict[str, Tensor]
    source: str
    id: str
    padding: Padding | None = None


@dataclass
class Batch:
    """Samples of one source and one size.

    Images are kept as bytes, which take a quarter of the memory of floats; `image` converts them.

    Attributes:
        pixels: (B, 3, H, W) uint8, RGB.
        targets: Task target → (B, H, W) or (B,) int64.
        source: Name of the source.
        ids: Names of the B images.
        paddings: The `padding` of each sample.
        skipped: Images with a fault that others have taken the place of.
    """

    pixels: Tensor
    targets: dict[str, Tensor]
    source: str
    ids: list[str]
    paddings: list[Padding | None]
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def image(self) -> Tensor:
        """(B, 3, H, W) float32 in [0, 1], RGB, with padding in exactly its colour; computed at each use."""
        image = self.pixels.float().div_(255)
        colours = {p.colour for p in self.paddings if p is not None}
        known = {c: torch.tensor(c, device=image.device)[:, None, None] for c in colours}
        for view, padding in zip(image, self.paddings, strict=True):
            if padding is not None:
                colour = known[padding.colour]
                view[:, padding.height :] = colour
                view[:, :, padding.width :] = colour
        return image

    @classmethod
    def stack(
        cls,
        samples: list[Sample],
        dense: Mapping[str, bool] | None = None,
        *,
        multiple: int = 1,
        label_stride: int = 1,
    ) -> Batch:
        """Stack samples of one source; targets that a sample lacks are `IGNORE`.

        Smaller images lie at the upper left; the rest is grey, or of the colour of the sample's `padding`, and `IGNORE`
        in the maps.

        Args:
            samples: The samples, at least one.
            dense: Targets that the batch gets even if no sample has them → whether they are maps.
            multiple: Height and width of the batch are those of the largest image, rounded up to a multiple of this.
            label_stride: How many pixels of the images one pixel of a map stands for, down and across.
        """
        height, width = (-(-max(s.image.shape[axis] for s in samples) // multiple) * multiple for axis in (-2, -1))
        pixels = torch.stack([_padded(s.image, (3, height, width), PAD_GREY) for s in samples])
        whole = (height // label_stride, width // label_stride)
        shapes = {key: whole if is_map else () for key, is_map in (dense or {}).items()}
        shapes |= {key: whole if value.ndim else () for s in samples for key, value in s.targets.items()}
        missing = torch.tensor(IGNORE)
        targets = {
            key: torch.stack([_padded(s.targets.get(key, missing), shape, IGNORE) for s in samples])
            for key, shape in shapes.items()
        }
        return cls(pixels, targets, samples[0].source, [s.id for s in samples], [s.padding for s in samples])

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        targets = {key: value.to(device, non_blocking=True) for key, value in self.targets.items()}
        return replace(self, pixels=self.pixels.to(device, non_blocking=True), targets=targets)

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; called by the data loader."""
        targets = {key: value.pin_memory() for key, value in self.targets.items()}
        return replace(self, pixels=self.pixels.pin_memory(), targets=targets)


def _padded(values: Tensor, shape: tuple[int, ...], fill: int) -> Tensor:
    """Values at the upper left of a tensor of the shape; those that have it already come back as they are."""
    if values.shape == shape:
        return values
    result = torch.full(shape, fill, dtype=values.dtype)
    if values.ndim:
        result[..., : values.shape[-2], : values.shape[-1]] = values
    return result
