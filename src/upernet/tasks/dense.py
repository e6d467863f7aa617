"""One class at every pixel: the shape of the object, material, texture and plain segmentation tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch.nn.functional as F
from torch import Tensor

from upernet.errors import check
from upernet.model.heads import DenseHead
from upernet.tasks.softmax import SoftmaxTask

if TYPE_CHECKING:
    from torch import nn


@dataclass(kw_only=True)
class DenseTask(SoftmaxTask):
    """Softmax over classes at every pixel.

    A target may also be one label per image. It then trains every pixel towards that label. `image_answer` says how
    the answer for a whole image follows from its pixels.
    """

    convs: int = 1
    """3×3 convolutions in the head before the classifier."""
    width: int = 128
    """Channels of those convolutions."""
    dropout: float = 0.0
    """Probability of dropping a channel before the classifier."""
    image_answer: Literal["mean", "majority"] = "mean"
    """Answer for a whole image: the class of the largest mean probability, or the most frequent class."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check("dropout", self.dropout, 0, 1, example=0.1)

    def build_head(self, in_channels: int) -> nn.Module:
        """A `DenseHead` with this task's convolutions."""
        return DenseHead(in_channels, len(self.classes), convs=self.convs, width=self.width, dropout=self.dropout)

    def image_probabilities(self, probabilities: Tensor) -> Tensor:
        """One answer per image: (B, K, h, w) → (B, K), summing to one."""
        if self.image_answer == "mean":
            return probabilities.mean(dim=(2, 3))
        votes = F.one_hot(probabilities.argmax(dim=1), probabilities.shape[1])
        return votes.float().mean(dim=(1, 2))
