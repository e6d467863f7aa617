"""OpenVINO, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from upernet.runtimes.engine import GRAPH, EngineName, Run

_COMPILED = "openvino"
"""Folder, beside the graph, in which OpenVINO keeps what it has compiled."""


class OpenVINO:
    """The engine of that name; see `upernet.runtimes.engine.Engine`."""

    name: EngineName = "openvino"
    packages: tuple[str, ...] = ("openvino", "onnx", "onnxscript")
    devices: tuple[str, ...] = ("cpu",)

    def open(self, folder: Path, outputs: Sequence[int], threads: int, device: torch.device) -> Run:
        """Compile the graph, or the part of it that some of its outputs need, for images of every size."""
        import openvino

        core = openvino.Core()
        whole = core.read_model(folder / GRAPH)
        results = [whole.get_results()[i] for i in outputs]
        # Otherwise OpenVINO computes in bfloat16 on processors that have it, and binds the threads of processes that
        # run side by side to the same cores.
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,
            "CACHE_DIR": str(folder / _COMPILED),
        }
        compiled = core.compile_model(openvino.Model(results, whole.get_parameters()), "CPU", settings)
        request = compiled.create_infer_request()

        def run(image: np.ndarray) -> list[np.ndarray]:
            answers = request.infer({0: image})  # copies, since the request's own memory is written to again
            return [answers[i] for i in range(len(outputs))]

        return run
