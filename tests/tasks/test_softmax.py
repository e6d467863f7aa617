"""One class out of K, at every pixel or once per image: the loss against PyTorch's own and by hand, the answer."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from upernet.labels import IGNORE, ClassSets, Labels
from upernet.tasks import CrossEntropy
from upernet.tasks.dense import DenseTask
from upernet.tasks.image import ImageTask
from upernet.tasks.softmax import SoftmaxTask

KINDS = pytest.mark.parametrize("kind", [DenseTask, ImageTask])


def named(count: int) -> list[str]:
    return [f"class {i}" for i in range(count)]


def places(kind: type[SoftmaxTask], values: Tensor) -> Tensor:
    """(N, …) as a batch of one image of N pixels, (1, …, 1, N), or of N images."""
    return values.movedim(0, -1)[None, ..., None, :] if kind.maps else values


def value_and_gradient(loss: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    return loss.detach(), torch.autograd.grad(loss, logits)[0]


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, list[int | None], tuple[int, ...], int]:
    """Classes, the class (or none) of each label, the shape of a target, a seed."""
    count = draw(st.integers(1, 9))
    meaning = draw(
        st.lists(st.one_of(st.none(), st.integers(0, count - 1)), min_size=1, max_size=12).filter(
            lambda m: any(c is not None for c in m)
        )
    )
    sides = st.integers(1, 9)
    shape = draw(st.one_of(st.tuples(st.integers(1, 3), sides, sides), st.tuples(st.integers(1, 40))))
    return count, meaning, shape, draw(st.integers(0, 2**31))


@settings(deadline=None, max_examples=80)
@given(cases())
def test_one_class_per_label_is_cross_entropy_bit_for_bit(
    case: tuple[int, list[int | None], tuple[int, ...], int],
) -> None:
    """Labels in any order, several of one class, some of none; the term is the default one, or named."""
    count, meaning, shape, seed = case
    generator = torch.Generator().manual_seed(seed)
    logits = (4 * torch.randn(shape[0], count, *shape[1:], generator=generator)).requires_grad_()
    target = torch.randint(IGNORE, len(meaning), shape, generator=generator)
    table = {f"label {i}": None if c is None else f"class {c}" for i, c in enumerate(meaning)}
    kind = DenseTask if len(shape) == 3 else ImageTask
    mapped = torch.tensor([IGNORE if c is None else c for c in [*meaning, None]])[target]
    for task in (kind(labels=named(count)), kind(labels=named(count), losses=[CrossEntropy()])):
        sets = ClassSets.of(list(table), task.classes, table)
        ours = value_and_gradient(task.loss(logits, target, sets), logits)
        if (mapped == IGNORE).all():
            assert ours[0] == 0
            assert not ours[1].any()
            continue
        theirs = value_and_gradient(F.cross_entropy(logits, mapped, ignore_index=IGNORE), logits)
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])


def test_the_loss_of_a_large_map_is_cross_entropy_bit_for_bit() -> None:
    """Long sums round: the same order of addition is part of the promise."""
    torch.manual_seed(0)
    logits = torch.randn(2, 150, 96, 96, requires_grad=True)
    target = torch.randint(IGNORE, 150, (2, 96, 96))
    order = torch.randperm(150)
    task = DenseTask(labels=named(150))
    sets = ClassSets.of([f"class {i}" for i in order], task.classes)
    ours = value_and_gradient(task.loss(logits, torch.where(target < 0, IGNORE, order.argsort()[target]), sets), logits)
    theirs = value_and_gradient(F.cross_entropy(logits, target, ignore_index=IGNORE), logits)
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])


@KINDS
def test_the_loss_of_a_set_is_that_of_its_summed_probability(kind: type[SoftmaxTask]) -> None:
    """p = .2, .3, .5: "one of the first two" costs −log .5."""
    task = kind(labels=["car", "bus", "sky"])
    sets = ClassSets.of(["vehicle", "sky"], task.classes, {"vehicle": ["car", "bus"]})
    logits = (places(kind, torch.tensor([[0.2, 0.3, 0.5]])).log() + 7).requires_grad_()
    loss = task.loss(logits, places(kind, torch.tensor([0])), sets)
    assert loss.item() == pytest.approx(-math.log(0.5))
    # d(-log Σ_set p)/dz = p - p / Σ_set p inside the set, p outside: the mass grows, its division stays.
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient.flatten(), torch.tensor([0.2 - 0.4, 0.3 - 0.6, 0.5]))


@KINDS
def test_prediction_in_the_labels_of_a_source(kind: type[SoftmaxTask]) -> None:
    """p = .4 .3 .3: alone the first class wins, but "one of the other two" is likelier; .6 beats both together."""
    task = kind(labels=["a", "b", "c"])
    sets = ClassSets.of(["a", "b or c", "void"], task.classes, {"b or c": ["b", "c"], "void": None})
    p = torch.tensor([[0.4, 0.3, 0.3], [0.6, 0.2, 0.2]])
    assert task.decode(places(kind, p), {}).flatten().tolist() == [0, 0]
    assert task.predict_groups(places(kind, p), sets, {}).flatten().tolist() == [1, 0]
    assert task.predict_groups(p, sets, {}).tolist() == [1, 0]  # one answer per image, whatever the task's own


@KINDS
def test_names_and_colours_of_the_classes(kind: type[SoftmaxTask]) -> None:
    assert kind(labels={"sky": "#87ceeb"}).classes == Labels(("sky",), ((135, 206, 235),))
