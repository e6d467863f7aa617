"""OpenVINO, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from upernet.runtimes.engine import GRAPH, EngineName, Run

if TYPE_CHECKING:
    from openvino import Model

AGAIN = 3
"""How many batches in a row must have one shape until the graph is compiled for it."""
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
        """Compile the graph, or the part of it that some of its outputs need."""
        import openvino

        whole = openvino.Core().read_model(folder / GRAPH)
        part = openvino.Model([whole.get_results()[i] for i in outputs], whole.get_parameters())
        return Compiled(part, threads, folder / _COMPILED)


class Compiled:
    """A graph, compiled for batches of every shape, or for those of one shape if they come in a row.

    Attributes:
        shape: The one shape; None for every shape.
    """

    def __init__(self, model: Model, threads: int, kept: Path) -> None:
        """Compile for every shape.

        Args:
            model: The graph.
            threads: Number of CPU threads.
            kept: Folder for what is compiled.

        Raises:
            RuntimeError: If OpenVINO cannot compile the graph.
        """
        self._model, self._kept = model, kept
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
        self._compile(None)

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        """See `upernet.runtimes.engine.Run`."""
        shape = image.shape
        self._in_a_row = self._in_a_row + 1 if shape == self._last else 1
        self._last = shape
        if shape != self.shape:
            if self._in_a_row >= self._again or shape[0] * shape[2] * shape[3] >= LARGE:
                self._compile(shape)
            elif self.shape is not None:
                # Shapes that take turns must not be compiled for again and again.
                self._again *= 2
                self._compile(None)
        answers = self._request.infer({0: image})  # copies, since the request's own memory is written to again
        return [answers[i] for i in range(len(answers))]

    def _compile(self, shape: tuple[int, ...] | None) -> None:
        import openvino

        self._request: Any = None  # what was compiled before goes first
        model, settings = self._model, self._settings
        if shape is None:
            settings = settings | {"CACHE_DIR": str(self._kept)}
        else:
            model = model.clone()
            model.reshape(list(shape))
        self._request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
        self.shape = shape
