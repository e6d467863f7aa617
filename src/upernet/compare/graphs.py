"""The plain network's ONNX graph in engines, as a user would run it without this package.

The engines are imported in this file alone, and only if the user asks for a comparison with them. This module imports
little of ours: it is loaded in the processes whose memory is measured.
"""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from upernet.compare.implementation import Implementation, Trial
from upernet.errors import UserError, WorkError

Graph = Callable[[np.ndarray], Sequence[np.ndarray]]
"""Images (B, 3, H, W) float32 in [0, 1] to the graph's outputs in their order."""

Decoding = Callable[[Callable[..., Mapping[str, Tensor]], bool, Trial], Callable[[], Mapping[str, Tensor]]]
"""From the network, the bilinear convention and the trial to a function that computes label maps by task."""


@dataclass(frozen=True)
class GraphEngine:
    """An engine, and how the graph is run in it.

    Attributes:
        module: Name of its module.
        package: What to install.
        open: Makes the graph of a file ready to run, with a number of threads. Arguments: file, names of the outputs,
            number of threads.
    """

    module: str
    package: str
    open: Callable[[Path, Sequence[str], int], Graph]


def open_graph(
    name: str, path: Path, tasks: Sequence[str], align_corners: bool, decoding: Decoding | None, trial: Trial
) -> Callable[[], Implementation]:
    """An `Opening` of the graph in an engine.

    Args:
        name: A key of `ENGINES`.
        path: The graph.
        tasks: Its outputs, in their order.
        align_corners: Bilinear convention with which the logits are resized.
        decoding: How logits become label maps; None for what users write: PyTorch resizes them in one piece and takes
            the arg-max. It can be pickled.
        trial: The input.
    """
    engine = ENGINES[name]
    imported = importlib.import_module(engine.module)

    def prepare() -> Implementation:
        graph = engine.open(path, tasks, torch.get_num_threads())

        def network(image: Tensor, names: object = None) -> dict[str, Tensor]:
            outputs = graph(image.contiguous().numpy())
            return {task: torch.from_numpy(values) for task, values in zip(tasks, outputs, strict=True)}

        def label_maps() -> dict[str, Tensor]:
            logits = network(trial.image / 255)
            size = trial.answer_size
            full = {n: F.interpolate(v, size, mode="bilinear", align_corners=align_corners) for n, v in logits.items()}
            return {name: values.argmax(dim=1) for name, values in full.items()}

        def first_logits() -> dict[str, Tensor]:
            # Engines give their own memory, which the next run overwrites.
            return {task: values.clone() for task, values in network(trial.first_window).items()}

        run = label_maps if decoding is None else decoding(network, align_corners, trial)
        version = getattr(imported, "__version__", None) or imported.version()
        return Implementation(str(version).partition("-")[0], run, first_logits)

    return prepare


def _open_onnxruntime(path: Path, tasks: Sequence[str], threads: int) -> Graph:
    engine = importlib.import_module("onnxruntime")
    options = engine.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = engine.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(list(tasks), {"image": image})


def _open_openvino(path: Path, tasks: Sequence[str], threads: int) -> Graph:
    core = importlib.import_module("openvino").Core()
    # By itself it would compute in bf16 where the processor can.
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()

    def run(image: np.ndarray) -> list[np.ndarray]:
        answer = request.infer({"image": image}, share_inputs=True, share_outputs=True)
        return [answer[task] for task in tasks]

    return run


def _open_mnn(path: Path, tasks: Sequence[str], threads: int) -> Graph:
    """Run the file that `convert_to_mnn` writes."""
    nn, expressions = importlib.import_module("MNN.nn"), importlib.import_module("MNN.expr")
    settings = {"backend": "CPU", "numThread": threads, "precision": "high"}
    manager = nn.create_runtime_manager((settings,))
    network = nn.load_module_from_file(str(path), ["image"], list(tasks), runtime_manager=manager)

    def run(image: np.ndarray) -> list[np.ndarray]:
        shown = expressions.placeholder(list(image.shape), expressions.NCHW)
        shown.write(image)
        outputs = network.forward([shown])
        return [_values(expressions.convert(output, expressions.NCHW)) for output in outputs]

    return run


def _values(output: Any) -> np.ndarray:
    return np.array(output.read()).reshape(output.shape)


def convert_to_mnn(source: Path, destination: Path) -> None:
    """Convert an ONNX graph to MNN's own format, in a process of its own.

    MNN's command for this would install further packages and report to its makers, so that its library is called.

    Raises:
        WorkError: If it cannot convert the graph.
    """
    call = "import MNN, _tools, sys; _tools.mnnconvert(sys.argv)"
    words = ["-f", "ONNX", "--modelFile", str(source), "--MNNModel", str(destination), "--bizCode", "upernet"]
    subprocess.run([sys.executable, "-c", call, *words], capture_output=True, check=False)
    if not destination.is_file():
        raise WorkError("cannot convert the graph")


def find_engine(name: str) -> None:
    """Refuse an engine that is not installed, without importing it.

    Raises:
        UserError: If it is not installed.
    """
    engine = ENGINES[name]
    if importlib.util.find_spec(engine.module) is None:
        raise UserError(f"not installed ({engine.module} is missing); pip install {engine.package}")


ENGINES = {
    "onnxruntime": GraphEngine("onnxruntime", "onnxruntime", _open_onnxruntime),
    "openvino": GraphEngine("openvino", "openvino", _open_openvino),
    "mnn": GraphEngine("MNN", "MNN", _open_mnn),
}
"""The engines by their names in `--compare`."""
