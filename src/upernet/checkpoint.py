"""A model on disk: a folder with `model.safetensors` and `config.yaml`, nothing executable in either.

What other software wrote is opened too, by way of `upernet.dialects`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
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


def plain_state(model: UPerNet) -> dict[str, Tensor]:
    """Its tensors by name on the CPU, ready to be written."""
    return {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}


def _to_half(name: str, value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value
    half = value.half()
    if not torch.isfinite(half).all():
        raise UserError(
            f"{name}: largest value {value.abs().max().item():.3g} does not fit float16; save with half=False"
        )
    return half


def load_model(
    model: str | Path | Sequence[str | Path], trust: Sequence[str] = (), mirror: str | None = None
) -> tuple[UPerNet, dict[str, Task], InferenceConfig]:
    """Open any UPerNet in evaluation mode and float32 on the CPU. Nothing in its files is run.

    Args:
        model: A shipped or published name (`upernet models` lists them), a model folder, a checkpoint of other software
            (file, folder, or the authors' pair of files), or an address: `https://…`, `hf://owner/name`.
        trust: Modules whose tasks may be imported, beside `upernet` and those imported already.
        mirror: Where to download from instead of the address's own host; `UPERNET_MIRROR` if none.

    Raises:
        UserError: If there is no such model, its network is none of ours, or it names a module that is not trusted.
        WorkError: If a file of it is damaged or hostile, or cannot be downloaded.
    """
    paths = find_model(model, mirror)
    if len(paths) == 1 and is_native(paths[0]):
        config, tasks, inference = read_model_config(paths[0], trust)
        where, state = str(paths[0] / WEIGHTS), _read_weights(paths[0] / WEIGHTS)
        described = str(paths[0] / CONFIG)
    else:
        from upernet.dialects import read_foreign

        _, reading = read_foreign(paths)
        config, tasks, inference, state = reading.config, reading.tasks, reading.inference, reading.tensors
        where = described = " + ".join(str(path) for path in paths)
    try:
        with torch.device("meta"):  # a file that claims a giant is told before memory is taken
            _check_fits(build_model(config, tasks).state_dict(), state, where)
        network = build_model(config, tasks)
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise WorkError(f"{described}: no network can be built ({' '.join(str(error).split())})") from error
    fill(network, state, where)
    return network.eval(), tasks, inference


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


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WorkError(f"{path}: no readable safetensors file ({error})") from error


def fill(model: UPerNet, state: Mapping[str, Tensor], where: str, *, partial: bool = False) -> None:
    """Give a network its weights; every tensor on either side must have its place.

    Args:
        model: The network.
        state: Tensors in its names. Counts of batches may be missing: old files have none.
        where: What they were read from, for the error line.
        partial: Leave out heads that only one side has, or that differ in shape; everything else must match.

    Raises:
        WorkError: If the tensors are not the network's.
    """
    own = model.state_dict()
    state = _with_counts(own, state)
    if partial:
        fits = {k for k in state if k in own and own[k].shape == state[k].shape}
        heads = {k.split(".")[1] for k in (own.keys() | state.keys()) - fits if k.startswith("heads.")}
        state = {k: v for k, v in state.items() if not (k.startswith("heads.") and k.split(".")[1] in heads)}
        state |= {k: v for k, v in own.items() if k.startswith("heads.") and k.split(".")[1] in heads}
    _check_fits(own, state, where)
    model.load_state_dict(state)


def _with_counts(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in own.items() if k.endswith(".num_batches_tracked")} | dict(state)


def _check_fits(own: Mapping[str, Tensor], state: Mapping[str, Tensor], where: str) -> None:
    state = _with_counts(own, state)
    wrong = sorted(own.keys() ^ state.keys()) or [k for k in own if own[k].shape != state[k].shape]
    if wrong:
        raise WorkError(f"{where}: {len(wrong)} tensors do not fit the network, first {wrong[0]!r}")


def is_native(folder: Path) -> bool:
    """Whether this is a model folder of ours."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def find_model(model: str | Path | Sequence[str | Path], mirror: str | None = None) -> list[Path]:
    """The files or the folder of a model; those that are published are downloaded first. See `load_model`.

    Raises:
        UserError: If there is none.
        WorkError: If it cannot be downloaded.
    """
    from upernet.download import fetch_model
    from upernet.zoo import find_published

    if not isinstance(model, (str, Path)):
        return [path for one in model for path in find_model(one, mirror)]
    if "://" in str(model):
        return [fetch_model(str(model), mirror)]
    if is_native(SHIPPED / str(model)) and not Path(model).exists():
        return [SHIPPED / str(model)]
    if Path(model).exists():
        if (Path(model) / CONFIG).is_file() and not is_native(Path(model)):
            raise UserError(f"{model}: holds {CONFIG}, but no {WEIGHTS} beside it")
        return [Path(model)]
    published = find_published(str(model))
    if published is None:
        shipped = ", ".join(shipped_models()) or "none"
        raise UserError(
            f"{model}: no model; give a folder with {WEIGHTS} and {CONFIG}, a checkpoint of other software, or a name: "
            f"shipped inside is {shipped}, upernet models lists what is published"
        )
    if published.reason is not None:
        raise UserError(f"{model}: published, but not read: {published.reason}; upernet models lists those that are")
    return [fetch_model(address, mirror) for address in published.addresses]
