"""Loading a network from whatever a user may name: a shipped or published model, a folder, a file or an address."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from upernet.config import InferenceConfig
from upernet.contract import Task
from upernet.errors import UserError, WorkError
from upernet.inference.views import Network
from upernet.model import UPerNet
from upernet.model.build import build_model, build_on_meta, for_inference, without_random_values
from upernet.store.archives import read_safetensors
from upernet.store.exported import is_exported, read_exported
from upernet.store.foreign import read_foreign
from upernet.store.native import CONFIG, WEIGHTS, is_native, read_model_config
from upernet.store.weights import check_tensors, load_weights
from upernet.zoo.fetch import fetch_model, fetch_published
from upernet.zoo.published import find_published
from upernet.zoo.shipped import shipped_models


def open_model(
    model: str | Path | Sequence[str | Path], trust: Sequence[str] = (), mirror: str | None = None
) -> tuple[Network, dict[str, Task], InferenceConfig]:
    """Open a network that only answers: any UPerNet, see `load_model`, or an ONNX file of `upernet export`.

    An exported network runs in ONNX Runtime on the CPU. It cannot be trained or changed.

    Raises:
        UserError: As of `load_model`; if an ONNX file is of other software, or gives no logits; or if a package is
            missing that runs it.
        WorkError: As of `load_model`.
    """
    paths = find_model(model, mirror)
    if len(paths) == 1 and is_exported(paths[0]):
        network, _, tasks, inference = read_exported(paths[0], trust)
        return network, tasks, inference
    return load_model(paths, trust)


def load_model(
    model: str | Path | Sequence[str | Path], trust: Sequence[str] = (), mirror: str | None = None
) -> tuple[UPerNet, dict[str, Task], InferenceConfig]:
    """Open any UPerNet in evaluation mode and float32 on the CPU. Nothing in its files is run.

    Args:
        model: A shipped or published name (`upernet models` lists them), a model folder, a checkpoint of other software
            (file, folder, or the authors' pair of files), or an address: `https://…`, `hf://owner/name`.
        trust: Modules whose tasks may be imported, beside `upernet` and those imported already.
        mirror: Server to download from instead of the address's own host; None for `UPERNET_MIRROR`, if that is set.

    Raises:
        UserError: If there is no such model, it is no UPerNet that can be read, or it names a module that is not
            trusted.
        WorkError: If a file of it is damaged or hostile, or cannot be downloaded.
    """
    paths = find_model(model, mirror)
    exported = next((path for path in paths if is_exported(path)), None)
    if exported is not None:
        raise UserError(f"{exported}: is an exported graph, without a network to change; give the model it was made of")
    if native := len(paths) == 1 and is_native(paths[0]):
        config, tasks, inference, _ = read_model_config(paths[0], trust)
        where, state = str(paths[0] / WEIGHTS), read_safetensors(paths[0] / WEIGHTS)
        described = str(paths[0] / CONFIG)
    else:
        _, reading = read_foreign(paths)
        config, tasks, inference, state = reading.config, reading.tasks, reading.inference, reading.tensors
        where = described = " + ".join(str(path) for path in paths)
    try:
        if native:  # a file that claims a giant network is refused before it takes memory; `read_foreign` did so
            check_tensors(build_on_meta(config, tasks, described), state, where)
        with without_random_values():
            network = build_model(config, tasks)
        load_weights(network, state, where)
    except UserError as error:
        if str(error).startswith((f"{where}: ", f"{described}: ")):
            raise
        raise type(error)(f"{described}: {error}") from error
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise WorkError(f"{described}: no network can be built ({' '.join(str(error).split())})") from error
    return for_inference(network), tasks, inference


def find_model(model: str | Path | Sequence[str | Path], mirror: str | None = None) -> list[Path]:
    """Find the files or the folder of a model, and download them if it is published. See `load_model`.

    Raises:
        UserError: If there is no such model.
        WorkError: If it cannot be downloaded.
    """
    if not isinstance(model, (str, Path)):
        return [path for file in model for path in find_model(file, mirror)]
    if "://" in str(model):
        return [fetch_model(str(model), mirror)]
    if Path(model).exists():
        if (Path(model) / CONFIG).is_file() and not is_native(Path(model)):
            raise UserError(f"{model}: holds {CONFIG}, but no {WEIGHTS} beside it")
        return [Path(model)]
    shipped = shipped_models()
    if str(model) in shipped:
        return [shipped[str(model)]]
    published = find_published(str(model))
    if published is None:
        raise UserError(
            f"{model}: no such model; give a folder with {WEIGHTS} and {CONFIG}, a checkpoint of other software, or "
            f"the name of a shipped model ({', '.join(shipped) or 'none'}) or of a published one "
            "(upernet models lists them)"
        )
    if published.reason is not None:
        raise UserError(
            f"{model}: is published, but cannot be read: {published.reason}; upernet models lists those that can"
        )
    return fetch_published(published, mirror)


def model_card(model: str | Path | Sequence[str | Path], mirror: str | None = None) -> str:
    """The text of the model card beside a model, its `README.md`; empty if there is none."""
    paths = find_model(model, mirror)
    card = paths[0] / "README.md" if len(paths) == 1 else None
    return card.read_text(encoding="utf-8", errors="replace") if card is not None and card.is_file() else ""
