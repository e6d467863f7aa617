"""One class out of K, at every pixel or for a whole image: what the two shapes of task share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from upernet.contract import Choice, Loss, SummaryLoss, Task
from upernet.data.sets import published_classes
from upernet.errors import UserError
from upernet.labels import ClassSets, Labels
from upernet.tasks.bands import summaries
from upernet.tasks.losses import CrossEntropy

if TYPE_CHECKING:
    from upernet.contract import TaskMetric


@dataclass(kw_only=True)
class SoftmaxTask(Task):
    """Softmax over classes; the loss is the mean negative log-likelihood of what is labelled, or a sum of `losses`."""

    labels: list[str] | dict[str, str] | str = field(default_factory=list)
    """Class names in the order of the logits, a mapping of names to colours such as `"#4682b4"`, or the name of a
    published list: `ade20k`, `camvid`, `cityscapes`, `dms`, `mseg`, `voc`, or `broden_plus/object`, `/scene`,
    `/material` or `/texture`."""

    losses: list[Loss] = field(default_factory=list)
    """Terms of the loss, each with its `weight`, such as `upernet.tasks.CrossEntropy` or `upernet.tasks.Dice`; the
    cross-entropy averaged over what is labelled if empty."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for one in self.losses:
            if not isinstance(one, Loss):
                raise UserError(f"losses: {one!r} is not a Loss; for example upernet.tasks.CrossEntropy()")
            if one.needs_map and not self.maps:
                kind, own = type(one).__name__, type(self).__name__
                raise UserError(f"losses: {kind} needs a map, {own} answers once per image; valid: CrossEntropy, Focal")

    def bind(self, tasks: Mapping[str, Task]) -> None:
        """Let each term see the classes.

        Raises:
            UserError: If one of them does not fit, such as weights of other classes.
        """
        for one in self.losses:
            one.bind(self.classes)

    @property
    def classes(self) -> Labels:
        """The table that `labels` gives or names."""
        return Labels.of(published_classes(self.labels) if isinstance(self.labels, str) else self.labels)

    def loss(self, logits: Tensor, target: Tensor, sets: ClassSets) -> Tensor:
        """The weighted sum of `losses`, in the label space of the source."""
        log_q = sets.log_probabilities(F.log_softmax(logits.float(), dim=1))
        groups = expand_to_map(sets.to_groups(target), log_q)
        terms = [one.weight * one.loss(log_q, groups, sets) for one in self.losses or [CrossEntropy()]]
        return torch.stack(terms).sum()

    def resized_loss(self, logits: Tensor, target: Tensor, sets: ClassSets, align_corners: bool) -> Tensor:
        """`loss` of resized logits. The terms that are a `SummaryLoss` never see the whole map."""
        terms = self.losses or [CrossEntropy()]
        summarised = [one for one in terms if isinstance(one, SummaryLoss) and type(one).loss is SummaryLoss.loss]
        if type(self).loss is not SoftmaxTask.loss or not summarised:
            return super().resized_loss(logits, target, sets, align_corners)

        def summarise(rows: Tensor, groups: Tensor) -> list[Tensor]:
            log_q = sets.log_probabilities(F.log_softmax(rows, dim=1))
            return [one.summary(log_q, groups, sets) for one in summarised]

        groups = sets.to_groups(target)
        found = summaries(logits, groups, summarise, [one.joined for one in summarised], align_corners)
        values = [one.weight * one.finish(own, groups, sets) for one, own in zip(summarised, found, strict=True)]
        rest = [one for one in terms if one not in summarised]
        if rest:
            full = F.interpolate(logits, groups.shape[1:], mode="bilinear", align_corners=align_corners)
            log_q = sets.log_probabilities(F.log_softmax(full, dim=1))
            values += [one.weight * one.loss(log_q, groups, sets) for one in rest]
        return torch.stack(values).sum()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax over the classes, float32."""
        return logits.float().softmax(dim=1)

    def decode(self, probabilities: Tensor, decoded: Mapping[str, Tensor]) -> Tensor:
        """The likeliest class."""
        return probabilities.argmax(dim=1)

    def predict_groups(self, probabilities: Tensor, sets: ClassSets, decoded: Mapping[str, Tensor]) -> Tensor:
        """The group of the largest summed probability; `IGNORE` where protocol `paper` finds a class of no group."""
        return sets.likeliest(probabilities)

    def choices(self, sets: ClassSets | None = None) -> Sequence[Choice] | None:
        """One choice among all classes, since the softmax keeps their order; among groups, if each is one class."""
        if sets is None:
            return [Choice(range(len(self.classes)), range(len(self.classes)))]
        choice = choice_of_groups(sets)
        return None if choice is None else [choice]

    def metric(self, sets: ClassSets, dense: bool, average: Sequence[int] | None = None) -> TaskMetric:
        """A metric of the protocol of `sets` for maps, `TopOne` for one label per image."""
        from upernet.tasks.metrics import PaperSegmentationMetric, SegmentationMetric, TopOne

        if not dense:
            return TopOne(sets.group_names)
        kind = PaperSegmentationMetric if sets.protocol == "paper" else SegmentationMetric
        return kind(sets.group_names, average)


def choice_of_groups(
    sets: ClassSets, within: tuple[int, int] | None = None, where: tuple[str, int] | None = None
) -> Choice | None:
    """The choice that `sets.likeliest(probabilities, within)` makes; None if it sums probabilities of several classes.

    Args:
        sets: The groups.
        within: First class, and class after the last, to which the answer is confined.
        where: The answer of another task where the choice holds; None for everywhere.
    """
    members, answers = sets.candidates(within)
    if any(len(group) > 1 for group in members):
        return None
    return Choice([group[0] for group in members], answers, where)


def expand_to_map(groups: Tensor, logits: Tensor) -> Tensor:
    """Groups (B,) of whole images, repeated at every position of logits (B, K, h, w); other groups as they are."""
    if groups.ndim == 1 and logits.ndim == 4:
        return groups[:, None, None].expand(-1, *logits.shape[2:])
    return groups
