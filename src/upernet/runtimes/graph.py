"""The network as an ONNX graph that takes batches and images of any size."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

MAX_SIDE = 2**14
"""Largest side of an image that the graph takes, in pixels."""
_EXAMPLE = (2, 3, 96, 160)
"""Shape of the images with which the network is traced: no two sizes are equal, and none is 1."""


class _OnTasks(nn.Module):
    """The network with a fixed list of tasks. It gives a tuple, since a graph's outputs are ordered."""

    def __init__(self, network: nn.Module, tasks: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self.tasks = list(tasks)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        logits = self.network(image, self.tasks)
        return tuple(logits[name] for name in self.tasks)


def write_graph(network: nn.Module, path: Path, tasks: Sequence[str]) -> None:
    """Write the network as an ONNX graph. Its weights are beside it, in `<path>.data`.

    The input is `image`, (B, 3, H, W) float32 RGB in [0, 1]; the outputs are logits, named like the tasks, as the
    network gives them. B, H and W are free, with H and W at least 32.

    Args:
        network: The network in evaluation mode on the CPU, called as `upernet.model.UPerNet` is.
        path: The file to write.
        tasks: The tasks that the graph computes, in this order.

    Raises:
        Exception: Whatever PyTorch raises if it cannot trace the network with free sizes.
    """
    from upernet.runtimes.operators import translations

    # Tracing takes no size for 1, which c5 has at 32 px. The graph is right there all the same.
    sides = {2: Dim("height", min=64, max=MAX_SIDE), 3: Dim("width", min=64, max=MAX_SIDE)}
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            _OnTasks(network, tasks).eval(),
            (torch.rand(_EXAMPLE),),
            dynamo=True,
            verbose=False,
            input_names=["image"],
            output_names=list(tasks),
            dynamic_shapes=({0: Dim("batch"), **sides},),
            external_data=True,
            optimize=False,
            custom_translation_table=translations(),
        )
        assert program is not None
        program.save(path, external_data=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes off the screen; its errors are raised."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
