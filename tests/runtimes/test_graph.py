"""`runtimes/graph.py`: one graph for batches and images of every size, of every family of backbones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from exports import levels_as_tasks, network_of, parsing_tasks

from upernet.contract import Task
from upernet.fused import fuse
from upernet.runtimes.checking import relative_difference
from upernet.runtimes.graph import LogitsOf, MapsOf, trace
from upernet.tasks import Semantic

DECODED: dict[str, Task] = {"decoded": Semantic(labels=["a", "b", "c"], level="fused", convs=0)}
"""A task that needs the whole decoder, which takes seconds to trace."""
SHAPES = [(1, 3, 32, 32), (2, 3, 33, 97), (1, 3, 250, 45), (3, 3, 64, 64)]


@pytest.mark.parametrize(
    ("backbone", "args", "tasks"),
    [
        ("test_resnet", {}, levels_as_tasks()),
        ("test_efficientnet", {}, levels_as_tasks()),
        ("test_convnext", {}, levels_as_tasks()),
        ("test_vit", {}, levels_as_tasks()),
        (
            "swin_tiny_patch4_window7_224",
            {"embed_dim": 16, "depths": [2, 1, 1, 1], "num_heads": [1, 2, 2, 4], "shift_first": True},
            DECODED,  # its levels have the sizes that are hardest to trace
        ),
    ],
)
def test_every_family_is_traced_for_all_sizes(backbone: str, args: dict[str, Any], tasks: dict[str, Task]) -> None:
    """In the form that files hold unless another is asked for."""
    network = network_of(tasks, backbone, **args)
    run = trace(LogitsOf(fuse(network, winograd=False), list(tasks))).module()
    for shape in SHAPES:
        image = torch.rand(shape)
        with torch.no_grad():
            for name, found in zip(tasks, run(image), strict=True):
                assert relative_difference(found, network(image, [name])[name]) < 1e-4, (name, shape)


def test_maps_are_decoded_from_bytes() -> None:
    tasks = parsing_tasks()
    wanted = MapsOf(network_of(tasks), tasks, ["scene", "object", "part"])
    for shape in SHAPES:
        with torch.no_grad():
            scene, objects, parts = wanted((torch.rand(shape) * 255).to(torch.uint8))
        assert scene.dtype == objects.dtype == parts.dtype == torch.int32
        assert scene.shape == shape[:1] and objects.shape == parts.shape == (shape[0], *shape[2:])
        assert torch.equal(parts == -1, objects == 2)  # a tree has no parts


def test_the_network_stays_as_it_is() -> None:
    tasks = levels_as_tasks()
    network = network_of(tasks)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trace(LogitsOf(network, ["c2"]))
    after = network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert network.backbone.body.conv1.weight.is_contiguous(memory_format=torch.channels_last)
