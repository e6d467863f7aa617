"""A model on disk: a folder with `model.safetensors` and `config.yaml`, nothing executable in either.

What other software wrote is opened too, by way of `upernet.dialects`.
"""

from __future__ import annotations

import reprlib
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from safetensors.torch import save
from torch.nn.modules.module import register_module_module_registration_hook

from upernet.config import InferenceConfig, ModelConfig, UserError, WorkError, from_class_path, from_plain, to_plain
from upernet.files import write_whole
from upernet.model import UPerNet
from upernet.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS, CONFIG = "model.safetensors", "config.yaml"
SHIPPED = Path(__file__).parent / "shipped"
MODULES = 20_000
"""Most modules of a network; the largest backbones have some 2,000."""
VALUES = 1_000_000
"""Most values in a `config.yaml`."""
DERIVED_BYTES = 2**28
"""Most bytes of what a network computes and does not store, such as a Swin's indices and masks of windows."""


def shipped_models() -> list[str]:
    """Names of the models inside the package."""
    return sorted(p.parent.name for p in SHIPPED.glob(f"*/{CONFIG}"))


def build_model(config: ModelConfig, tasks: Mapping[str, Task]) -> UPerNet:
    """A network with fresh weights, its tasks introduced to one another.

    Raises:
        UserError: If there is no such network.
        WorkError: If it would have more modules than any.
    """
    for task in tasks.values():
        task.bind(tasks)
    with _few_modules():
        return UPerNet(config, tasks)


@contextmanager
def _few_modules() -> Iterator[None]:
    """Stop at the first module too many: a few bytes can ask for millions, which take memory without any weights."""
    thread, count = threading.get_ident(), 0

    def one_more(*_: Any) -> None:
        nonlocal count
        count += threading.get_ident() == thread  # the hook hears of every module of the process
        if count > MODULES:
            raise WorkError(f"asks for a network of more than {MODULES} modules; it may be hostile")

    hook = register_module_module_registration_hook(one_more)
    try:
        yield
    finally:
        hook.remove()


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
    if native := len(paths) == 1 and is_native(paths[0]):
        from upernet.dialects.archive import read_safetensors

        config, tasks, inference = read_model_config(paths[0], trust)
        where, state = str(paths[0] / WEIGHTS), read_safetensors(paths[0] / WEIGHTS)
        described = str(paths[0] / CONFIG)
    else:
        from upernet.dialects import read_foreign

        _, reading = read_foreign(paths)
        config, tasks, inference, state = reading.config, reading.tasks, reading.inference, reading.tensors
        where = described = " + ".join(str(path) for path in paths)
    try:
        if native:  # a file that claims a giant is told before memory is taken; those of others have been by now
            _check_fits(plan_model(config, tasks, described).state_dict(), state, where)
        network = build_model(config, tasks)
        fill(network, state, where)
    except UserError as error:
        if str(error).startswith((f"{where}: ", f"{described}: ")):
            raise
        raise type(error)(f"{described}: {error}") from error
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise WorkError(f"{described}: no network can be built ({' '.join(str(error).split())})") from error
    return as_run(network), tasks, inference


def as_run(network: UPerNet) -> UPerNet:
    """The same network in evaluation mode, channels innermost in memory, as those of `network_input` are.

    In another layout every convolution would copy what it reads, the largest map of all among it.
    """
    return network.eval().to(memory_format=torch.channels_last)


def plan_model(config: ModelConfig, tasks: Mapping[str, Task], where: str) -> UPerNet:
    """A network without memory, to compare what a file holds with.

    Raises:
        UserError: If there is no such network.
        WorkError: If it would have more modules than any, or derive larger tables: a file pays for the tensors it
            holds, but not for what a network computes from their shapes.
    """
    with torch.device("meta"):
        model = build_model(config, tasks)
    stored = model.state_dict()
    derived = {name: table.nbytes for name, table in model.named_buffers() if name not in stored}
    if sum(derived.values()) > DERIVED_BYTES:
        largest = max(derived, key=derived.__getitem__)
        raise WorkError(
            f"{where}: implies tables of {sum(derived.values())} bytes, the largest {largest!r}; "
            f"no UPerNet has more than {DERIVED_BYTES}"
        )
    return model


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
