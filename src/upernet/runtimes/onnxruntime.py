"""ONNX Runtime, on the CPU, or on a GPU with its package for GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from upernet.errors import UserError
from upernet.inference.views import Network
from upernet.runtimes.engine import EngineName, Run
from upernet.runtimes.graph import write_graph

_GRAPH = "graph.onnx"
_ON_GPU = "CUDAExecutionProvider"


class ONNXRuntime:
    """The engine of that name; see `upernet.runtimes.engine.Engine`."""

    name: EngineName = "onnxruntime"
    packages: tuple[str, ...] = ("onnxruntime", "onnx", "onnxscript")
    devices: tuple[str, ...] = ("cpu", "cuda")

    def write(self, network: Network, folder: Path, tasks: Sequence[str]) -> None:
        """Write the graph as ONNX."""
        write_graph(network, folder / _GRAPH, tasks)

    def open(self, folder: Path, outputs: Sequence[int], threads: int, device: torch.device) -> Run:
        """Open a session.

        Raises:
            UserError: If the device is a GPU and the installed package has no support for it.
        """
        return open_graph(folder / _GRAPH, outputs, threads, device)


def open_graph(graph: Path | bytes, outputs: Sequence[int], threads: int, device: torch.device) -> Run:
    """Open a graph in ONNX Runtime. It computes only what the outputs need.

    Args:
        graph: The ONNX file, or its content.
        outputs: Numbers of the outputs that are wanted.
        threads: Number of CPU threads.
        device: The device to compute on.

    Raises:
        UserError: If the device is a GPU and the installed package has no support for it.
        Exception: Whatever ONNX Runtime raises if it cannot open the graph.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # A waiting thread would take a core from reading the next image.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Memory that it would keep for itself grows with images of many sizes, and saves no time.
    options.enable_cpu_mem_arena = False
    providers: list[str | tuple[str, dict[str, str]]] = ["CPUExecutionProvider"]
    if device.type == "cuda":
        if _ON_GPU not in onnxruntime.get_available_providers():
            raise UserError(
                "engine onnxruntime: the installed package computes on CPUs only; "
                "pip install onnxruntime-gpu, or choose --device cpu or --engine torch"
            )
        providers.insert(0, (_ON_GPU, {"device_id": str(device.index or 0), "use_tf32": "0"}))
    session = onnxruntime.InferenceSession(graph, options, providers=providers)
    names = [session.get_outputs()[i].name for i in outputs]
    how = onnxruntime.RunOptions()
    how.only_execute_path_to_fetches = True

    def run(image: np.ndarray) -> list[np.ndarray]:
        answers: list[np.ndarray] = session.run(names, {"image": image}, how)
        return answers

    return run
