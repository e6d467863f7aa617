"""Losses from logits of the head's size, in bands: those of the resized logits, up to rounding, and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from upernet.labels import IGNORE, ClassSets
from upernet.tasks import OHEM, CrossEntropy, Dice, Focal, Loss, Lovasz, Object, Part, Semantic, SummaryLoss, Task
from upernet.tasks import bands as bands_module

NAMES = ["a", "b", "c", "d"]
TERMS: dict[str, Callable[[], list[Loss]]] = {
    "default": list,
    "all": lambda: [CrossEntropy(average="all", class_weights={"b": 3.0})],
    "smooth": lambda: [CrossEntropy(smoothing=0.2), CrossEntropy(smoothing=0.5, class_weights=[1.0, 2.0, 0.5, 1.0])],
    "ohem": lambda: [OHEM(threshold=0.4, min_kept=3), OHEM(threshold=1, min_kept=0, class_weights={"c": 2.0})],
    "focal": lambda: [Focal(gamma=1.5, alpha=0.25, weight=2.0), Focal(gamma=0.5, class_weights={"a": 0.2})],
    "dice": lambda: [Dice(), Dice(power=1, per_image=True, smooth=0.5)],
    "lovasz beside": lambda: [CrossEntropy(), Lovasz(weight=0.5)],
    "lovasz": lambda: [Lovasz()],
}
TABLES: dict[str, dict[str, Any]] = {
    "own": {name: name for name in NAMES},
    "other order": {"3": "d", "1": "b", "none": None, "0": "a"},
    "sets": {"ab": ["a", "b"], "c": "c", "d": "d"},
    "sets that share": {"ab": ["a", "b"], "a": "a", "rest": ["c", "d"]},
}


def semantic(losses: list[Loss]) -> Task:
    task = Semantic(labels=NAMES, losses=losses)
    task.bind({})
    return task


def part(**options: Any) -> Task:
    task = Part(parts={"a": ["x", "y"], "b": ["x"]}, **options)
    task.bind({"object": Object(labels=NAMES), "part": task})
    return task


def compare(task: Task, logits: Tensor, target: Tensor, sets: ClassSets, align_corners: bool) -> None:
    low, plain = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    full = F.interpolate(plain, target.shape[1:], mode="bilinear", align_corners=align_corners)
    expected = task.loss(full, target, sets)
    loss = task.resized_loss(low, target, sets, align_corners)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    (3 * loss).backward()
    (3 * expected).backward()
    torch.testing.assert_close(low.grad, plain.grad, rtol=1e-4, atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    terms=st.sampled_from(sorted(TERMS)),
    table=st.sampled_from(sorted(TABLES)),
    batch=st.integers(1, 3),
    low=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    full=st.tuples(st.integers(1, 17), st.integers(1, 17)),
    band=st.integers(1, 3000),
    align_corners=st.booleans(),
    labelled=st.booleans(),
)
def test_losses_and_gradients_are_those_of_resized_logits(
    seed: int,
    terms: str,
    table: str,
    batch: int,
    low: tuple[int, int],
    full: tuple[int, int],
    band: int,
    align_corners: bool,
    labelled: bool,
) -> None:
    """Enlarged or shrunk, in bands of any height, with labels that stand for sets, and with none at all."""
    generator = torch.Generator().manual_seed(seed)
    task = semantic(TERMS[terms]())
    sets = ClassSets.of(list(TABLES[table]), task.classes, TABLES[table])
    target = torch.randint(IGNORE, len(sets.labels) if labelled else 0, (batch, *full), generator=generator)
    logits = 3 * torch.randn(batch, len(NAMES), *low, generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(bands_module.BAND_BYTES, "cpu", band)
        compare(task, logits, target, sets, align_corners)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 2**31),
    st.booleans(),
    st.booleans(),
    st.sampled_from([{}, {"needs_a_part": True}, {"no_part_weight": 0.3}]),
)
def test_parts(seed: int, align_corners: bool, grouped: bool, options: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(seed)
    task = part(**options)
    table = {"xy": ["a/x", "a/y"], "no": "a/-", "x": "b/x"} if grouped else {name: name for name in task.classes.names}
    sets = ClassSets.of(list(table), task.classes, table)
    target = torch.randint(IGNORE, len(table), (2, 11, 6), generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(bands_module.BAND_BYTES, "cpu", 700)
        compare(task, 3 * torch.randn(2, 5, 4, 3, generator=generator), target, sets, align_corners)


class Largest(TorchDispatchMode):
    """The most values that an operation's floating result had."""

    def __init__(self) -> None:
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(one, Tensor) and one.is_floating_point():
                self.values = max(self.values, one.untyped_storage().nbytes() // 4)
        return result


@pytest.mark.parametrize("terms", ["default", "all", "smooth", "ohem", "focal", "dice"])
def test_no_array_has_all_classes_at_full_size(terms: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward, bands of one row."""
    monkeypatch.setitem(bands_module.BAND_BYTES, "cpu", 1)
    task, logits = semantic(TERMS[terms]()), torch.randn(1, 4, 8, 8, requires_grad=True)
    sets = ClassSets.of(NAMES, task.classes)
    with Largest() as largest:
        task.resized_loss(logits, torch.randint(4, (1, 64, 64)), sets, False).backward()
    assert largest.values <= 2 * 64 * 64  # two numbers per pixel
    with Largest() as largest:
        F.interpolate(logits, (64, 64))
    assert largest.values == 4 * 64 * 64


@dataclass(kw_only=True)
class Doubled(CrossEntropy):
    """A term of a user's own, by the method that every term has."""

    def loss(self, log_q: Tensor, groups: Tensor, sets: ClassSets) -> Tensor:
        return 2 * log_q.abs().mean()


@dataclass(kw_only=True)
class Sharper(Semantic):
    """A task of a user's own."""

    def loss(self, logits: Tensor, target: Tensor, sets: ClassSets) -> Tensor:
        return super().loss(2 * logits, target, sets)


@dataclass(kw_only=True)
class SharperParts(Part):
    def loss(self, logits: Tensor, target: Tensor, sets: ClassSets) -> Tensor:
        return super().loss(2 * logits, target, sets)


@dataclass(kw_only=True)
class Confidence(SummaryLoss):
    """A term of a user's own, in bands: the square root of the mean square of the truth's log-probability."""

    def summary(self, log_q: Tensor, groups: Tensor, sets: ClassSets) -> Tensor:
        return log_q.gather(1, groups.clamp(min=0).unsqueeze(1))

    def finish(self, summary: Tensor, groups: Tensor, sets: ClassSets) -> Tensor:
        return summary[:, 0][groups != IGNORE].square().mean().sqrt()


def parts_by_their_own_loss() -> Task:
    task = SharperParts(parts={"a": ["x"], "b": ["x"]})
    task.bind({"object": Object(labels=NAMES), "part": task})
    return task


@pytest.mark.parametrize(
    "make",
    [
        lambda: semantic([Doubled(), CrossEntropy()]),
        lambda: semantic([Confidence(), Dice()]),
        lambda: Sharper(labels=NAMES),
        parts_by_their_own_loss,
    ],
    ids=["term", "term in bands", "task", "parts"],
)
def test_what_defines_its_own_loss_keeps_it(make: Callable[[], Task]) -> None:
    task, generator = make(), torch.Generator().manual_seed(0)
    target = torch.randint(IGNORE, 4, (2, 9, 12), generator=generator)
    logits = torch.randn(2, 4, 3, 3, generator=generator)
    compare(task, logits, target, ClassSets.of(task.classes.names, task.classes), False)


def test_the_mean_over_processes_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for each band, nor again for the gradient: other processes may have other bands."""
    from upernet.tasks import losses

    asked: list[Tensor] = []
    monkeypatch.setattr(losses.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(losses.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(losses.dist, "all_reduce", asked.append)
    monkeypatch.setitem(bands_module.BAND_BYTES, "cpu", 1)
    task, logits = semantic([]), torch.randn(1, 4, 2, 2, requires_grad=True)
    target, sets = torch.randint(4, (1, 8, 8)), ClassSets.of(NAMES, task.classes)
    loss = task.resized_loss(logits, target, sets, False)
    with losses.average_over_own_batch():
        alone = task.resized_loss(logits, target, sets, False)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert len(asked) == 1
    torch.testing.assert_close(loss, 2 * alone)  # the count that comes back is halved
    torch.testing.assert_close(gradient, 2 * torch.autograd.grad(alone, logits)[0])


def test_under_autocast_in_float32() -> None:
    task, logits = semantic([]), torch.randn(1, 4, 3, 3)
    target, sets = torch.randint(4, (1, 8, 8)), ClassSets.of(NAMES, task.classes)
    with torch.autocast("cpu", torch.bfloat16):
        loss = task.resized_loss(logits, target, sets, False)
    assert torch.equal(loss, task.resized_loss(logits, target, sets, False))
