"""A model folder: `model.safetensors` and `config.yaml`, with nothing executable in either.

`upernet.store.foreign` opens files of other software.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors.torch import save

from upernet.config import InferenceConfig, ModelConfig
from upernet.contract import Task
from upernet.errors import UserError, WorkError
from upernet.files import write_whole
from upernet.model import UPerNet
from upernet.model.build import cpu_state_dict
from upernet.plain import class_paths, from_plain, to_plain
from upernet.yaml_files import read_yaml, write_yaml

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS, CONFIG = "model.safetensors", "config.yaml"
MAX_VALUES = 1_000_000
"""Most values in a `config.yaml`."""


def save_model(
    folder: Path,
    model: UPerNet,
    tasks: Mapping[str, Task],
    inference: InferenceConfig,
    *,
    info: Mapping[str, Any] | None = None,
    half: bool = False,
) -> None:
    """Write a model folder; each file appears whole or not at all.

    Args:
        folder: The folder to write; it is made if missing.
        model: The network.
        tasks: Its tasks by name.
        inference: How photographs are resized for it.
        info: Further plain values to store: data, metrics, command.
        half: Store floating-point tensors in float16.

    Raises:
        UserError: If `half` would overflow.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = cpu_state_dict(model)
    if half:
        state = {k: _to_half(k, v) for k, v in state.items()}
    weights = save(state)
    text = describe(model.config, tasks, inference, info)
    write_whole(folder / WEIGHTS, lambda file: file.write(weights))
    write_whole(folder / CONFIG, lambda file: file.write(text.encode()))


def describe(
    config: ModelConfig, tasks: Mapping[str, Task], inference: InferenceConfig, info: Mapping[str, Any] | None = None
) -> str:
    """The text of a `config.yaml`, which also describes a network in files of other kinds."""
    content = {
        "format": 1,
        "model": to_plain(config),
        "tasks": {name: to_plain(task) for name, task in tasks.items()},
        "inference": to_plain(inference),
        "info": dict(info or {}),
    }
    return write_yaml(content)


def _to_half(name: str, value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value
    half = value.half()
    if not torch.isfinite(half).all():
        raise UserError(
            f"{name}: largest value {value.abs().max().item():.3g} does not fit float16; save with half=False"
        )
    return half


class Description(NamedTuple):
    """A network as its `config.yaml` describes it.

    Attributes:
        config: The network's configuration.
        tasks: Its tasks by name.
        inference: How photographs are resized for it.
        info: Further plain values.
    """

    config: ModelConfig
    tasks: dict[str, Task]
    inference: InferenceConfig
    info: dict[str, Any]


def read_model_config(folder: Path, trust: Sequence[str] = ()) -> Description:
    """Read what a model folder's `config.yaml` describes.

    Args:
        folder: The model folder.
        trust: Packages from which tasks and losses may be imported, beside `upernet` and those imported already.

    Raises:
        UserError: If a value is of a wrong type, a key is unknown, or a module is not trusted.
        WorkError: If the file is damaged or hostile.
    """
    path = folder / CONFIG
    try:
        content = read_yaml(path)
    except UserError as error:
        raise WorkError(str(error)) from error
    return read_description(content, str(path), trust)


def read_description(content: Any, where: str, trust: Sequence[str] = ()) -> Description:
    """Build what the plain values of a `config.yaml` describe, after a check of all that they ask for.

    Args:
        content: The plain values.
        where: The file that they were read from, for the error line.
        trust: See `read_model_config`.

    Raises:
        UserError: If a value is of a wrong type, a key is unknown, or a module is not trusted.
        WorkError: If the content is hostile, or lacks the keys `model` and `tasks`.
    """
    if _count_values(content, {}) > MAX_VALUES:
        raise WorkError(f"{where}: holds more than {MAX_VALUES} values, counting shared ones anew; it may be hostile")
    if not isinstance(content, dict) or "model" not in content or "tasks" not in content:
        raise WorkError(f"{where}: expected the keys model and tasks")
    for key, named in class_paths(content["tasks"], "tasks"):
        module = named.rpartition(".")[0]
        # Importing runs a module: a stranger's file must not choose which.
        if module and module.split(".")[0] not in ("upernet", *trust) and module not in sys.modules:
            raise UserError(f"{where}: {key} comes from module {module!r}; if you trust it, --trust {module}")
    try:
        tasks = from_plain(dict[str, Task], content["tasks"], "tasks")
        config = from_plain(ModelConfig, content["model"], "model")
        inference = from_plain(InferenceConfig, content.get("inference") or {}, "inference")
    except UserError as error:
        raise type(error)(f"{where}: {error}") from error
    info = content.get("info")
    return Description(config, tasks, inference, info if isinstance(info, dict) else {})


def _count_values(block: Any, known: dict[int, int]) -> int:
    """How many values a block holds. Shared ones count as often as they occur, since copies and prints repeat them."""
    if not isinstance(block, (dict, list)):
        return 1
    if id(block) not in known:
        known[id(block)] = 1  # YAML can hold a list inside itself
        known[id(block)] += sum(_count_values(v, known) for v in (block.values() if isinstance(block, dict) else block))
    return known[id(block)]


def is_native(folder: Path) -> bool:
    """Whether a folder is a model folder as `save_model` writes it."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()
