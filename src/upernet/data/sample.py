"""What moves from the data to the network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from upernet.data.labels import IGNORE


@dataclass
class Sample:
    """One image and what its source says about it.

    Attributes:
        image: (3, H, W) uint8, RGB.
        targets: Task target → map (H, W) int64 or id () int64, in the source's own label ids, `IGNORE` where
            unlabelled. A task the source says nothing about has no key.
        source: Name of the source.
        id: Name of the image within the source.
    """

    image: Tensor
    targets: dict[str, Tensor]
    source: str
    id: str


@dataclass
class Batch:
    """Samples of one source, of one size.

    Attributes:
        image: (B, 3, H, W) float32 in [0, 1], RGB.
        targets: Task target → (B, H, W) or (B,) int64.
        source: Name of the source.
        ids: B names of images.
    """

    image: Tensor
    targets: dict[str, Tensor]
    source: str
    ids: list[str]

    @classmethod
    def of(cls, samples: list[Sample]) -> Batch:
        """Stack samples of one source and size; where only some have a target, the others are `IGNORE`."""
        image = torch.stack([s.image for s in samples]).float() / 255
        targets = {}
        for key, like in {k: v for s in samples for k, v in s.targets.items()}.items():
            unlabelled = torch.full_like(like, IGNORE)
            targets[key] = torch.stack([s.targets.get(key, unlabelled) for s in samples])
        return cls(image, targets, samples[0].source, [s.id for s in samples])

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        targets = {key: value.to(device, non_blocking=True) for key, value in self.targets.items()}
        return Batch(self.image.to(device, non_blocking=True), targets, self.source, self.ids)

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; called by the data loader."""
        targets = {key: value.pin_memory() for key, value in self.targets.items()}
        return Batch(self.image.pin_memory(), targets, self.source, self.ids)
