"""A label at every pixel: what object, part, material, texture and plain segmentation share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch.nn.functional as F
from torch import Tensor

from upernet.data.labels import IGNORE, ClassSets, Labels
from upernet.model.heads import DenseHead
from upernet.tasks.base import Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from upernet.engine.metrics import TaskMetric


@dataclass(kw_only=True)
class DenseTask(Task):
    """Softmax over classes at every pixel.

    A target with one label per image trains every pixel towards that label, and the answer for a whole image is
    drawn from its pixels (see `image_answer`).
    """

    labels: list[str] | dict[str, str] = field(default_factory=list)
    """Class names in the order of the logits, or a mapping of names to colours such as `"#4682b4"`."""
    convs: int = 1
    """3×3 convolutions in the head before the classifier."""
    width: int = 128
    """Channels of those convolutions."""
    dropout: float = 0.0
    """Probability of dropping a channel before the classifier."""
    image_answer: Literal["mean", "majority"] = "mean"
    """One answer for a whole image: class of the largest mean probability, or the most frequent class."""

    @property
    def classes(self) -> Labels:
        return Labels.of(self.labels)

    def build_head(self, in_channels: int) -> nn.Module:
        return DenseHead(in_channels, len(self.classes), convs=self.convs, width=self.width, dropout=self.dropout)

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """Log-probabilities (B, K, H, W), float32."""
        return F.log_softmax(logits.float(), dim=1)

    def loss(self, logits: Tensor, target: Tensor, sets: ClassSets) -> Tensor:
        log_p, groups = spread(sets.log_probabilities(self.log_probabilities(logits)), sets.to_groups(target))
        total = F.nll_loss(log_p, groups, ignore_index=IGNORE, reduction="sum")
        return total / (groups != IGNORE).sum().clamp(min=1)

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.float().softmax(dim=1)

    def decode(self, probabilities: Tensor, decoded: Mapping[str, Tensor]) -> Tensor:
        return probabilities.argmax(dim=1)

    def image_probabilities(self, probabilities: Tensor) -> Tensor:
        """One answer per image: (B, K, h, w) → (B, K), summing to one."""
        if self.image_answer == "mean":
            return probabilities.mean(dim=(2, 3))
        votes = F.one_hot(probabilities.argmax(dim=1), probabilities.shape[1])
        return votes.float().mean(dim=(1, 2))

    def predict_groups(self, probabilities: Tensor, sets: ClassSets, decoded: Mapping[str, Tensor]) -> Tensor:
        return sets.probabilities(probabilities).argmax(dim=1)

    def metric(self, sets: ClassSets, dense: bool, average: Sequence[int] | None = None) -> TaskMetric:
        from upernet.engine.metrics import SegmentationMetric, TopOne

        return SegmentationMetric(sets.group_names, average) if dense else TopOne(sets.group_names)


def spread(log_p: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Spread one label per image over all pixels; a dense target must already have the logits' size."""
    if groups.ndim == 1:
        groups = groups[:, None, None].expand(-1, *log_p.shape[2:])
    return log_p, groups
