"""A label at every pixel: one answer per image, how it is measured, what each task reads."""

from __future__ import annotations

import torch

from upernet.labels import ClassSets
from upernet.tasks import Material, Object, Semantic, Texture
from upernet.tasks.dense import DenseTask
from upernet.tasks.metrics import SegmentationMetric, TopOne


def test_one_answer_for_an_image() -> None:
    """Two pixels of .4 .6 and one of .9 .1: the mean says the first class, the majority the second."""
    p = torch.tensor([[[[0.4, 0.4, 0.9]], [[0.6, 0.6, 0.1]]]])
    mean = DenseTask(labels=["a", "b"], image_answer="mean").image_probabilities(p)
    majority = DenseTask(labels=["a", "b"], image_answer="majority").image_probabilities(p)
    torch.testing.assert_close(mean, torch.tensor([[1.7 / 3, 1.3 / 3]]))
    torch.testing.assert_close(majority, torch.tensor([[1 / 3, 2 / 3]]))


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
