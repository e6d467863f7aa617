"""`runtimes/checking.py`: a graph that goes astray is found, and where."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from exports import network_of, parsing_tasks
from torch import Tensor

from upernet.runtimes.checking import (
    LevelsOf,
    Mismatch,
    check_graph,
    check_shapes,
    first_difference,
    relative_difference,
)
from upernet.runtimes.graph import LogitsOf, MapsOf

NAMES = ["scene", "object", "part"]


def test_the_shapes_hold_the_smallest_odd_and_long_ones() -> None:
    shapes = check_shapes(20)
    assert shapes == check_shapes(20) and len(shapes) == 20
    assert shapes[0] == (1, 3, 32, 32) and check_shapes(1) == shapes[:1]
    assert min(min(shape[2:]) for shape in shapes) == 32 and max(max(shape[2:]) for shape in shapes) <= 320
    assert any(shape[0] > 1 for shape in shapes) and any(shape[2] % 2 and shape[3] % 2 for shape in shapes)
    assert len({round(shape[2] / shape[3], 1) for shape in shapes}) > 8


def test_an_equal_graph_passes() -> None:
    tasks = parsing_tasks()
    network = network_of(tasks)
    for wanted in (LogitsOf(network, NAMES), MapsOf(network, tasks, NAMES)):
        with torch.no_grad():
            assert check_graph(wanted, wanted, tasks, check_shapes(4)) == 0


def test_a_graph_that_is_right_at_some_sizes_only_is_refused() -> None:
    tasks = parsing_tasks()
    wanted = LogitsOf(network_of(tasks), NAMES)

    def fixed(image: Tensor) -> Sequence[Tensor]:
        with torch.no_grad():
            scene, objects, part = wanted(image)
        return scene, objects + 0.01 * objects.std() if image.shape[3] % 2 else objects, part

    with pytest.raises(Mismatch) as caught:
        check_graph(fixed, wanted, tasks, check_shapes(4))
    line = str(caught.value.told("model.onnx", "p3"))
    assert line.startswith("model.onnx: not written") and "33×197 px, batch 2, task 'object'" in line and "p3" in line


def test_maps_may_differ_only_where_two_classes_are_as_likely() -> None:
    tasks = parsing_tasks()
    network = network_of(tasks)
    wanted = MapsOf(network, tasks, NAMES)

    def large(image: Tensor, name: str) -> Tensor:
        logits = F.interpolate(network(image / 255, [name])[name], image.shape[2:], mode="bilinear")
        return tasks[name].probabilities(logits)

    def second_best(image: Tensor, clear: bool) -> list[Tensor]:
        """The second class at one position, where the first is hardly or clearly likelier, and the parts to it."""
        scene, objects, _ = wanted(image)
        likeliest = large(image, "object").topk(2, dim=1)
        gap = (likeliest.values[:, 0] - likeliest.values[:, 1]).flatten()
        at = gap.argmax() if clear else gap.argmin()
        assert (gap[at] > 0.1) == clear and (clear or gap[at] < 1e-3)
        objects.view(-1)[at] = likeliest.indices[:, 1].flatten()[at].int()
        return [scene, objects, tasks["part"].decode(large(image, "part"), {"object": objects.long()}).int()]

    with torch.no_grad():
        share = check_graph(lambda image: second_best(image, False), wanted, tasks, [(1, 3, 96, 160)])
        assert share == pytest.approx(1 / (96 * 160))
        with pytest.raises(Mismatch) as caught:
            check_graph(lambda image: second_best(image, True), wanted, tasks, [(1, 3, 96, 160)])
        assert caught.value.task == "object"


def test_the_first_level_that_differs_is_named() -> None:
    tasks = parsing_tasks()
    levels = LevelsOf(network_of(tasks), ["object"])
    image = torch.rand(1, 3, 64, 96)
    assert first_difference(levels, lambda same: same, image) is None

    def astray(levels: LevelsOf, first: str) -> Sequence[Tensor]:
        answers, start = list(levels(image)), levels.outputs.index(first)
        return [a if i < start else a + a.std() for i, a in enumerate(answers)]

    for name in ("c2", "p3", "fused", "head of object"):
        assert first_difference(levels, lambda same, n=name: lambda _: astray(same, n), image) == name


def test_a_difference_is_measured_by_the_deviation() -> None:
    values = torch.tensor([[0.0, 2.0]])
    assert relative_difference(values + 0.5, values) == pytest.approx(0.5 / 1.02)
    assert relative_difference(values * float("nan"), values) == float("inf")
    assert relative_difference(values[0], values) == float("inf")
