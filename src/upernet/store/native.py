"""A model on disk: a folder with `model.safetensors` and `config.yaml`, nothing executable in either.

What other software wrote is opened by `upernet.store.foreign`.
"""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from safetensors.torch import save

from upernet.config import InferenceConfig, ModelConfig
from upernet.contract import Task
from upernet.errors import UserError, WorkError
from upernet.files import write_whole
from upernet.model import UPerNet
from upernet.model.build import plain_state
from upernet.plain import from_class_path, from_plain, to_plain

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS, CONFIG = "model.safetensors", "config.yaml"
VALUES = 1_000_000
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
        folder: Made if missing.
        model: The network.
        tasks: Its tasks by name.
        inference: How photographs reach it.
        info: Plain values to keep beside it: data, metrics, command.
        half: Store floating-point tensors in float16.

    Raises:
        UserError: If `half` would overflow.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = plain_state(model)
    if half:
        state = {k: _to_half(k, v) for k, v in state.items()}
    content = {
        "format": 1,
        "model": to_plain(model.config),
        "tasks": {name: to_plain(task) for name, task in tasks.items()},
        "inference": to_plain(inference),
        "info": dict(info or {}),
    }
    weights = save(state)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    write_whole(folder / WEIGHTS, lambda file: file.write(weights))
    write_whole(folder / CONFIG, lambda file: file.write(text.encode()))


def _to_half(name: str, value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value
    half = value.half()
    if not torch.isfinite(half).all():
        raise UserError(
            f"{name}: largest value {value.abs().max().item():.3g} does not fit float16; save with half=False"
        )
    return half


def read_model_config(folder: Path, trust: Sequence[str] = ()) -> tuple[ModelConfig, dict[str, Task], InferenceConfig]:
    """What a model folder's `config.yaml` says; see `load_model`."""
    path = folder / CONFIG
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if _values(content, {}) > VALUES:
            raise WorkError(f"{path}: holds more than {VALUES} values, counting shared ones anew; it may be hostile")
    # A tag such as !!bool before what is none makes yaml fail with nearly any of them.
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise WorkError(f"{path}: no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict) or "model" not in content or not isinstance(content.get("tasks"), dict):
        raise WorkError(f"{path}: expected the keys model and tasks")
    for name, spec in content["tasks"].items():
        class_path = spec.get("class_path") if isinstance(spec, dict) else None
        if not isinstance(class_path, str):
            raise WorkError(f"{path}: tasks.{name}: expected class_path, found {reprlib.repr(spec)}")
        for where, named in _class_paths(spec, f"tasks.{name}"):
            module = named.rpartition(".")[0]
            # Importing runs a module: a stranger's file must not choose which.
            if module.split(".")[0] not in ("upernet", *trust) and module not in sys.modules:
                raise UserError(f"{path}: {where} comes from module {module!r}; if you trust it, --trust {module}")
    try:
        tasks = {
            name: from_class_path(Task, spec, f"{path}: tasks.{name}")  # type: ignore[type-abstract]
            for name, spec in content["tasks"].items()
        }
        config = from_plain(ModelConfig, content["model"], f"{path}: model")
        inference = from_plain(InferenceConfig, content.get("inference") or {}, f"{path}: inference")
    except (TypeError, ValueError, AttributeError) as error:
        raise WorkError(f"{path}: a value of the wrong kind ({' '.join(str(error).split())})") from error
    return config, tasks, inference


def _values(block: Any, known: dict[int, int]) -> int:
    """How many values a block holds, shared ones as often as they occur: so often are they copied and printed."""
    if not isinstance(block, (dict, list)):
        return 1
    if id(block) not in known:
        known[id(block)] = 1  # YAML can hold a list inside itself
        known[id(block)] += sum(_values(v, known) for v in (block.values() if isinstance(block, dict) else block))
    return known[id(block)]


def _class_paths(block: Any, where: str) -> Iterator[tuple[str, str]]:
    """Every class that a block names, at any depth, such as a task's losses, and where it stands."""
    waiting, seen = [(where, block)], set()
    while waiting:
        where, value = waiting.pop()
        if id(value) in seen or not isinstance(value, (dict, list)):
            continue
        seen.add(id(value))  # YAML can hold a list inside itself
        if isinstance(value, dict) and isinstance(value.get("class_path"), str):
            yield where, value["class_path"]
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        waiting += [(where if key == "init_args" else f"{where}.{key}", one) for key, one in inner]


def is_native(folder: Path) -> bool:
    """Whether this is a model folder of ours."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()
