"""The contract between a task and the rest of the program.

Model, training loop, parser and evaluator iterate over tasks and know none by name. A task from another
package works like the ones here: subclass `Task` (or one of the two shapes in `dense.py` and `image.py`) and name the
class in YAML.

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
"""Backbone stages, PPM output, FPN levels and their fusion: what a head may read."""


@dataclass(kw_only=True)
class Loss(Configurable, ABC):
    """One term of a task's loss, in the label space of the source a batch comes from (see `ClassSets`).

    The fields are its YAML. A class in your own module works like the ones in `losses.py`.
    """

    weight: float = 1.0
    """Factor of this term in the task's loss."""

    needs_map: ClassVar[bool] = False
    """Whether it weighs pixels against one another, so that a task that answers once per image cannot have it."""

    def __post_init__(self) -> None:
        check("weight", self.weight, 0)

    def bind(self, classes: Labels) -> None:
        """Called once with the task's classes, to refuse what does not fit them."""

    @abstractmethod
    def loss(self, log_q: Tensor, groups: Tensor, sets: ClassSets) -> Tensor:
        """Scalar float32, 0 and with zero gradients where everything is unlabelled; `weight` is not applied.

        Args:
            log_q: float32 (B, G, H, W) or (B, G), log-probabilities of the groups of `sets`. They add up to one where
                the groups share no class and leave none out.
            groups: int64 (B, H, W) or (B,), ids of groups, `IGNORE` where unlabelled. A label of a whole image stands
                at every position where `log_q` is a map.
            sets: The groups, and the task's classes in each.
        """


@dataclass(kw_only=True)
class Task(Configurable, ABC):
    """One question asked about an image. The fields are the task's YAML and are saved in the checkpoint."""

    level: str = "fused"
    """Pyramid level the head reads: one of `LEVELS`."""
    target: str | None = None
    """Key of the training target in a batch; the task's own name if none."""
    weight: float = 1.0
    """Factor of this task's loss in the sum."""
    detach: bool = False
    """Stop the gradient before the head, so that this task trains nothing but its head."""
    auxiliary: bool = False
    """Trained, but neither predicted nor evaluated."""

    maps: ClassVar[bool] = True
    """Whether the answer is a map; a task that answers once per image cannot learn from one."""

    def __post_init__(self) -> None:
        check("weight", self.weight, 0)

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the tasks whose decoded answers `decode` and `predict_groups` want to see."""
        return ()

    def bind(self, tasks: Mapping[str, Task]) -> None:
        """Called once when the set of tasks is complete, for a task that must look up another's classes."""

    @property
    @abstractmethod
    def classes(self) -> Labels:
        """Names and colours of the K classes; a class id is a position."""

    @abstractmethod
    def build_head(self, in_channels: int) -> nn.Module:
        """The module from the level's features (B, in_channels, h, w) to logits (B, K, h, w) or (B, K)."""

    @abstractmethod
    def loss(self, logits: Tensor, target: Tensor, sets: ClassSets) -> Tensor:
        """Scalar loss, 0 and with zero gradients where everything is unlabelled.

        Args:
            logits: Output of the head; resized to the target's size where both are maps.
            target: int64 (B, H, W) or (B,), ids of the source's own labels, `IGNORE` where unlabelled.
            sets: The classes each of those labels stands for.
        """

    @abstractmethod
    def probabilities(self, logits: Tensor) -> Tensor:
        """float32 of the logits' shape: what may be averaged over windows, scales and flips."""

    @abstractmethod
    def decode(self, probabilities: Tensor, decoded: Mapping[str, Tensor]) -> Tensor:
        """Class ids, int64 (B, H, W) or (B,); `IGNORE` where the question does not arise.

        Args:
            probabilities: (B, K, H, W) or (B, K).
            decoded: Answers of the tasks in `needs`, at the same size.
        """

    def image_probabilities(self, probabilities: Tensor) -> Tensor:
        """One answer per image, (B, K), from this task's probabilities."""
        return probabilities

    @abstractmethod
    def predict_groups(self, probabilities: Tensor, sets: ClassSets, decoded: Mapping[str, Tensor]) -> Tensor:
        """The answer in a source's own label space: group ids of `sets`, shaped like `decode`'s answer."""

    @abstractmethod
    def metric(self, sets: ClassSets, dense: bool, average: Sequence[int] | None = None) -> TaskMetric:
        """A fresh accumulator for one source, fed with `update(predicted groups, target groups)`.

        Args:
            sets: The source's label space.
            dense: Whether its target is a map or one label per image.
            average: Groups that enter class means; all if none.
        """


class TaskMetric(Protocol):
    """What evaluation asks of a task's accumulator; those in `upernet.tasks.metrics` have it."""

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Count one batch of groups, int64, `IGNORE` where unlabelled."""
        ...

    def compute(self) -> dict[str, float]:
        """Metric name → fraction, the headline first; NaN where nothing was labelled."""
        ...

    def per_class(self) -> dict[str, dict[str, float]]:
        """Class → metric name → fraction."""
        ...

    def further(self) -> dict[str, float]:
        """Figures of other protocols from the same counts: metric name → fraction."""
        ...

    def to(self, device: torch.device) -> TaskMetric:
        """Move the counts."""
        ...

    def cpu(self) -> TaskMetric:
        """Move the counts to the CPU."""
        ...

    def sync(self) -> None:
        """Sum the counts over processes."""
        ...
