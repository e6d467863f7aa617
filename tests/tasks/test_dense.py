"""A label at every pixel: the loss against PyTorch's own and by hand, one label per image, one answer per image."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from fake_data import own_labels
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from upernet.labels import IGNORE, ClassSets, Labels
from upernet.tasks import Material, Object, Semantic, Texture
from upernet.tasks.dense import DenseTask
from upernet.tasks.metrics import SegmentationMetric, TopOne


def named(count: int) -> list[str]:
    return [f"class {i}" for i in range(count)]


def value_and_gradient(loss: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    return loss.detach(), torch.autograd.grad(loss, logits)[0]


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, list[int | None], tuple[int, int, int], int]:
    """Classes, the class (or none) of each label, a shape, a seed."""
    count = draw(st.integers(1, 9))
    meaning = draw(
        st.lists(st.one_of(st.none(), st.integers(0, count - 1)), min_size=1, max_size=12).filter(
            lambda m: any(c is not None for c in m)
        )
    )
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)))
    return count, meaning, shape, draw(st.integers(0, 2**31))


@settings(deadline=None, max_examples=100)
@given(cases())
def test_one_class_per_label_is_cross_entropy_bit_for_bit(
    case: tuple[int, list[int | None], tuple[int, int, int], int],
) -> None:
    """Labels in any order, several of one class, some of none."""
    count, meaning, shape, seed = case
    generator = torch.Generator().manual_seed(seed)
    logits = (4 * torch.randn(shape[0], count, *shape[1:], generator=generator)).requires_grad_()
    target = torch.randint(IGNORE, len(meaning), shape, generator=generator)
    table = {f"label {i}": None if c is None else f"class {c}" for i, c in enumerate(meaning)}
    task = DenseTask(labels=named(count))
    ours = value_and_gradient(task.loss(logits, target, ClassSets.of(list(table), task.classes, table)), logits)

    mapped = torch.tensor([IGNORE if c is None else c for c in [*meaning, None]])[target]
    if (mapped == IGNORE).all():
        assert ours[0] == 0
        assert not ours[1].any()
        return
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


def test_the_loss_of_a_set_is_that_of_its_summed_probability() -> None:
    """p = .2, .3, .5: "one of the first two" costs −log .5."""
    task = DenseTask(labels=["car", "bus", "sky"])
    sets = ClassSets.of(["vehicle", "sky"], task.classes, {"vehicle": ["car", "bus"]})
    logits = torch.tensor([0.2, 0.3, 0.5]).log().reshape(1, 3, 1, 1) + 7
    assert task.loss(logits, torch.tensor([[[0]]]), sets).item() == pytest.approx(-math.log(0.5))
    logits.requires_grad_()
    task.loss(logits, torch.tensor([[[0]]]), sets).backward()
    # d(-log Σ_set p)/dz = p - p / Σ_set p inside the set, p outside: the mass grows, its division stays.
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad.flatten(), torch.tensor([0.2 - 0.4, 0.3 - 0.6, 0.5]))


def test_the_mean_is_over_labelled_pixels() -> None:
    """Pixels of probability 1/2 and 1/4, one unlabelled: (log 2 + log 4) / 2."""
    task = DenseTask(labels=["a", "b"])
    logits = torch.tensor([[[0.5, 0.75, 0.9]], [[0.5, 0.25, 0.1]]]).log()[None]
    target = torch.tensor([[[0, 1, IGNORE]]])
    loss = task.loss(logits, target, own_labels(task))
    assert loss.item() == pytest.approx(1.5 * math.log(2))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(1, 3), st.integers(1, 7), st.integers(1, 7))
def test_one_label_per_image_is_a_map_filled_with_it(seed: int, batch: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    task = Texture(labels=named(4))
    sets = ClassSets.of(["x", "class 1", "y"], task.classes, {"x": ["class 0", "class 2"], "y": None})
    logits = torch.randn(batch, 4, height, width, generator=generator, requires_grad=True)
    target = torch.randint(IGNORE, 3, (batch,), generator=generator)
    filled = target[:, None, None].expand(-1, height, width)
    one = value_and_gradient(task.loss(logits, target, sets), logits)
    all_over = value_and_gradient(task.loss(logits, filled, sets), logits)
    assert torch.equal(one[0], all_over[0])
    assert torch.equal(one[1], all_over[1])


def test_one_answer_for_an_image() -> None:
    """Two pixels of .4 .6 and one of .9 .1: the mean says the first class, the majority the second."""
    p = torch.tensor([[[[0.4, 0.4, 0.9]], [[0.6, 0.6, 0.1]]]])
    mean = DenseTask(labels=["a", "b"], image_answer="mean").image_probabilities(p)
    majority = DenseTask(labels=["a", "b"], image_answer="majority").image_probabilities(p)
    torch.testing.assert_close(mean, torch.tensor([[1.7 / 3, 1.3 / 3]]))
    torch.testing.assert_close(majority, torch.tensor([[1 / 3, 2 / 3]]))


def test_prediction_in_the_labels_of_a_source() -> None:
    """p = .4 .3 .3: alone the first class wins, but "one of the other two" is likelier."""
    task = DenseTask(labels=["a", "b", "c"])
    p = torch.tensor([0.4, 0.3, 0.3]).reshape(1, 3, 1, 1)
    sets = ClassSets.of(["a", "b or c", "void"], task.classes, {"b or c": ["b", "c"], "void": None})
    assert task.decode(p, {}).tolist() == [[[0]]]
    assert task.predict_groups(p, sets, {}).tolist() == [[[1]]]
    assert task.predict_groups(p.flatten(1), sets, {}).tolist() == [1]


def test_metric_by_kind_of_target() -> None:
    task = DenseTask(labels=["a", "b", "c"])
    sets = ClassSets.of(["bc", "a"], task.classes, {"bc": ["b", "c"]})
    dense = task.metric(sets, dense=True, average=[1])
    assert isinstance(dense, SegmentationMetric)
    assert (dense.names, dense.average) == (("bc", "a"), [1])
    assert isinstance(task.metric(sets, dense=False), TopOne)


def test_where_and_how_each_task_reads() -> None:
    """Xiao et al. 2018, section 3.1; the published rows' classifier straight on the fused map."""
    read = {
        kind.__name__: (kind().level, kind().detach, kind().convs) for kind in (Object, Material, Texture, Semantic)
    }
    assert read == {
        "Object": ("fused", False, 1),
        "Material": ("p2", False, 1),
        "Texture": ("c2", True, 4),
        "Semantic": ("fused", False, 0),
    }
    assert (Semantic().dropout, Texture().image_answer, Texture().width) == (0.1, "majority", 128)


def test_colours_of_a_task() -> None:
    assert DenseTask(labels={"sky": "#87ceeb"}).classes == Labels(("sky",), ((135, 206, 235),))
