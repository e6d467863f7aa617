"""A model on disk: a folder with `model.safetensors` and `config.yaml`, nothing executable in either."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from upernet.config import InferenceConfig, ModelConfig, UserError, WorkError, from_class_path, from_plain, to_plain
from upernet.files import write_whole
from upernet.model import UPerNet
from upernet.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS, CONFIG = "model.safetensors", "config.yaml"
SHIPPED = Path(__file__).parent / "shipped"


def shipped_models() -> list[str]:
    """Names of the models inside the package."""
    return sorted(p.parent.name for p in SHIPPED.glob(f"*/{CONFIG}"))


def build_model(config: ModelConfig, tasks: Mapping[str, Task]) -> UPerNet:
    """A network with fresh weights, its tasks introduced to one another."""
    for task in tasks.values():
        task.bind(tasks)
    return UPerNet(config, tasks)


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
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
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


def load_model(name_or_path: str | Path, trust: Sequence[str] = ()) -> tuple[UPerNet, dict[str, Task], InferenceConfig]:
    """Read a model folder, or a model that ships inside the package, in evaluation mode and float32 on the CPU.

    Args:
        name_or_path: A shipped name or a model folder.
        trust: Modules whose tasks may be imported, beside `upernet` and those imported already.

    Raises:
        UserError: If there is no such model, or it names a module that is not trusted.
        WorkError: If a file of it is damaged.
    """
    folder = find_model(name_or_path)
    config, tasks, inference = read_model_config(folder, trust)
    try:
        model = build_model(config, tasks)
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise WorkError(f"{folder / CONFIG}: no network can be built ({' '.join(str(error).split())})") from error
    load_weights(model, folder / WEIGHTS)
    return model.eval(), tasks, inference


def read_model_config(folder: Path, trust: Sequence[str] = ()) -> tuple[ModelConfig, dict[str, Task], InferenceConfig]:
    """What a model folder's `config.yaml` says; see `load_model`."""
    path = folder / CONFIG
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise WorkError(f"{path}: no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict) or "model" not in content or not isinstance(content.get("tasks"), dict):
        raise WorkError(f"{path}: expected the keys model and tasks")
    for name, spec in content["tasks"].items():
        class_path = spec.get("class_path") if isinstance(spec, dict) else None
        if not isinstance(class_path, str):
            raise WorkError(f"{path}: tasks.{name}: expected class_path, found {spec!r}")
        module = class_path.rpartition(".")[0]
        # Importing runs a module: a stranger's file must not choose which.
        if module.split(".")[0] not in ("upernet", *trust) and module not in sys.modules:
            raise UserError(f"{path}: tasks.{name} comes from module {module!r}; if you trust it, --trust {module}")
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


def load_weights(model: UPerNet, path: Path, *, partial: bool = False) -> None:
    """Fill a network from a safetensors file.

    Args:
        model: The network.
        path: The file.
        partial: Leave out heads that only one side has, or that differ in shape; everything else must match.

    Raises:
        WorkError: If the file is damaged or its tensors are not the network's.
    """
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WorkError(f"{path}: no readable safetensors file ({error})") from error
    own = model.state_dict()
    if partial:
        fits = {k for k in state if k in own and own[k].shape == state[k].shape}
        heads = {k.split(".")[1] for k in (own.keys() | state.keys()) - fits if k.startswith("heads.")}
        state = {k: v for k, v in state.items() if not (k.startswith("heads.") and k.split(".")[1] in heads)}
        state |= {k: v for k, v in own.items() if k.startswith("heads.") and k.split(".")[1] in heads}
    wrong = sorted(own.keys() ^ state.keys()) or [k for k in own if own[k].shape != state[k].shape]
    if wrong:
        raise WorkError(f"{path}: {len(wrong)} tensors do not fit the network of {CONFIG}, first {wrong[0]!r}")
    model.load_state_dict(state)


def find_model(name_or_path: str | Path) -> Path:
    """The folder of a model given by path or by the name of a shipped one.

    Raises:
        UserError: If there is none.
    """
    for folder in (Path(name_or_path), SHIPPED / str(name_or_path)):
        if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
            return folder
    if "://" in str(name_or_path):
        raise UserError(f"{name_or_path}: addresses are not read; download the model folder and give its path")
    shipped = ", ".join(shipped_models()) or "none"
    raise UserError(
        f"{name_or_path}: no model; give a folder with {WEIGHTS} and {CONFIG}, or a shipped name ({shipped})"
    )
