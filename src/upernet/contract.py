"""The contract between a task and the rest of the program.

The model, the training loop, the parser and the evaluator iterate over tasks and know none by name. A task from another
package works like the ones here: subclass `Task`, or `DenseTask` or `ImageTask` of `upernet.tasks`, and name the class
in YAML.

This module imports no torch, so that the command line can describe its options without it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from upernet.errors import check
from upernet.plain import Configurable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from torch import Tensor, nn

    from upernet.labels import ClassSets, Labels

LEVELS = ("c2", "c3", "c4", "c5", "ppm", "p2", "p3", "p4", "fused")
"""The feature maps that a head may read: backbone stages, PPM output, FPN levels and their fusion."""


@dataclass(kw_only=True)
class Loss(Configurable, ABC):
    """One term of a task's loss, computed in the label space of the source that a batch comes from (see `ClassSets`).

    The fields are the keys of its YAML. A class in your own module works like those of `upernet.tasks`.
    """

    module: ClassVar[str] = "upernet.tasks"

    weight: float = 1.0
    """Factor of this term in the task's loss."""

    needs_map: ClassVar[bool] = False
    """Whether the term compares pixels with one another. A task that answers once per image cannot use such a term."""

    def __post_init__(self) -> None:
        check("weight", self.weight, 0)

    def bind(self, classes: Labels) -> None:
        """Check the fields against the task's classes. Called once.

        Raises:
            UserError: If a field does not fit the classes.
        """

    @abstractmethod
    def loss(self, log_q: Tensor, groups: Tensor, sets: ClassSets) -> Tensor:
        """The term as a float32 scalar, before `weight` is applied; 0 with zero gradients if nothing is labelled.

        Args:
            log_q: Log-probabilities of the groups of `sets`, float32 (B, G, H, W) or (B, G). The probabilities add up
                to one if the groups share no class and leave none out.
            groups: Group ids, int64 (B, H, W) or (B,), `IGNORE` where unlabelled. If `log_q` is a map, a label of a
                whole image is repeated at every position.
            sets: The groups, and the task's classes in each.
        """


@dataclass(frozen=True)
class Choice:
    """Classes of which the one with the largest logit is the answer; of equals the first.

    Attributes:
        classes: The ids of the classes.
        answers: For each of them, the answer if it wins: a class id, or a group id or `IGNORE`.
        where: Name of a task in `needs` and one of its classes: the choice holds only where that task has that answer.
            None for everywhere.
    """

    classes: Sequence[int]
    answers: Sequence[int]
    where: tuple[str, int] | None = None

    @property
    def channels(self) -> slice | list[int]:
        """Index of the classes in an axis of all classes: a slice where it can be one, which copies nothing."""
        first, classes = self.classes[0], list(self.classes)
        return slice(first, first + len(classes)) if classes == [*range(first, first + len(classes))] else classes


@dataclass(kw_only=True)
class SummaryLoss(Loss):
    """A term that needs little of the log-probabilities: a few numbers per pixel, or a few sums over pixels.

    A subclass defines `summary` and `finish`. The summary is then computed in bands of rows, and the map of all classes
    at the target's size, which is the largest array of a training step, is never held. A subclass that defines `loss`
    itself is given the whole map.
    """

    joined: ClassVar[bool] = True
    """How the summaries of bands of rows make that of the map: joined along the rows, or added if false."""

    @abstractmethod
    def summary(self, log_q: Tensor, groups: Tensor, sets: ClassSets) -> Tensor:
        """What the term needs of a map, of some rows of it, or of answers about images.

        It must not depend on other rows or other processes. It is called a second time when the gradient is computed.

        Args:
            log_q: As in `loss`, of all rows or of some.
            groups: As in `loss`, of the same rows.
            sets: As in `loss`.

        Returns:
            float32 (B, S, H, W) or (B, S), S numbers for each pixel or image, if `joined`. Otherwise sums over them, of
            any shape that is not that of the rows.
        """

    @abstractmethod
    def finish(self, summary: Tensor, groups: Tensor, sets: ClassSets) -> Tensor:
        """The term as a float32 scalar, from the summary and the groups of the whole map. Otherwise as `loss`."""

    def loss(self, log_q: Tensor, groups: Tensor, sets: ClassSets) -> Tensor:
        """The term as a float32 scalar, from the whole map."""
        return self.finish(self.summary(log_q, groups, sets), groups, sets)


@dataclass(kw_only=True)
class Task(Configurable, ABC):
    """One question asked about an image. The fields are the keys of the task's YAML and are saved with the model."""

    module: ClassVar[str] = "upernet.tasks"

    level: str = "fused"
    """Pyramid level that the head reads: c2, c3, c4, c5, ppm, p2, p3, p4 or fused."""
    target: str | None = None
    """Name of the training target. If null, it is the task's own name."""
    weight: float = 1.0
    """Factor of this task's loss in the sum of all losses."""
    detach: bool = False
    """Stop the gradient before the head, so that this task trains its head alone."""
    auxiliary: bool = False
    """Train this task, but neither predict nor evaluate it."""

    maps: ClassVar[bool] = True
    """Whether the answer is a label map. If not, the task answers once per image and cannot learn from label maps."""

    def __post_init__(self) -> None:
        check("weight", self.weight, 0)

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the tasks whose decoded answers `decode` and `predict_groups` need."""
        return ()

    def bind(self, tasks: Mapping[str, Task]) -> None:
        """Look up the classes of other tasks, if needed. Called once, when the set of tasks is complete."""

    @property
    @abstractmethod
    def classes(self) -> Labels:
        """Names and colours of the K classes. A class id is a position in this table."""

    @abstractmethod
    def build_head(self, in_channels: int) -> nn.Module:
        """Build the module from the level's features (B, in_channels, h, w) to logits (B, K, h, w) or (B, K)."""

    @abstractmethod
    def loss(self, logits: Tensor, target: Tensor, sets: ClassSets) -> Tensor:
        """The loss as a scalar; 0 with zero gradients if nothing is labelled.

        Args:
            logits: Output of the head, resized to the target's size if both are maps.
            target: Ids of the source's own labels, int64 (B, H, W) or (B,), `IGNORE` where unlabelled.
            sets: The classes that each of those labels stands for.
        """

    def resized_loss(self, logits: Tensor, target: Tensor, sets: ClassSets, align_corners: bool) -> Tensor:
        """`loss` of a map's logits once they are resized bilinearly to the size of the target.

        A task may compute it without the resized map, as those of `upernet.tasks` do.

        Args:
            logits: Output of the head, (B, K, h, w), float32.
            target: As in `loss`, int64 (B, H, W).
            sets: As in `loss`.
            align_corners: The bilinear convention, as in `torch.nn.functional.interpolate`.
        """
        from torch.nn.functional import interpolate

        size = (target.shape[1], target.shape[2])
        return self.loss(interpolate(logits, size, mode="bilinear", align_corners=align_corners), target, sets)

    @abstractmethod
    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities, float32 of the logits' shape. They may be averaged over windows, scales and flips."""

    @abstractmethod
    def decode(self, probabilities: Tensor, decoded: Mapping[str, Tensor]) -> Tensor:
        """Class ids, int64 (B, H, W) or (B,), `IGNORE` where the question does not arise.

        Args:
            probabilities: Probabilities of this task, (B, K, H, W) or (B, K).
            decoded: Decoded answers of the tasks in `needs`, at the same size.
        """

    def image_probabilities(self, probabilities: Tensor) -> Tensor:
        """Probabilities of each image as a whole, (B, K), from those of this task."""
        return probabilities

    @abstractmethod
    def predict_groups(self, probabilities: Tensor, sets: ClassSets, decoded: Mapping[str, Tensor]) -> Tensor:
        """The answer in a source's own label space: group ids of `sets`, in the shape of `decode`'s answer.

        It is `IGNORE` where no label of the source fits. `sets.likeliest` follows the protocol of `sets`.
        """

    def choices(self, sets: ClassSets | None = None) -> Sequence[Choice] | None:
        """What decides a pixel's answer, if that is the order of the logits alone, which takes less time to find.

        Args:
            sets: The source's label space in which `predict_groups` answers; None for the class ids of `decode`.

        Returns:
            Choices of which no two hold at the same place; the answer is `IGNORE` where none holds. None if the answer
            is not a matter of order. A class that changes `probabilities`, `decode` or `predict_groups` and does not
            define this method counts as one that returns None (see `order_decides`).
        """
        return None

    @abstractmethod
    def metric(self, sets: ClassSets, dense: bool, average: Sequence[int] | None = None) -> TaskMetric:
        """A new accumulator of metrics for one source. It is fed with `update(predicted groups, target groups)`.

        Args:
            sets: The source's label space, and the protocol by which answers are measured there.
            dense: True if the source's target is a map, false if it is one label per image.
            average: Groups that enter class means. If not given, all do.
        """


def order_decides(task: Task, sets: ClassSets | None = None) -> Sequence[Choice] | None:
    """`task.choices(sets)`, or None if a subclass of the class that states them finds its answers in another way."""
    answering = "decode" if sets is None else "predict_groups"
    for kind in type(task).__mro__:
        if "choices" in vars(kind):
            return task.choices(sets)
        if "probabilities" in vars(kind) or answering in vars(kind):
            return None
    return None


class TaskMetric(Protocol):
    """The methods that evaluation calls on a task's accumulator; those of `upernet.tasks.metrics` have them."""

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Count one batch of group ids, int64, `IGNORE` where unlabelled or where no label fits the answer."""
        ...

    def compute(self) -> dict[str, float]:
        """The metrics by name, as fractions, the main one first; NaN if nothing was labelled."""
        ...

    def per_class(self) -> dict[str, dict[str, float]]:
        """The metrics of each class by name, as fractions."""
        ...

    def further(self) -> dict[str, float]:
        """Metrics of other protocols, from the same counts, by name, as fractions."""
        ...

    def to(self, device: torch.device) -> TaskMetric:
        """Move the counts to a device."""
        ...

    def cpu(self) -> TaskMetric:
        """Move the counts to the CPU."""
        ...

    def sync(self) -> None:
        """Sum the counts over processes."""
        ...
