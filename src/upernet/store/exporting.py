"""From a network to a file for other programs, checked before it is written."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.export import ExportedProgram

from upernet.config import InferenceConfig
from upernet.contract import Task
from upernet.data.images import read_image
from upernet.errors import UserError, WorkError
from upernet.fused import fuse
from upernet.inference.answers import order_tasks
from upernet.inference.views import Network, network_input
from upernet.model import UPerNet
from upernet.runtimes.checking import LevelsOf, Mismatch, Run, check_graph, check_shapes, first_difference
from upernet.runtimes.graph import OPSET, LogitsOf, MapsOf, to_onnx, trace
from upernet.runtimes.int8 import quantise
from upernet.runtimes.onnxruntime import open_graph
from upernet.store.exported import describe_export

Output = Literal["logits", "maps"]
Form = Literal["taps", "winograd", "plain"]


@dataclass(frozen=True, kw_only=True)
class Export:
    """What to write.

    Attributes:
        output: Logits of each task, or class ids of all tasks at every pixel.
        form: The network rewritten exactly, without or with Winograd's algorithm, or its own layers. A `.pt2` file
            cannot hold Winograd's, which is an operation of this package.
        tasks: Names of the tasks; all but auxiliary ones if empty.
        checks: Number of sizes at which the file is compared with the network.
        opset: Version of ONNX's operators.
        pictures: Photographs for quantisation to 8 bits; None for float32.
    """

    output: Output = "logits"
    form: Form = "taps"
    tasks: Sequence[str] = ()
    checks: int = 6
    opset: int = OPSET
    pictures: Sequence[Path] | None = None


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file that is ready to be written.

    Attributes:
        content: The content of the file.
        tasks: Names of the tasks in the order of the outputs.
        difference: The largest difference that was found, see `check_graph`.
        agreement: Task → share of the positions at which the quantised graph has the class of the float one, on the
            photographs; empty without quantisation.
    """

    content: bytes
    tasks: list[str]
    difference: float
    agreement: dict[str, float] = field(default_factory=dict)


def export_model(
    network: UPerNet, tasks: Mapping[str, Task], inference: InferenceConfig, path: Path, export: Export, card: str
) -> Exported:
    """Make the content of an ONNX or `.pt2` file, and compare it with the network at several sizes.

    Args:
        network: The network in evaluation mode on the CPU.
        tasks: Its tasks by name.
        inference: How photographs are resized for it.
        path: The file to write; its suffix chooses the format.
        export: What to write.
        card: The model card, which may be empty.

    Raises:
        UserError: If there is no such task, or a package is missing.
        WorkError: If the network cannot be traced, or the file does not give its answers.
    """
    names = _chosen(tasks, export.tasks)
    used = {name: tasks[name] for name in names}
    is_onnx = path.suffix == ".onnx"
    if is_onnx or export.pictures is not None:
        _need("onnx", "onnxscript", "onnxruntime")
    form: Network = network if export.form == "plain" else fuse(network, winograd=export.form == "winograd")
    texts = describe_export(network.config, used, inference, _about(export, names, {}), card)
    wanted, module = (_module(each, used, names, export.output) for each in (network, form))

    def write(module: LogitsOf | MapsOf, outputs: Sequence[str], texts: Mapping[str, str]) -> bytes:
        program = trace(module)
        return _onnx(program, outputs, texts, export.opset) if is_onnx else _program(program, texts)

    start = _start_onnx if is_onnx else _start_program
    try:
        content = write(module, names, texts)
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise WorkError(
            f"{path}: {network.config.backbone} cannot be written for images of any size ({reason})"
        ) from error
    run = start(content)
    try:
        difference = check_graph(run, wanted, used, check_shapes(export.checks))
    except Mismatch as mismatch:
        where = _locate(network, form, mismatch, lambda levels: start(write(levels, levels.outputs, {})))
        raise mismatch.told(path, where) from mismatch
    if export.pictures is None:
        return Exported(content=content, tasks=names, difference=difference)
    content = quantise(content, _shown(export.pictures, inference))
    agreement = _agreement(run, _start_onnx(content), used, _shown(export.pictures, inference))
    texts = describe_export(network.config, used, inference, _about(export, names, agreement), card)
    return Exported(content=_with_texts(content, texts), tasks=names, difference=difference, agreement=agreement)


def _chosen(tasks: Mapping[str, Task], names: Sequence[str]) -> list[str]:
    """The tasks to export and those they need, in the order of the model.

    Raises:
        UserError: If there is no such task, or its name is that of the input.
    """
    answered = {name: task for name, task in tasks.items() if not task.auxiliary}
    for name in names:
        if name not in answered:
            raise UserError(f"--tasks {name}: no such task; tasks: {', '.join(answered)}")
    ordered = order_tasks(answered, names or None)
    if "image" in ordered:
        raise UserError("task 'image' has the name of a graph's input; leave it out with --tasks")
    return [name for name in answered if name in ordered]


def _need(*packages: str) -> None:
    from importlib.util import find_spec

    for name in packages:
        if find_spec(name) is None:
            raise UserError(f"export: needs {name} to write ONNX; pip install 'upernet[onnxruntime]'")


def _about(export: Export, names: Sequence[str], agreement: Mapping[str, float]) -> dict[str, object]:
    """How the file was made, as plain values."""
    about: dict[str, object] = {"version": version("upernet"), "output": export.output, "form": export.form}
    about["tasks"] = list(names)
    if agreement:
        about["int8"] = {
            "pictures": len(export.pictures or ()),
            "agreement": {name: round(share, 6) for name, share in agreement.items()},
        }
    return about


def _module(network: Network, tasks: Mapping[str, Task], names: Sequence[str], output: Output) -> LogitsOf | MapsOf:
    return MapsOf(network, tasks, names) if output == "maps" else LogitsOf(network, names)


# --- the two formats --------------------------------------------------------------------------------------------------


def _onnx(program: ExportedProgram, names: Sequence[str], texts: Mapping[str, str], opset: int) -> bytes:
    model = to_onnx(program, names, opset).model_proto
    return _with_texts(model.SerializeToString(), texts)


def _with_texts(graph: bytes, texts: Mapping[str, str]) -> bytes:
    """An ONNX file with these texts, in place of those of the tools that made it."""
    import onnx

    model = onnx.load_model_from_string(graph)
    model.producer_name, model.producer_version, model.doc_string = "upernet", version("upernet"), ""
    onnx.helper.set_model_props(model, dict(texts))
    return model.SerializeToString()


def _start_onnx(content: bytes) -> Run:
    import onnx

    outputs = onnx.load_model_from_string(content).graph.output
    run = open_graph(content, range(len(outputs)), torch.get_num_threads(), torch.device("cpu"))
    return lambda image: [torch.from_numpy(answer) for answer in run(image.contiguous().numpy())]


def _program(program: ExportedProgram, texts: Mapping[str, str]) -> bytes:
    file = io.BytesIO()
    torch.export.save(program, file, extra_files=dict(texts))
    return file.getvalue()


def _start_program(content: bytes) -> Run:
    module = torch.export.load(io.BytesIO(content)).module()

    def run(image: Tensor) -> Sequence[Tensor]:
        with torch.no_grad():
            answers: Sequence[Tensor] = module(image)
        return answers

    return run


# --- comparisons ------------------------------------------------------------------------------------------------------


def _locate(network: UPerNet, form: Network, mismatch: Mismatch, start: Callable[[LevelsOf], Run]) -> str | None:
    """The first part of the network that differs: of its rewriting, or of the file that `start` makes of its levels."""

    def compare(levels: LevelsOf) -> Run:
        return LevelsOf(form, levels.tasks)

    rewriting = first_difference(LevelsOf(network, [mismatch.task]), compare, mismatch.image)
    if rewriting is not None:
        return f"{rewriting}, of the rewritten form"
    return first_difference(LevelsOf(form, [mismatch.task]), start, mismatch.image)


def _shown(pictures: Sequence[Path], inference: InferenceConfig) -> Iterator[Tensor]:
    """Photographs as the network is shown them, (1, 3, H, W) float32 RGB in [0, 1]."""
    for path in pictures:
        pixels = torch.from_numpy(read_image(path)).permute(2, 0, 1)[None]
        yield network_input(pixels, inference)


def _agreement(run: Run, quantised: Run, tasks: Mapping[str, Task], images: Iterator[Tensor]) -> dict[str, float]:
    """Task → share of the positions at which two graphs find the same class likeliest."""
    same, all_positions = dict.fromkeys(tasks, 0), dict.fromkeys(tasks, 0)
    for image in images:
        for name, one, other in zip(tasks, run(image), quantised(image), strict=True):
            equal = one.argmax(1) == other.argmax(1)
            same[name] += int(equal.sum())
            all_positions[name] += equal.numel()
    return {name: same[name] / all_positions[name] for name in tasks}
