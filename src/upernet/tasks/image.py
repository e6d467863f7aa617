"""One class for a whole image: the shape of the scene task and of other classification tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from upernet.model.heads import ImageHead
from upernet.tasks.softmax import SoftmaxTask

if TYPE_CHECKING:
    from torch import nn


@dataclass(kw_only=True)
class ImageTask(SoftmaxTask):
    """Softmax over classes, once per image."""

    maps: ClassVar[bool] = False

    level: str = "ppm"
    width: int = 512
    """Channels of the convolution before the global average."""

    def build_head(self, in_channels: int) -> nn.Module:
        """An `ImageHead` of this width."""
        return ImageHead(in_channels, self.width, len(self.classes))
