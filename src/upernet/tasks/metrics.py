"""Accumulators of evaluation: integer counts, summed over images and ranks, divided once.

Each counts predicted and true *groups* (see `ClassSets`), `IGNORE` where there is no label, or where the answer is a
class of no group. `compute()` returns named fractions, the headline first, and `per_class()` a table. Those whose names
begin with `Paper` follow the authors' multi-task evaluator (SPEC E6).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from upernet.labels import IGNORE

AVERAGED = "averaged"
"""Column of the table by class: 1 for classes over which means are taken, 0 for those that only count as mistakes."""

EPSILON = 1e-8
"""Pixels that the authors add to a union, so that a class of no pixel has IoU 0."""

PARTS = "mIoU-bg"
"""Headline of `PartMetric`."""


class CountingMetric(Metric, ABC):
    """The contract of an accumulator of evaluation, beyond that of torchmetrics."""

    full_state_update = False

    def __init__(self) -> None:
        # Evaluation itself decides when ranks are summed: a rank that measures alone must not wait for others.
        super().__init__(sync_on_compute=False)

    @abstractmethod
    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Count one batch of groups."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Metric name → fraction, the headline first; NaN where nothing was labelled."""

    @abstractmethod
    def per_class(self) -> dict[str, dict[str, float]]:
        """Class → metric name → fraction."""

    def further(self) -> dict[str, float]:
        """Figures of other protocols from the same counts: metric name → fraction."""
        return {}


class ConfusionMetric(CountingMetric):
    """Counts pairs of true (row) and predicted (column) groups on labelled pixels or images.

    The last column counts answers that are no group of the source.
    """

    matrix: Tensor

    def __init__(self, names: Sequence[str]):
        super().__init__()
        self.names = tuple(names)
        self.add_state("matrix", torch.zeros(len(names), len(names) + 1, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Count one batch. Both are int64 of one shape, in 0…G-1 or `IGNORE`."""
        labelled = target != IGNORE
        rows, columns = self.matrix.shape
        answers = predicted[labelled]
        pairs = target[labelled] * columns + torch.where(answers == IGNORE, rows, answers)
        self.matrix += torch.bincount(pairs, minlength=rows * columns).view(rows, columns)


class SegmentationMetric(ConfusionMetric):
    """mIoU, mAcc and pixel accuracy (PA; the toolbox calls it aAcc).

    A class in neither labels nor predictions has no IoU and is left out of the means, as in the reference toolbox. A
    class that is predicted and nowhere labelled has IoU 0 and no accuracy (SPEC D1).
    """

    def __init__(self, names: Sequence[str], average: Sequence[int] | None = None):
        super().__init__(names)
        self.average = list(range(len(names))) if average is None else list(average)

    def compute(self) -> dict[str, float]:
        """mIoU, mAcc and PA over all counted pixels."""
        hit, labelled, _ = self._counts()
        columns = self._columns()
        return {
            "mIoU": self._mean(columns["IoU"]),
            "mAcc": self._mean(columns["Acc"]),
            "PA": (hit.sum() / labelled.sum()).item(),
        }

    def per_class(self) -> dict[str, dict[str, float]]:
        """IoU, accuracy, Dice, F-score, precision and recall of each class, and whether means include it."""
        columns = self._columns()
        return {
            name: {column: values[i].item() for column, values in columns.items()}
            | {AVERAGED: float(i in self.average)}
            for i, name in enumerate(self.names)
        }

    def further(self) -> dict[str, float]:
        """Means of Dice, F-score, precision and recall, and the SceneParse150 score.

        The score is the mean of pixel accuracy and of an mIoU where classes in neither labels nor predictions count as
        0 (SPEC D5).
        """
        hit, labelled, predicted = self._counts()
        columns = self._columns()
        union = labelled + predicted - hit
        absent_0 = (hit / union.clamp(min=1))[self.average].mean()
        means = {f"m{column}": self._mean(columns[column]) for column in ("Dice", "F-score", "Precision", "Recall")}
        score = (absent_0 + hit.sum() / labelled.sum()) / 2
        return means | {"mIoU, absent 0": absent_0.item(), "SceneParse150": score.item()}

    def _mean(self, values: Tensor) -> float:
        return values[self.average].nanmean().item()

    def _counts(self) -> tuple[Tensor, Tensor, Tensor]:
        matrix = self.matrix.double()
        return matrix.diagonal(), matrix.sum(dim=1), matrix[:, :-1].sum(dim=0)

    def _columns(self) -> dict[str, Tensor]:
        """Metric name → (G,) fractions, NaN where 0 is divided by 0."""
        hit, labelled, predicted = self._counts()
        precision, recall = hit / predicted, hit / labelled
        return {
            "IoU": hit / (labelled + predicted - hit),
            "Acc": recall,
            "Dice": 2 * hit / (labelled + predicted),
            "F-score": 2 * precision * recall / (precision + recall),
            "Precision": precision,
            "Recall": recall,
        }


class PaperSegmentationMetric(SegmentationMetric):
    """mIoU and pixel accuracy (P.A. in the paper) of objects and materials.

    Every class that the source's labels can stand for enters the mean; one without a pixel has IoU 0. Predictions on
    unlabelled pixels count nowhere. An answer that is no group of the source, such as "-", is wrong.
    """

    def compute(self) -> dict[str, float]:
        """mIoU and PA over all labelled pixels; NaN if there are none."""
        hit, labelled, _ = self._counts()
        accuracy = (hit.sum() / labelled.sum()).item()
        return {"mIoU": self._mean(self._columns()["IoU"]) if accuracy == accuracy else accuracy, "PA": accuracy}

    def further(self) -> dict[str, float]:
        """Nothing: those figures are of another protocol."""
        return {}

    def _columns(self) -> dict[str, Tensor]:
        hit, labelled, predicted = self._counts()
        return super()._columns() | {"IoU": hit / (labelled + predicted - hit + EPSILON)}


class TopOne(ConfusionMetric):
    """Share of images whose answer is right, for tasks with one answer per image."""

    def compute(self) -> dict[str, float]:
        """`top-1`: the share of images that are right."""
        return {"top-1": (self.matrix.diagonal().sum().double() / self.matrix.sum()).item()}

    def per_class(self) -> dict[str, dict[str, float]]:
        """The share of each class's images that are right."""
        share = self.matrix.diagonal().double() / self.matrix.sum(dim=1)
        return {name: {"top-1": share[i].item()} for i, name in enumerate(self.names)}


class PartMetric(CountingMetric):
    """mIoU-bg of parts: class mean within each object, then mean over objects (released multi-task evaluator).

    An object is judged on the images that show at least one of its labelled parts. There, its predicted parts count
    wherever they fall, in the background and outside the true object too; "no part" itself is not averaged. Pixels
    without a label count as "no part". A part that is neither labelled nor predicted anywhere is left out of the mean.
    """

    hit: Tensor
    labelled: Tensor
    predicted: Tensor

    def __init__(self, names: Sequence[str], objects: Sequence[str], no_part: Sequence[bool]):
        """Start with no counts.

        Args:
            names: Name of each of the G groups.
            objects: Object of each group.
            no_part: Whether each group holds "no part".
        """
        super().__init__()
        self.names, self.objects, self.no_part = tuple(names), tuple(objects), tuple(no_part)
        for state in ("hit", "labelled", "predicted"):
            self.add_state(state, torch.zeros(len(names), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Count (B, H, W) int64 groups, `IGNORE` where no object with parts is predicted or nothing is labelled."""
        for prediction, truth in zip(predicted, target, strict=True):
            labelled, found = self._count(truth), self._count(prediction)
            hit = self._count(truth[truth == prediction])
            shown = {
                obj for obj, n, bg in zip(self.objects, labelled.tolist(), self.no_part, strict=True) if n and not bg
            }
            judged = torch.tensor([obj in shown for obj in self.objects], device=truth.device)
            self.labelled += labelled * judged
            self.predicted += found * judged
            self.hit += hit * judged

    def _count(self, groups: Tensor) -> Tensor:
        return torch.bincount(groups[groups != IGNORE], minlength=len(self.names))

    def compute(self) -> dict[str, float]:
        """mIoU-bg and the mean over objects of the share of their part pixels that are right (PA)."""
        iou = self._iou().tolist()
        means, accuracies = [], []
        for obj in dict.fromkeys(self.objects):
            parts = [i for i, o in enumerate(self.objects) if o == obj and not self.no_part[i]]
            if self.labelled[parts].sum() > 0:
                values = [iou[i] for i in parts if iou[i] == iou[i]]
                means.append(sum(values) / len(values))
                accuracies.append(self.hit[parts].sum().item() / self.labelled[parts].sum().item())
        count = len(means) or float("nan")
        return {PARTS: sum(means) / count, "PA": sum(accuracies) / count}

    def per_class(self) -> dict[str, dict[str, float]]:
        """IoU of each part; "no part" is left out."""
        iou = self._iou()
        return {n: {"IoU": iou[i].item()} for i, n in enumerate(self.names) if not self.no_part[i]}

    def _iou(self) -> Tensor:
        """(G,) IoU, NaN where 0 is divided by 0."""
        return self.hit / (self.labelled + self.predicted - self.hit).double()


class PaperPartMetric(PartMetric):
    """mIoU-bg and pixel accuracy (P.A. in the paper) of parts: `PartMetric`, but parts of no pixel have IoU 0."""

    def _iou(self) -> Tensor:
        return self.hit / ((self.labelled + self.predicted - self.hit).double() + EPSILON)
