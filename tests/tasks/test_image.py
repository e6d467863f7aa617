"""One label for a whole image."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from fake_data import own_labels
from hypothesis import given, settings
from hypothesis import strategies as st

from upernet.labels import IGNORE, ClassSets
from upernet.tasks import Scene
from upernet.tasks.image import ImageTask
from upernet.tasks.metrics import TopOne


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 2**31))
def test_one_class_per_label_is_cross_entropy_bit_for_bit(count: int, batch: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    task = ImageTask(labels=[f"class {i}" for i in range(count)])
    order = torch.randperm(count, generator=generator)
    sets = ClassSets.of([f"class {i}" for i in order], task.classes)
    logits = (3 * torch.randn(batch, count, generator=generator)).requires_grad_()
    target = torch.randint(IGNORE, count, (batch,), generator=generator)
    target[0] = 0
    ours = task.loss(logits, target, sets)
    theirs = F.cross_entropy(logits, torch.where(target < 0, IGNORE, order[target]), ignore_index=IGNORE)
    assert torch.equal(ours, theirs)
    assert torch.equal(torch.autograd.grad(ours, logits)[0], torch.autograd.grad(theirs, logits)[0])


def test_the_loss_of_a_set_is_that_of_its_summed_probability() -> None:
    """A driving video shows a street or a highway: p = .2, .3, .5 costs −log .5."""
    task = ImageTask(labels=["street", "highway", "forest"])
    sets = ClassSets.of(["every image"], task.classes, {"every image": ["street", "highway"]})
    loss = task.loss(torch.tensor([[0.2, 0.3, 0.5]]).log(), torch.tensor([0]), sets)
    assert loss.item() == pytest.approx(-math.log(0.5))


def test_prediction_in_the_labels_of_a_source() -> None:
    task = ImageTask(labels=["a", "b", "c"])
    sets = ClassSets.of(["a", "b or c"], task.classes, {"b or c": ["b", "c"]})
    p = torch.tensor([[0.4, 0.3, 0.3], [0.6, 0.2, 0.2]])
    assert task.predict_groups(p, sets, {}).tolist() == [1, 0]
    assert task.decode(p, {}).tolist() == [0, 0]
    assert torch.equal(task.image_probabilities(p), p)


def test_the_scene_is_read_from_the_pooled_pyramid_and_measured_as_top_1() -> None:
    task = Scene(labels=["a", "b"])
    assert task.level == "ppm"
    assert isinstance(task.metric(own_labels(task), dense=False), TopOne)
