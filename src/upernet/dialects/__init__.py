"""Checkpoints of other software: opened without running anything, and understood by the names of their tensors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import torch
from safetensors.torch import save
from torch import Tensor

from upernet.checkpoint import plan_model
from upernet.config import InferenceConfig, UserError, WorkError, to_plain
from upernet.dialects import csail, huggingface, mmseg, smp
from upernet.dialects.archive import read_checkpoint, read_index, read_settings
from upernet.dialects.backbones import same_answers
from upernet.dialects.base import Checkpoint, Dialect, Reading
from upernet.dialects.keys import some
from upernet.download import file_hash, published_hash
from upernet.files import write_whole
from upernet.model import UPerNet
from upernet.tasks.base import Task

DIALECTS = cast("tuple[Dialect, ...]", (mmseg, huggingface, smp, csail))

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_PAIR = re.compile(r"(encoder|decoder)_epoch_(\d+)\.pth")
# Where training loops put the state dict, and what wrappers put before its names.
_INSIDE = ("state_dict", "model_state_dict", "model", "module")
_WRAPPERS = ("module.", "model.", "_orig_mod.")


def read_foreign(paths: Sequence[Path]) -> tuple[str, Reading]:
    """Open one model of other software and say which.

    Args:
        paths: A checkpoint file, a folder of one, or the authors' encoder and decoder files in any order.

    Returns:
        The dialect's name, and the model in our terms.

    Raises:
        UserError: If there is no checkpoint, or its network is none of ours.
        WorkError: If a file is damaged, hostile, or a tensor has no place.
    """
    checkpoint = open_checkpoint(paths)
    keys, name = set(checkpoint.tensors), checkpoint.name
    for dialect in DIALECTS:
        if dialect.matches(keys):
            try:
                reading = dialect.read(checkpoint)
                _check_fits(reading, name)
            except UserError as error:
                if str(error).startswith(f"{name}: "):
                    raise
                raise type(error)(f"{name}: {error}") from error
            except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
                said = " ".join(f"{type(error).__name__} {error}".split())
                raise WorkError(f"{name}: looks like one of {dialect.SOFTWARE}, but is damaged ({said})") from error
            return dialect.NAME, reading
    known = ", ".join(dialect.SOFTWARE for dialect in DIALECTS)
    raise UserError(f"{name}: no UPerNet by its tensors ({some(keys) or 'none'}); read are those of {known}")


def _check_fits(reading: Reading, where: str) -> None:
    """Compare the tensors with the network's, which is built without memory, and tell differences in the file's names.

    Raises:
        WorkError: If one is missing, has no place, or another shape, or the network would be none of a UPerNet's size.
            Counts of batches may be missing: old files have none.
    """
    own = plan_model(reading.config, reading.tasks, where).state_dict()
    found, named = reading.tensors, reading.named
    wrong = [f"{named(k)} is missing" for k in own if k not in found and not k.endswith(".num_batches_tracked")]
    wrong += [f"{named(k)} has no place" for k in found if k not in own]
    for key in own.keys() & found.keys():
        here, there = list(own[key].shape), list(found[key].shape)
        wrong += [f"{named(key)} is {there} instead of {here}"] if here != there else []
    if wrong:
        config = reading.config
        network = f"{config.backbone} {config.backbone_args or ''}".strip()
        raise WorkError(
            f"{where}: {len(wrong)} tensors do not fit the network, width {config.width} on {network}: {some(wrong)}"
        )


def write_foreign(place: Path, to: str, model: UPerNet, tasks: Mapping[str, Task], inference: InferenceConfig) -> None:
    """Write a model as other software reads it, once reading it back has given the same network.

    Args:
        place: A `.pth` file for `mmseg`; else a folder that does not exist yet.
        to: `mmseg`, `huggingface` or `smp`.
        model: The network.
        tasks: Its tasks by name.
        inference: How photographs reach it.

    Raises:
        UserError: If that software has no such network.
    """
    dialect = {"mmseg": mmseg, "huggingface": huggingface, "smp": smp}[to]
    tensors, said = dialect.write(model, tasks, inference)
    beside: dict[str, Any] = {"meta": said} if dialect is mmseg else {"settings": said}
    again = dialect.read(Checkpoint(place.name, tensors, **beside))
    config, found = model.config, again.config
    if not same_answers(config.backbone, config.backbone_args, found.backbone, found.backbone_args):
        raise UserError(
            f"{to}: cannot hold backbone {config.backbone!r} with {config.backbone_args}; "
            f"it would be read as {found.backbone!r} with {found.backbone_args}"
        )
    ours, theirs = to_plain(config), to_plain(found)
    for key in theirs.keys() - {"backbone", "backbone_args", "logits_align_corners"}:
        if not _same(theirs[key], ours[key]):
            raise UserError(f"{to}: cannot hold {key} {ours[key]!r}; it would be read as {theirs[key]!r}")
    if again.config.corners_of_logits != model.config.corners_of_logits:
        raise UserError(f"{to}: brings logits to size with other align_corners than this model")
    own = model.state_dict()
    if own.keys() != again.tensors.keys() or any(not torch.equal(v.cpu(), again.tensors[k]) for k, v in own.items()):
        raise WorkError(f"{to}: reading the result back does not give the same tensors; nothing was written")
    if dialect is mmseg:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, partial(torch.save, {"meta": said, "state_dict": tensors}))
        return
    place.mkdir(parents=True, exist_ok=True)
    for name, content in said.items():
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        write_whole(place / name, partial(_put, text.encode()))
    write_whole(place / _WEIGHTS[0], partial(_put, save(tensors, {"format": "pt"})))


def _same(a: Any, b: Any) -> bool:
    """Equal, numbers to the digits that settings are written with."""
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return all(_same(x, y) for x, y in zip(a, b, strict=True))
    return a == b or (isinstance(a, float) and isinstance(b, float) and abs(a - b) < 1e-8)


def _put(content: bytes, file: IO[bytes]) -> None:
    file.write(content)


def open_checkpoint(paths: Sequence[Path]) -> Checkpoint:
    """Tensors and plain values of one model's files; nothing in them is run.

    Raises:
        UserError: If there is nothing to read.
        WorkError: If a file is damaged or hostile, or not the published one its name says.
    """
    files: list[Path] = []
    settings: dict[str, dict[str, Any]] = {}
    for path in paths:
        if path.is_dir():
            files += _in_folder(path)
            settings |= _json_files(path)
        else:
            files.append(path)
            if path.name in _WEIGHTS:
                settings |= _json_files(path.parent)
    name = " + ".join(str(file) for file in files)
    tensors: dict[str, Tensor] = {}
    meta: dict[str, Any] = {}
    for file in files:
        _check_published(file)
        content = read_checkpoint(file)
        found = _state_dict(content, file)
        half = _authors_half(found.keys())
        found = {half + k: v for k, v in found.items()}
        if twice := tensors.keys() & found.keys():
            raise UserError(f"{name}: both hold {some(twice)}; give the files of one model")
        tensors |= found
        if isinstance(content, dict) and isinstance(content.get("meta"), dict):
            meta |= content["meta"]
    return Checkpoint(name, tensors, meta, settings)


def _in_folder(folder: Path) -> list[Path]:
    """The weight files of one model in a folder.

    Raises:
        UserError: If there are none, or of several models.
        WorkError: If an index names anything else than files beside it.
    """
    whole = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
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
        raise UserError(f"{folder}: holds epochs {', '.join(sorted(epochs, key=int))}; give the two files of one")
    single = sorted(p for p in folder.iterdir() if p.suffix in (".pth", ".pt", ".safetensors"))
    if len(single) == 1:
        return single
    raise UserError(
        f"{folder}: {len(single) or 'no'} checkpoint files; give one file, or a folder with {' or '.join(_WEIGHTS)}"
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
    found = file_hash(path)
    if not found.startswith(expected):
        raise WorkError(
            f"{path}: its sha256 begins with {found[:8]}, the published one with {expected}; download it again, "
            "or rename it if it is meant to differ"
        )


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors by name, wherever the file keeps them.

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
        raise WorkError(f"{path}: holds no state dict, names with tensors")
    if others := [f"{k} ({type(v).__name__})" for k, v in tensors.items() if k not in named]:
        raise WorkError(
            f"{path}: {len(others)} of {len(tensors)} entries of its state dict are no tensors: {some(others)}"
        )
    for _ in _WRAPPERS:  # each may be there once, and what a training loop keeps beside the network has none
        prefix = next((w for w in _WRAPPERS if sum(k.startswith(w) for k in named) > len(named) / 2), "")
        if twice := [k for k in named if prefix and k.startswith(prefix) and k.removeprefix(prefix) in named]:
            raise WorkError(f"{path}: holds {some(twice)} with and without {prefix!r}; one of them is valid")
        named = {k.removeprefix(prefix): v for k, v in named.items()}
    return named


def _authors_half(keys: Any) -> str:
    """What to put before the names of one of the authors' two files."""
    if all(re.match(r"(conv[123]|bn[123]|layer[1-4])\.", k) for k in keys):
        return "encoder."
    return "decoder." if any(k.startswith("ppm_last_conv.") for k in keys) else ""
