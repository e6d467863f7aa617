"""One label for a whole image: the shape of the scene task and of any other classification."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from upernet.config import UserError
from upernet.data.labels import IGNORE, ClassSets, Labels
from upernet.model.heads import ImageHead
from upernet.tasks.base import Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from upernet.engine.metrics import TaskMetric


@dataclass(kw_only=True)
class ImageTask(Task):
    """Softmax over classes, once per image."""

    level: str = "ppm"
    labels: list[str] | dict[str, str] = field(default_factory=list)
    """Class names in the order of the logits, or a mapping of names to colours such as `"#4682b4"`."""
    width: int = 512
    """Channels of the convolution before the global average."""

    @property
    def classes(self) -> Labels:
        return Labels.of(self.labels)

    def build_head(self, in_channels: int) -> nn.Module:
        return ImageHead(in_channels, self.width, len(self.classes))

    def loss(self, logits: Tensor, target: Tensor, sets: ClassSets) -> Tensor:
        if target.ndim != 1:
            raise UserError(
                f"an image-level task needs one label per image, (B,); the target has shape {tuple(target.shape)}"
            )
        groups = sets.to_groups(target)
        log_p = sets.log_probabilities(F.log_softmax(logits.float(), dim=1))
        total = F.nll_loss(log_p, groups, ignore_index=IGNORE, reduction="sum")
        return total / (groups != IGNORE).sum().clamp(min=1)

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.float().softmax(dim=1)

    def decode(self, probabilities: Tensor, decoded: Mapping[str, Tensor]) -> Tensor:
        return probabilities.argmax(dim=1)

    def predict_groups(self, probabilities: Tensor, sets: ClassSets, decoded: Mapping[str, Tensor]) -> Tensor:
        return sets.probabilities(probabilities).argmax(dim=1)

    def metric(self, sets: ClassSets, dense: bool, average: Sequence[int] | None = None) -> TaskMetric:
        from upernet.engine.metrics import TopOne

        return TopOne(sets.group_names)
