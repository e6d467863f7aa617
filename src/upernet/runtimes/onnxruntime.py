"""ONNX Runtime, on the CPU, or on a GPU with its package for GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from upernet.errors import UserError
from upernet.files import write_whole
from upernet.runtimes.engine import GRAPH, EngineName, Run

_ON_GPU = "CUDAExecutionProvider"


class ONNXRuntime:
    """The engine of that name; see `upernet.runtimes.engine.Engine`."""

    name: EngineName = "onnxruntime"
    packages: tuple[str, ...] = ("onnxruntime", "onnx", "onnxscript")
    devices: tuple[str, ...] = ("cpu", "cuda")

    def open(self, folder: Path, outputs: Sequence[int], threads: int, device: torch.device) -> Run:
        """Open a session for the graph, or for the part of it that some of its outputs need.

        Raises:
            UserError: If the device is a GPU and the installed package has no support for it.
        """
        graph = _part(folder, outputs)
        names = outputs if graph == folder / GRAPH else range(len(outputs))
        return open_graph(graph, names, threads, device)


def open_graph(graph: Path | bytes, outputs: Sequence[int], threads: int, device: torch.device) -> Run:
    """Open a graph in ONNX Runtime, which computes all of it.

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

    def run(image: np.ndarray) -> list[np.ndarray]:
        answers: list[np.ndarray] = session.run(names, {"image": image})
        return answers

    return run


def _part(folder: Path, outputs: Sequence[int]) -> Path:
    """A file with the part of the graph that some of its outputs need.

    ONNX Runtime computes all of a graph, whatever is asked for. The weights of a part are those of the whole graph.
    """
    import onnx

    whole = onnx.load(folder / GRAPH, load_external_data=False)
    names = [whole.graph.output[i].name for i in outputs]
    if len(names) == len(whole.graph.output):
        return folder / GRAPH
    path = folder / f"part-{'-'.join(map(str, outputs))}.onnx"
    if not path.exists():
        part = onnx.utils.Extractor(whole).extract_model([whole.graph.input[0].name], names)
        write_whole(path, lambda file: file.write(part.SerializeToString()))
    return path
