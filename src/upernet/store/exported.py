"""Exported files: what they say about their network, and opening one that gives logits.

An ONNX file holds plain texts beside its graph; a `.pt2` file of `torch.export` holds the same texts as extra files.
The text `upernet` is the `config.yaml` of a model folder. `classes` and `colours` repeat the tables of all tasks as
JSON, for programs that read neither YAML nor the names of published tables.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upernet.config import InferenceConfig, ModelConfig
from upernet.contract import Task
from upernet.errors import UserError, WorkError
from upernet.model.build import build_on_meta
from upernet.runtimes.exported import ExportedNetwork
from upernet.store.native import describe, read_description
from upernet.yaml_files import yaml_of

if TYPE_CHECKING:
    from onnx import ModelProto

MAX_BYTES = 2**31 - 1
"""Most bytes of an ONNX file; the format allows no more in one file."""
MAX_TEXT = 2**24
"""Most characters of a text in it."""
MAX_NODES = 2**17
"""Most operations of a graph; the largest networks have some ten thousand."""
_DOMAINS = ("", "ai.onnx", "com.microsoft")
_CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")


def is_exported(path: Path) -> bool:
    """Whether a path has the ending of an exported file."""
    return path.suffix.lower() in (".onnx", ".pt2")


def describe_export(
    config: ModelConfig,
    tasks: Mapping[str, Task],
    inference: InferenceConfig,
    export: Mapping[str, Any],
    card: str,
) -> dict[str, str]:
    """The texts of an exported file.

    Args:
        config: The network's configuration.
        tasks: The tasks that it was exported with, by name.
        inference: How photographs are resized for it.
        export: How it was exported: `output`, `form`, `tasks` in the order of the outputs, and more plain values.
        card: The model card, which may be empty.
    """
    tables = {name: task.classes for name, task in tasks.items()}
    colours = {name: [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in table.colours] for name, table in tables.items()}
    return {
        "upernet": describe(config, tasks, inference, {"export": dict(export)}),
        "classes": json.dumps({name: list(table.names) for name, table in tables.items()}, ensure_ascii=False),
        "colours": json.dumps(colours),
        "card": card,
    }


def read_exported(
    path: Path, trust: Sequence[str] = ()
) -> tuple[ExportedNetwork, ModelConfig, dict[str, Task], InferenceConfig]:
    """Open an ONNX file that `upernet export` has written. A graph holds operations on tensors and no other code.

    Args:
        path: The file.
        trust: Modules whose tasks may be imported, beside `upernet` and those imported already.

    Returns:
        The network, its configuration, its tasks by name, and how photographs are resized for it.

    Raises:
        UserError: If the file is of other software, or gives no logits; if a package is missing that opens it; or if
            it names a module that is not trusted.
        WorkError: If it is damaged or hostile.
    """
    if path.suffix.lower() == ".pt2":
        raise UserError(f"{path}: is a program of torch.export, which upernet writes but does not run; give an .onnx")
    try:
        import onnxruntime  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(f"{path}: needs {error.name} to run; pip install 'upernet[onnxruntime]'") from None
    graph = _read_graph(path)
    texts = {entry.key: entry.value for entry in graph.metadata_props}
    if "upernet" not in texts:
        raise UserError(f"{path}: was not written by upernet export, so that its tasks are unknown; export the model")
    if len(texts["upernet"]) > MAX_TEXT:
        raise WorkError(f"{path}: describes its network in more than {MAX_TEXT} characters; it may be hostile")
    try:
        content = yaml_of(texts["upernet"], str(path))
    except UserError as error:
        raise WorkError(str(error)) from error
    config, tasks, inference, info = read_description(content, str(path), trust)
    export = info.get("export")
    if not isinstance(export, dict) or export.get("output") != "logits":
        found = export.get("output") if isinstance(export, dict) else None
        raise UserError(f"{path}: its output is {found!r}; only files of upernet export --output logits are run")
    outputs = [value.name for value in graph.graph.output]
    if [value.name for value in graph.graph.input] != ["image"] or outputs != list(tasks):
        raise WorkError(f"{path}: its outputs {outputs} are not the tasks that it describes, {list(tasks)}")
    try:
        # Binds the tasks to one another, and refuses what no network can have.
        build_on_meta(config, tasks, str(path))
        network = ExportedNetwork(path, tasks, config.upsampling_align_corners)
    except UserError as error:
        raise error if str(error).startswith(f"{path}: ") else type(error)(f"{path}: {error}") from error
    except Exception as error:
        raise WorkError(f"{path}: cannot be opened ({' '.join(str(error).split())[:300]})") from error
    return network, config, tasks, inference


def _read_graph(path: Path) -> ModelProto:
    """Parse an ONNX file, and refuse one that a UPerNet cannot need.

    Raises:
        UserError: If the file cannot be read.
        WorkError: If it is damaged or hostile.
    """
    import onnx

    try:
        if path.stat().st_size > MAX_BYTES:
            raise WorkError(f"{path}: is larger than {MAX_BYTES} bytes, which no ONNX file can be")
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # of protobuf, which has several
        raise WorkError(f"{path}: is no ONNX file, or damaged ({' '.join(str(error).split())[:200]})") from error
    reason = _refusal(model)
    if reason:
        raise WorkError(f"{path}: {reason}; it may be hostile")
    return model


def _refusal(model: ModelProto) -> str | None:
    """Why a graph is refused, if it is."""
    from onnx import AttributeProto, TensorProto

    if model.functions:
        return "defines functions, which no exported UPerNet does"
    if len(model.graph.node) > MAX_NODES:
        return f"has more than {MAX_NODES} operations"
    tensors = [*model.graph.initializer, *(t for s in model.graph.sparse_initializer for t in (s.values, s.indices))]
    for node in model.graph.node:
        if node.domain not in _DOMAINS or node.op_type in _CONTROL_FLOW:
            return f"has the operation {node.op_type!r} of {node.domain or 'ONNX'!r}, which no exported UPerNet has"
        for attribute in node.attribute:
            if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
                return f"has a graph inside its operation {node.op_type!r}"
            tensors += [attribute.t, *attribute.tensors]
    # An external file could be any file of this computer.
    if any(t.data_location == TensorProto.EXTERNAL or t.external_data for t in tensors):
        return "keeps tensors in another file"
    return None
