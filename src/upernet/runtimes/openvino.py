"""OpenVINO, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from upernet.runtimes.engine import GRAPH, EngineName, Run

AGAIN = 3
"""How many batches in a row must have one shape until the graph is compiled for it again; twice as many each time."""
LARGE = 2**20
"""Pixels of a batch from which on the graph is compiled for its shape at once: it then takes far less memory."""
_COMPILED = "openvino"
"""Folder, beside the graph, in which OpenVINO keeps what it has compiled for every shape."""


class OpenVINO:
    """The engine of that name; see `upernet.runtimes.engine.Engine`."""

    name: EngineName = "openvino"
    packages: tuple[str, ...] = ("openvino", "onnx", "onnxscript")
    devices: tuple[str, ...] = ("cpu",)

    def open(self, folder: Path, outputs: Sequence[int], threads: int, device: torch.device) -> Run:
        """Open the graph, or the part of it that some of its outputs need."""
        return Compiled(folder, outputs, threads)


class Compiled:
    """A graph, compiled for the shape of the first batch, for every shape once another one comes, or for one again.

    For one shape it is compiled and runs faster, and takes less memory.

    Attributes:
        shape: The one shape; None for every shape, and before the first batch.
    """

    def __init__(self, folder: Path, outputs: Sequence[int], threads: int) -> None:
        """Nothing is compiled before the first batch.

        Args:
            folder: Holds the graph, and what is compiled for every shape.
            outputs: Numbers of the graph's outputs that are wanted.
            threads: Number of CPU threads.
        """
        self._folder, self._outputs = folder, list(outputs)
        # Otherwise OpenVINO would compute in bfloat16 on processors that have it, bind the threads of processes that
        # run side by side to the same cores, and store what it has prepared for 5,000 kernels and sizes.
        self._settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,
            "CPU_RUNTIME_CACHE_CAPACITY": 0,
        }
        self._last, self._in_a_row, self._again = (0,), 0, AGAIN
        self._request: Any = None
        self.shape: tuple[int, ...] | None = None

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        """See `upernet.runtimes.engine.Run`.

        Raises:
            RuntimeError: If OpenVINO cannot compile the graph.
        """
        shape = image.shape
        self._in_a_row = self._in_a_row + 1 if shape == self._last else 1
        self._last = shape
        if shape != self.shape:
            if self._request is None or shape[0] * shape[2] * shape[3] >= LARGE:
                self._compile(shape)
            elif self._in_a_row >= self._again:
                self._again *= 2  # shapes that take turns must not be compiled for again and again
                self._compile(shape)
            elif self.shape is not None:
                self._compile(None)
        answers = self._request.infer({0: image})  # copies, since the request's own memory is written to again
        return [answers[i] for i in range(len(answers))]

    def _compile(self, shape: tuple[int, ...] | None) -> None:
        import openvino

        self._request = None  # what was compiled before goes first
        core, settings = openvino.Core(), self._settings
        core.set_property({"ENABLE_MMAP": False})  # mapped weights would stay in memory beside their copies
        whole = core.read_model(self._folder / GRAPH)
        model = openvino.Model([whole.get_results()[i] for i in self._outputs], whole.get_parameters())
        if shape is None:
            settings = settings | {"CACHE_DIR": str(self._folder / _COMPILED)}
        else:
            model.reshape(list(shape))
        self._request = core.compile_model(model, "CPU", settings).create_infer_request()
        self.shape = shape
