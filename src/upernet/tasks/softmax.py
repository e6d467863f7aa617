"""One class out of K: what labels at every pixel and labels of whole images share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from upernet.data.labels import IGNORE, ClassSets, Labels
from upernet.tasks.base import Task

if TYPE_CHECKING:
    from upernet.engine.metrics import TaskMetric


@dataclass(kw_only=True)
class SoftmaxTask(Task):
    """Softmax over classes; the loss is the mean negative log-likelihood of what is labelled."""

    labels: list[str] | dict[str, str] | str = field(default_factory=list)
    """Class names in the order of the logits, a mapping of names to colours such as `"#4682b4"`, or the name of a
    published list: `ade20k`, `cityscapes` or `voc`."""

    @property
    def classes(self) -> Labels:
        return Labels.of(self.labels)

    def loss(self, logits: Tensor, target: Tensor, sets: ClassSets) -> Tensor:
        log_p = sets.log_probabilities(F.log_softmax(logits.float(), dim=1))
        groups = spread(sets.to_groups(target), log_p)
        total = F.nll_loss(log_p, groups, ignore_index=IGNORE, reduction="sum")
        return total / (groups != IGNORE).sum().clamp(min=1)

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.float().softmax(dim=1)

    def decode(self, probabilities: Tensor, decoded: Mapping[str, Tensor]) -> Tensor:
        return probabilities.argmax(dim=1)

    def predict_groups(self, probabilities: Tensor, sets: ClassSets, decoded: Mapping[str, Tensor]) -> Tensor:
        return sets.probabilities(probabilities).argmax(dim=1)

    def metric(self, sets: ClassSets, dense: bool, average: Sequence[int] | None = None) -> TaskMetric:
        from upernet.engine.metrics import SegmentationMetric, TopOne

        return SegmentationMetric(sets.group_names, average) if dense else TopOne(sets.group_names)


def spread(groups: Tensor, logits: Tensor) -> Tensor:
    """One label per image (B,) over every position of a map of logits (B, K, h, w); anything else as it is."""
    if groups.ndim == 1 and logits.ndim == 4:
        return groups[:, None, None].expand(-1, *logits.shape[2:])
    return groups
