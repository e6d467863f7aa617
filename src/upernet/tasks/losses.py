"""The terms of a task's loss, on the contract of `upernet.contract.Loss`.

Every term is computed in the label space of the source. Where a label stands for several classes, "the probability of
the truth" is the summed probability of these classes. Every term is computed in float32. Where nothing is labelled it
is 0 and its gradients are zero.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal, get_args

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from upernet.contract import Loss, SummaryLoss
from upernet.errors import UserError, check
from upernet.labels import IGNORE, ClassSets, Labels

Counted = Literal["inverse_frequency", "median_frequency", "effective_number"]
"""Class weights that follow from the data; `upernet.data.frequencies` counts and tells the formulas."""
Average = Literal["labelled", "all"]


@dataclass(kw_only=True)
class WeightedLoss(SummaryLoss):
    """A term with class weights. The weight of a label that stands for several classes is the mean of theirs."""

    class_weights: list[float] | dict[str, float] | Counted | None = None
    """Weights in the order of the classes, weights by class name (1 for classes left out), or the method that computes
    them from the training data: `inverse_frequency`, `median_frequency` (Eigen and Fergus 2015) or `effective_number`
    (Cui et al. 2019). The computed weights are written into the run's `config.yaml`, so that they are computed once."""
    beta: float = 0.999
    """β of `effective_number`, in [0, 1). 0 gives equal weights; values near 1 give the inverse frequency."""
    count_images: int | None = None
    """Number of images per source that are counted, evenly spaced; all if none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        check(f"{name}.beta", self.beta, 0, 1 - 1e-12, example=0.999)
        check(f"{name}.count_images", self.count_images, 1, example=1000)
        given = self.class_weights
        if isinstance(given, str):
            if given not in get_args(Counted):
                raise UserError(f"{name}.class_weights: {given!r} is not one of {', '.join(get_args(Counted))}")
        elif given is not None:
            values = list(given.values()) if isinstance(given, dict) else given
            wrong = [v for v in values if not 0 <= v < math.inf]
            if wrong or (isinstance(given, list) and not any(values)):
                raise UserError(f"{name}.class_weights: {wrong or values} must be ≥ 0 and not all 0; for example 1.0")

    def bind(self, classes: Labels) -> None:
        """Check the weights against the classes.

        Raises:
            UserError: If there are more or fewer than classes, or one is for a class that does not exist.
        """
        given, name = self.class_weights, type(self).__name__
        if isinstance(given, list) and len(given) != len(classes):
            raise UserError(f"{name}.class_weights: {len(given)} weights for {len(classes)} classes; give one for each")
        if isinstance(given, dict):
            for key in given:
                try:
                    classes.index(key)
                except UserError as error:
                    raise UserError(f"{name}.class_weights: {error}") from error
            if not any(given.get(key, 1.0) for key in classes.names):
                raise UserError(f"{name}.class_weights: all classes weigh 0; leave one out or give it 1.0")

    def group_weights(self, sets: ClassSets, device: torch.device) -> Tensor | None:
        """(G,) float32; none where all weigh alike.

        Raises:
            UserError: If they are to be computed from the data and have not been.
        """
        given = self.class_weights
        if given is None:
            return None
        if isinstance(given, str):
            raise UserError(f"class_weights: {given!r} is not counted yet; upernet train does, or give [1.0, 2.0, …]")
        by_class = given if isinstance(given, list) else [given.get(name, 1.0) for name in sets.classes.names]
        values = [sum(by_class[c] for c in group) / len(group) for group in sets.groups]
        return on_device(values, device).float()

    def summary(self, log_q: Tensor, groups: Tensor, sets: ClassSets) -> Tensor:
        """Log-probability of the truth at each pixel, 0 where unlabelled; (B, 1, H, W) or (B, 1)."""
        return log_truth(log_q, groups).unsqueeze(1)

    def pixel_weights(self, groups: Tensor, sets: ClassSets) -> Tensor:
        """Weight of each pixel or image, float32 of the shape of `groups`: 0 where unlabelled, 1 if all weigh alike."""
        weights = self.group_weights(sets, groups.device)
        if weights is None:
            return (groups != IGNORE).float()
        return F.pad(weights, (0, 1))[groups]  # the last entry is for `IGNORE`


@dataclass(kw_only=True)
class CrossEntropy(WeightedLoss):
    """Negative log-likelihood of the truth, averaged over pixels."""

    average: Average = "labelled"
    """Divisor of the sum: `labelled` is the number of labelled pixels (the sum of their weights if there are weights),
    `all` the number of all pixels, as in the published recipes."""
    smoothing: float = 0.0
    """Label smoothing: share of the target that is distributed evenly over all labels of the source (Szegedy et al.
    2016, section 7)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check("CrossEntropy.smoothing", self.smoothing, 0, 1, example=0.1)
        if self.average not in get_args(Average):
            raise UserError(f"CrossEntropy.average: {self.average!r} is not one of {', '.join(get_args(Average))}")

    def summary(self, log_q: Tensor, groups: Tensor, sets: ClassSets) -> Tensor:
        """Log-probability of the truth at each pixel; with smoothing also the weighted mean over the groups."""
        truth = log_truth(log_q, groups).unsqueeze(1)
        if not self.smoothing:
            return truth
        weights = self.group_weights(sets, log_q.device)
        each = log_q if weights is None else log_q * weights.reshape(-1, *[1] * (log_q.ndim - 2))
        return torch.cat([truth, each.mean(dim=1, keepdim=True)], dim=1)

    def finish(self, summary: Tensor, groups: Tensor, sets: ClassSets) -> Tensor:
        """Mean cross-entropy of the groups."""
        weight, truth = self.pixel_weights(groups, sets), summary[:, :1]
        if self.class_weights is not None:
            truth = truth * weight.unsqueeze(1)
        # As if of one class: pixels are then added in the order in which PyTorch's cross-entropy adds them.
        total = F.nll_loss(truth, groups.clamp(max=0), ignore_index=IGNORE, reduction="sum")
        if self.smoothing:
            even = -summary[:, 1].masked_fill(groups == IGNORE, 0).sum()
            total = (1 - self.smoothing) * total + self.smoothing * even
        return total / (groups.numel() if self.average == "all" else denominator(weight.sum()))


@dataclass(kw_only=True)
class OHEM(WeightedLoss):
    """Cross-entropy averaged over the hardest pixels only (Shrivastava et al. 2016; for pixels Wu et al. 2016).

    A pixel is kept if the probability of its truth is at most `threshold`. At least the hardest `min_kept` pixels per
    image of the batch are kept; pixels as hard as the last of these are kept too.
    """

    threshold: float = 0.7
    """Largest probability of the truth at which a pixel is hard. 1 keeps every pixel, 0 only the `min_kept` hardest."""
    min_kept: int = 100_000
    """Least number of pixels per image that are kept."""

    needs_map: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check("OHEM.threshold", self.threshold, 0, 1, example=0.7)
        check("OHEM.min_kept", self.min_kept, 0, example=100_000)

    def finish(self, summary: Tensor, groups: Tensor, sets: ClassSets) -> Tensor:
        """Mean cross-entropy over the hardest pixels."""
        truth = summary[:, 0]
        with torch.no_grad():
            # A set's sum may round to a little more than 1. What is unlabelled is easier than any pixel.
            q = truth.exp().clamp(max=1).masked_fill(groups == IGNORE, math.inf)
            kept = q <= self.threshold
            least = min(self.min_kept * len(groups), q.numel())
            if least:
                kept |= q <= q.flatten().kthvalue(least).values
            factor = self.pixel_weights(groups, sets) * kept
        return -(factor * truth).sum() / denominator(factor.sum())


@dataclass(kw_only=True)
class Focal(WeightedLoss):
    """Focal loss on a softmax: −α (1 − q)^γ log q of the truth's probability q, averaged over labelled pixels.

    Lin et al. 2017, equation 5, with a softmax instead of their sigmoid per class. Their α per class is
    `class_weights`. The average is over pixels, not over weights.
    """

    gamma: float = 2.0
    """Exponent γ; 0 is the cross-entropy."""
    alpha: float = 1.0
    """Factor α of every pixel."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check("Focal.gamma", self.gamma, 0, example=2.0)
        check("Focal.alpha", self.alpha, 0, example=0.25)

    def finish(self, summary: Tensor, groups: Tensor, sets: ClassSets) -> Tensor:
        """Mean focal loss over labelled pixels."""
        truth = summary[:, 0]
        # The power's slope at 0 is infinite for γ < 1.
        miss = (-torch.expm1(truth)).clamp(min=torch.finfo(truth.dtype).tiny)
        total = -self.alpha * (self.pixel_weights(groups, sets) * miss**self.gamma * truth).sum()
        return total / denominator((groups != IGNORE).sum())


@dataclass(kw_only=True)
class RegionLoss(Loss):
    """A term that compares the predicted and the labelled area of each label: the mean over the labels present.

    The classes of one label may contain those of another. A pixel of the contained label counts as the containing
    label too. A pixel of the containing label says nothing about the contained one and is left out there.
    """

    per_image: bool = False
    """Compare each image by itself and average over images. Otherwise the batch is compared as one image."""

    needs_map: ClassVar[bool] = True

    def loss(self, log_q: Tensor, groups: Tensor, sets: ClassSets) -> Tensor:
        """Mean of `region` over the groups that the batch (or each image) shows."""
        relations = _relations(sets.groups)
        q, labels = log_q.exp().transpose(0, 1).flatten(2), groups.flatten(1)
        areas = q.unbind(1) if self.per_image else [q.flatten(1)]
        truths = labels.unbind(0) if self.per_image else [labels.flatten()]
        values = [self._mean(area, truth, relations) for area, truth in zip(areas, truths, strict=True)]
        known = [value for value in values if value is not None]
        return torch.stack(known).mean() if known else log_q.flatten()[:0].sum()

    def _mean(self, q: Tensor, labels: Tensor, relations: tuple[tuple[int, ...], ...]) -> Tensor | None:
        labelled = labels != IGNORE
        q, labels = q[:, labelled], labels[labelled]
        shown = set(labels.unique().tolist())
        values = []
        for group, relation in enumerate(relations):
            if any(relation[label] == 1 for label in shown):
                belongs = torch.tensor(relation, device=labels.device)[labels]
                area = q[group]
                if any(relation[label] < 0 for label in shown):
                    area, belongs = area[belongs >= 0], belongs[belongs >= 0]
                values.append(self.region(area, belongs == 1))
        return torch.stack(values).mean() if values else None

    @abstractmethod
    def region(self, q: Tensor, truth: Tensor) -> Tensor:
        """Scalar loss of one label.

        Args:
            q: float32 (N,), its probability at each labelled pixel.
            truth: bool (N,), True where it is the truth, which is at least one pixel.
        """


@dataclass(kw_only=True)
class Dice(SummaryLoss):
    """One less the Dice coefficient of each label, averaged over the labels that the batch shows.

    The loss of a label is 1 − (2 Σ q t + s) / (Σ q^k + Σ t + s), t being 1 on its pixels, else 0. With power k = 2 that
    of V-Net (Milletari et al. 2016, section 3). Labels whose classes contain those of others count as in `RegionLoss`.
    """

    per_image: bool = False
    """Compare each image by itself and average over images. Otherwise the batch is compared as one image."""
    smooth: float = 1.0
    """The s above, in pixels. Areas much smaller than s matter little."""
    power: Literal[1, 2] = 2
    """The exponent k above."""

    needs_map: ClassVar[bool] = True
    joined: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check("Dice.smooth", self.smooth, 0, example=1.0)
        if self.power not in (1, 2):
            raise UserError(f"Dice.power: {self.power} is not one of 1, 2")

    def summary(self, log_q: Tensor, groups: Tensor, sets: ClassSets) -> Tensor:
        """Σ q t and Σ q^k of each group, (B, 2, G), of each image or (1, 2, G) of the batch."""
        q, relations = log_q.exp(), _relations(sets.groups)
        if all(-1 not in relation and sum(relation) == 1 for relation in relations):  # no label contains another
            truth = groups.unsqueeze(1) == torch.arange(len(relations), device=groups.device)[:, None, None]
            known = (groups != IGNORE).unsqueeze(1)
        else:
            # By the label of a pixel, (G + 1, G); the last row is for `IGNORE`, which says nothing of any group.
            by_label = [list(column) for column in zip(*relations, strict=True)] + [[-1] * len(relations)]
            relation = on_device(by_label, groups.device)[groups].movedim(-1, 1)
            truth, known = relation == 1, relation >= 0
        of_truth, area = (q * truth).sum(dim=(2, 3)), q * known
        sums = torch.stack([of_truth, (area.square() if self.power == 2 else area).sum(dim=(2, 3))], dim=1)
        return sums if self.per_image else sums.sum(dim=0, keepdim=True)

    def finish(self, summary: Tensor, groups: Tensor, sets: ClassSets) -> Tensor:
        """One less the mean Dice coefficient."""
        labels = groups.flatten(1) if self.per_image else groups.reshape(1, -1)
        relations = on_device(_relations(sets.groups), groups.device)
        count = torch.zeros(len(labels), len(relations) + 1, device=labels.device)
        count.scatter_add_(
            1, labels.where(labels != IGNORE, len(relations)), torch.ones_like(labels, dtype=count.dtype)
        )
        truth = count[:, :-1] @ (relations == 1).to(count.dtype).T
        shown = truth > 0
        of_truth, area = summary.unbind(1)
        total = (area + truth + self.smooth).where(shown, 1.0)
        values = (1 - (2 * of_truth + self.smooth) / total).where(shown, 0.0)
        means = values.sum(dim=1) / shown.sum(dim=1).clamp(min=1)
        return means.sum() / shown.any(dim=1).sum().clamp(min=1)


@dataclass(kw_only=True)
class Lovasz(RegionLoss):
    """Lovász-softmax, a surrogate of one less the IoU (Berman et al. 2018, equations 8 to 12)."""

    def region(self, q: Tensor, truth: Tensor) -> Tensor:
        """The Lovász extension of the Jaccard loss at the errors of this label."""
        error, order = torch.where(truth, 1 - q, q).sort(descending=True)
        truth = truth[order]
        # The gradient of the extension, what each further wrong pixel adds to 1 − IoU, without a difference of almost
        # equal numbers: 1 / union for a pixel that is missed, intersection / (union · union before) for one too many.
        area = truth.sum()
        intersection, union = area - truth.cumsum(0), area + (~truth).cumsum(0)
        added = torch.where(truth, 1 / union, intersection / (union * (union - 1).clamp(min=1)))
        return (error * added).sum()


_OWN_BATCH: ContextVar[bool] = ContextVar("_OWN_BATCH", default=False)
"""Whether a mean is over the labelled pixels of this process alone."""


@contextmanager
def average_over_own_batch() -> Iterator[None]:
    """Let each process average losses over its own batch while the block runs (`OptimConfig.loss_average`)."""
    token = _OWN_BATCH.set(True)
    try:
        yield
    finally:
        _OWN_BATCH.reset(token)


def denominator(count: Tensor) -> Tensor:
    """The divisor that turns a loss summed over labelled pixels into a mean: the mean count over processes, above 0.

    Gradients are averaged over the processes that train together. Because the count is averaged too, their step equals
    that of one process with all of the images, however many labelled pixels each process has. Within
    `average_over_own_batch`, the count is that of this process.

    Args:
        count: Number of labelled pixels of this process, or the sum of their weights; any shape.

    Returns:
        float32 of the same shape, or `count`'s own floating type.
    """
    count = count.detach() if count.is_floating_point() else count.float()
    if not _OWN_BATCH.get() and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        count = count.clone()
        dist.all_reduce(count)
        count /= dist.get_world_size()
    return count.clamp(min=1e-6)  # small enough for any weights; far smaller ones overflow where gradients are scaled


def log_truth(log_q: Tensor, groups: Tensor) -> Tensor:
    """Log-probability of the true group of each pixel or image, of the shape of `groups`; 0 where unlabelled."""
    return -F.nll_loss(log_q, groups, ignore_index=IGNORE, reduction="none")


def on_device(values: Sequence[object], device: torch.device) -> Tensor:
    """A constant tensor. A GPU is not waited for: what comes from pageable memory has been read before this returns."""
    return torch.tensor(values).to(device, non_blocking=True)


@lru_cache(maxsize=64)
def _relations(groups: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    """(G, G): whether a pixel of the second group belongs to the first: 1 yes, 0 no, -1 unknown."""
    sets = [set(group) for group in groups]
    return tuple(tuple(1 if own <= one else -1 if own & one else 0 for own in sets) for one in sets)
