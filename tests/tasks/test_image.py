"""One label for a whole image."""

from __future__ import annotations

import torch
from fake_data import own_labels

from upernet.tasks import Scene
from upernet.tasks.image import ImageTask
from upernet.tasks.metrics import TopOne


def test_the_scene_is_read_from_the_pooled_pyramid_and_measured_as_top_1() -> None:
    task = Scene(labels=["a", "b"])
    assert task.level == "ppm"
    assert isinstance(task.metric(own_labels(task), dense=False), TopOne)


def test_the_answer_for_an_image_is_the_only_one() -> None:
    p = torch.tensor([[0.4, 0.3, 0.3], [0.6, 0.2, 0.2]])
    assert torch.equal(ImageTask(labels=["a", "b", "c"]).image_probabilities(p), p)
