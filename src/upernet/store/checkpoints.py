"""The files of one model of other software, opened but not yet interpreted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from upernet.errors import UserError, WorkError
from upernet.store.archives import read_checkpoint, read_index, read_settings
from upernet.store.dialects.base import Checkpoint
from upernet.store.dialects.keys import first_few
from upernet.zoo.download import file_hash, published_hash

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_PAIR = re.compile(r"(encoder|decoder)_epoch_(\d+)\.pth")
# Keys under which training loops store the state dict, and prefixes that wrappers put before its names.
_INSIDE = ("state_dict", "model_state_dict", "model", "module")
_WRAPPERS = ("module.", "model.", "_orig_mod.")


def open_checkpoint(paths: Sequence[Path]) -> Checkpoint:
    """Read the tensors and plain values of one model's files; nothing in them is run.

    Raises:
        UserError: If there is nothing to read.
        WorkError: If a file is damaged or hostile, or is not the published file that its name claims.
    """
    files: list[Path] = []
    settings: dict[str, dict[str, Any]] = {}
    for path in paths:
        if path.is_dir():
            files += _in_folder(path)
            settings |= _json_files(path)
        else:
            files.append(path)
            if path.name in WEIGHTS:
                settings |= _json_files(path.parent)
    name = " + ".join(str(file) for file in files)
    tensors: dict[str, Tensor] = {}
    meta: dict[str, Any] = {}
    for file in files:
        _check_published(file)
        content = read_checkpoint(file)
        state = _state_dict(content, file)
        prefix = _authors_prefix(state.keys())
        state = {prefix + k: v for k, v in state.items()}
        if twice := tensors.keys() & state.keys():
            raise UserError(f"{name}: both hold {first_few(twice)}; give the files of one model")
        tensors |= state
        if isinstance(content, dict) and isinstance(content.get("meta"), dict):
            meta |= content["meta"]
    return Checkpoint(name, tensors, meta, settings)


def _in_folder(folder: Path) -> list[Path]:
    """The weight files of one model in a folder.

    Raises:
        UserError: If there are none, or they belong to several models.
        WorkError: If an index names anything but files in its own folder.
    """
    whole = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    if whole:
        return whole[:1]
    for index in _INDICES:
        if (folder / index).is_file():
            return read_index(folder / index)
    pairs = [p for p in sorted(folder.iterdir()) if _PAIR.fullmatch(p.name)]
    epochs = {m[2] for p in pairs if (m := _PAIR.fullmatch(p.name))}
    if len(epochs) == 1:
        return pairs
    if epochs:
        raise UserError(f"{folder}: holds epochs {', '.join(sorted(epochs, key=int))}; give the two files of one epoch")
    single = sorted(p for p in folder.iterdir() if p.suffix in (".pth", ".pt", ".safetensors"))
    if len(single) == 1:
        return single
    raise UserError(
        f"{folder}: {len(single) or 'no'} checkpoint files; give one file, or a folder with {' or '.join(WEIGHTS)}"
    )


def _json_files(folder: Path) -> dict[str, dict[str, Any]]:
    names = ("config.json", "preprocessor_config.json")
    return {name: read_settings(folder / name) for name in names if (folder / name).is_file()}


def _check_published(path: Path) -> None:
    """Compare a file with the sha256 prefix that its name carries, as published ones do.

    Raises:
        WorkError: If they differ.
    """
    expected = published_hash(path.name)
    if expected is None or not path.is_file():
        return
    actual = file_hash(path)
    if not actual.startswith(expected):
        raise WorkError(
            f"{path}: its sha256 begins with {actual[:8]}, the published one with {expected}; download it again, "
            "or rename it if it is meant to differ"
        )


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors by name, under whatever key the file stores them.

    Raises:
        WorkError: If there is no state dict, or one of its entries is no tensor.
    """
    for _ in range(3):
        if not isinstance(content, Mapping):
            break
        inside = next((content[k] for k in _INSIDE if isinstance(content.get(k), Mapping)), None)
        if inside is None:
            break
        content = inside
    tensors = content if isinstance(content, Mapping) else {}
    named = {k: v for k, v in tensors.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}
    if not named:
        raise WorkError(f"{path}: holds no state dict; expected a file of tensors by name")
    if others := [f"{k} ({type(v).__name__})" for k, v in tensors.items() if k not in named]:
        raise WorkError(
            f"{path}: {len(others)} of {len(tensors)} entries of its state dict are no tensors: {first_few(others)}"
        )
    for _ in _WRAPPERS:  # each may occur once; entries that a training loop keeps beside the network have none
        prefix = next((w for w in _WRAPPERS if sum(k.startswith(w) for k in named) > len(named) / 2), "")
        if twice := [k for k in named if prefix and k.startswith(prefix) and k.removeprefix(prefix) in named]:
            raise WorkError(
                f"{path}: holds {first_few(twice)} with and without {prefix!r}; only one of them can be valid"
            )
        named = {k.removeprefix(prefix): v for k, v in named.items()}
    return named


def _authors_prefix(keys: Any) -> str:
    """The prefix for the names in one of the authors' two files, or nothing for names of other files."""
    if all(re.match(r"(conv[123]|bn[123]|layer[1-4])\.", k) for k in keys):
        return "encoder."
    return "decoder." if any(k.startswith("ppm_last_conv.") for k in keys) else ""
