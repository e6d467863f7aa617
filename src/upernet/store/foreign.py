"""Models of other software: reading them, by the names of their tensors, and writing ours for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import torch
from safetensors.torch import save

from upernet.config import InferenceConfig
from upernet.contract import Task
from upernet.errors import UserError, WorkError
from upernet.files import write_whole
from upernet.model import UPerNet
from upernet.model.build import build_on_meta
from upernet.plain import to_plain
from upernet.store.checkpoints import WEIGHTS, open_checkpoint
from upernet.store.dialects import csail, huggingface, mmseg, smp
from upernet.store.dialects.backbones import computes_the_same
from upernet.store.dialects.base import Checkpoint, Dialect, Reading
from upernet.store.dialects.keys import first_few
from upernet.store.weights import check_tensors

DIALECTS = cast("tuple[Dialect, ...]", (mmseg, huggingface, smp, csail))


def read_foreign(paths: Sequence[Path]) -> tuple[str, Reading]:
    """Read one model of other software, and find out which software wrote it.

    Args:
        paths: A checkpoint file, a folder of one, or the authors' encoder and decoder files in any order.

    Returns:
        The dialect's name, and the model in our terms.

    Raises:
        UserError: If there is no checkpoint, or it is no UPerNet of a known software.
        WorkError: If a file is damaged or hostile, or a tensor has no place in the network.
    """
    checkpoint = open_checkpoint(paths)
    keys, name = set(checkpoint.tensors), checkpoint.name
    for dialect in DIALECTS:
        if dialect.matches(keys):
            try:
                reading = dialect.read(checkpoint)
                network = build_on_meta(reading.config, reading.tasks, name)
                check_tensors(network, reading.tensors, name, reading.named)
            except UserError as error:
                if str(error).startswith(f"{name}: "):
                    raise
                raise type(error)(f"{name}: {error}") from error
            except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
                reason = " ".join(f"{type(error).__name__} {error}".split())
                raise WorkError(
                    f"{name}: looks like a file of {dialect.SOFTWARE}, but is damaged ({reason})"
                ) from error
            return dialect.NAME, reading
    known = ", ".join(dialect.SOFTWARE for dialect in DIALECTS)
    raise UserError(
        f"{name}: its tensors ({first_few(keys) or 'none'}) are not those of a UPerNet; valid: files of {known}"
    )


def write_foreign(target: Path, to: str, model: UPerNet, tasks: Mapping[str, Task], inference: InferenceConfig) -> None:
    """Write a model in the form that other software reads. It is read back first and must give the same network.

    Args:
        target: A `.pth` file for `mmseg`, otherwise a folder, which is made if missing.
        to: `mmseg`, `huggingface` or `smp`.
        model: The network.
        tasks: Its tasks by name.
        inference: How photographs are resized for it.

    Raises:
        UserError: If that software has no such network.
        WorkError: If reading the result back gives other tensors.
    """
    dialect = {"mmseg": mmseg, "huggingface": huggingface, "smp": smp}[to]
    tensors, settings = dialect.write(model, tasks, inference)
    extra: dict[str, Any] = {"meta": settings} if dialect is mmseg else {"settings": settings}
    reread = dialect.read(Checkpoint(target.name, tensors, **extra))
    config, other = model.config, reread.config
    if not computes_the_same(config.backbone, config.backbone_args, other.backbone, other.backbone_args):
        raise UserError(
            f"{to}: cannot hold backbone {config.backbone!r} with {config.backbone_args}; "
            f"it would be read as {other.backbone!r} with {other.backbone_args}"
        )
    ours, theirs = to_plain(config), to_plain(other)
    for key in theirs.keys() - {"backbone", "backbone_args", "logits_align_corners"}:
        if not _same(theirs[key], ours[key]):
            raise UserError(f"{to}: cannot hold {key} {ours[key]!r}; it would be read as {theirs[key]!r}")
    if other.upsampling_align_corners != config.upsampling_align_corners:
        raise UserError(f"{to}: resizes logits with another align_corners than this model")
    own = model.state_dict()
    if own.keys() != reread.tensors.keys() or any(not torch.equal(v.cpu(), reread.tensors[k]) for k, v in own.items()):
        raise WorkError(f"{to}: reading the result back does not give the same tensors; nothing was written")
    if dialect is mmseg:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, partial(torch.save, {"meta": settings, "state_dict": tensors}))
        return
    target.mkdir(parents=True, exist_ok=True)
    for name, content in settings.items():
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        write_whole(target / name, partial(_put, text.encode()))
    write_whole(target / WEIGHTS[0], partial(_put, save(tensors, {"format": "pt"})))


def _same(a: Any, b: Any) -> bool:
    """Whether two plain values are equal, numbers up to the digits with which settings are written."""
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return all(_same(x, y) for x, y in zip(a, b, strict=True))
    return a == b or (isinstance(a, float) and isinstance(b, float) and abs(a - b) < 1e-8)


def _put(content: bytes, file: IO[bytes]) -> None:
    file.write(content)
