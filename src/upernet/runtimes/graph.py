"""The network as a graph of tensor operations that takes batches and images of any size."""

from __future__ import annotations

import copy
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils._sympy.value_ranges import ValueRanges

from upernet.contract import Task
from upernet.inference.answers import order_tasks
from upernet.inference.sizes import MIN_SIDE
from upernet.inference.upsample import resize
from upernet.inference.views import Network

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

MAX_SIDE = 2**14
"""Largest side of an image that the graph takes, in pixels."""
OPSET = 20
"""Version of ONNX's operators that is written if nothing else is asked for."""
_EXAMPLE = (2, 3, 800, 1312)
"""Shape of the images with which the network is traced. Nothing is computed, so that it may be large: at every level
there are several of a Swin's windows, more across than down."""
_LARGE = 512
"""Smallest side for which tracing has to be right by itself, in pixels."""


class LogitsOf(nn.Module):
    """The network with a fixed list of tasks. It gives a tuple, since a graph's outputs are ordered."""

    input_type = torch.float32

    def __init__(self, network: Network, tasks: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self.tasks = list(tasks)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) float32 RGB in [0, 1] to logits, (B, K, h, w) or (B, K), in the order of the tasks."""
        logits = self.network(image, self.tasks)
        return tuple(logits[name] for name in self.tasks)


class MapsOf(nn.Module):
    """The network with the decoding of its answers, from bytes to classes."""

    input_type = torch.uint8

    def __init__(self, network: Network, tasks: Mapping[str, Task], names: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self.ordered = order_tasks(tasks, names)
        self.tasks = list(names)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) uint8 RGB to class ids, (B, H, W) or (B,) int32, in the order of the tasks."""
        logits = self.network(image.float() / 255, list(self.ordered))
        size = image.shape[-2], image.shape[-1]
        decoded: dict[str, Tensor] = {}
        for name, task in self.ordered.items():
            own = logits[name].float()
            if own.ndim == 4:
                own = resize(own, size, self.network.upsampling_align_corners)
            decoded[name] = task.decode(task.probabilities(own), decoded)
        return tuple(decoded[name].to(torch.int32) for name in self.tasks)


def trace(module: LogitsOf | MapsOf) -> ExportedProgram:
    """Trace what a network computes, for batches and images of any size from 32 px.

    Args:
        module: The network in evaluation mode on the CPU, and what is wanted of it. It stays as it is.

    Returns:
        A program that takes one tensor, `image`, as `module` does, and gives the same tuple.

    Raises:
        Exception: Whatever PyTorch raises if it cannot trace the network with free sizes.
    """
    # Channels last in memory, tracing would ask of every map whether its strides are in that order at all sizes.
    module = copy.deepcopy(module).eval().to(memory_format=torch.contiguous_format)
    # Tracing would take a map of one sample or one window for a case of its own, so it is told of large sides only.
    # What it takes for granted all the same is written down as assertions, instead of refusing sizes.
    sides = {2: Dim("height", min=_LARGE, max=MAX_SIDE), 3: Dim("width", min=_LARGE, max=MAX_SIDE)}
    with _quiet(), torch.no_grad():
        program = torch.export.export(
            module,
            (torch.zeros(_EXAMPLE, dtype=module.input_type),),
            dynamic_shapes=({0: Dim("batch"), **sides},),
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    # The operations are right for one sample and for one window too.
    for assertion in program.graph.find_nodes(op="call_function", target=torch.ops.aten._assert_scalar.default):
        program.graph.erase_node(assertion)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    for symbol, bounds in list(program.range_constraints.items()):
        if bounds.lower == _LARGE:
            program.range_constraints[symbol] = ValueRanges(MIN_SIDE, MAX_SIDE)
    # A file would hold the large one.
    program.example_inputs = ((torch.zeros(1, 3, 64, 64, dtype=module.input_type),), {})
    return program


def to_onnx(program: ExportedProgram, outputs: Sequence[str], opset: int = OPSET) -> ONNXProgram:
    """Translate a program into ONNX.

    Args:
        program: The result of `trace`.
        outputs: Names of its outputs, in their order.
        opset: Version of ONNX's operators.

    Raises:
        Exception: Whatever PyTorch raises if it knows no translation.
    """
    from upernet.runtimes.operators import translations

    with _quiet(), torch.no_grad():
        graph = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=["image"],
            output_names=list(outputs),
            opset_version=opset,
            external_data=False,
            optimize=False,  # it would take longer than all the rest, and engines do it themselves
            custom_translation_table=translations(),
        )
    assert graph is not None
    _tidy(cast(Any, graph.model.graph))
    return graph


def _tidy(graph: Any) -> None:
    """Name the free sizes of the input, also where those of an output follow from them, and drop the tracer's notes.

    Args:
        graph: A graph of `onnx_ir`.
    """
    free = (str(graph.inputs[0].shape[axis].value) for axis in (0, 2, 3))
    names = dict(zip(free, ("batch", "height", "width"), strict=True))
    for value in (*graph.inputs, *graph.outputs):
        for axis, size in enumerate(value.shape):
            if not isinstance(size, int):
                value.shape[axis] = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), str(size.value))
    for node in graph:
        node.metadata_props.clear()


def write_graph(network: Network, path: Path, tasks: Sequence[str]) -> None:
    """Write the network as an ONNX graph. Its weights are beside it, in `<path>.data`.

    The input is `image`, (B, 3, H, W) float32 RGB in [0, 1]; the outputs are logits, named like the tasks, as the
    network gives them. B, H and W are free, with H and W from 32 to `MAX_SIDE`.

    Args:
        network: The network in evaluation mode on the CPU.
        path: The file to write.
        tasks: The tasks that the graph computes, in this order.

    Raises:
        Exception: Whatever PyTorch raises if it cannot trace the network with free sizes.
    """
    # Beside the graph, the weights are mapped into memory instead of being copied.
    to_onnx(trace(LogitsOf(network, tasks)), tasks).save(path, external_data=True)


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
