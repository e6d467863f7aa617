"""Checkpoint files written whole or byte by byte, and how they are compared and refused."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from refusals import told_by

from upernet.errors import WorkError
from upernet.store.archives import read_checkpoint

FORMATS = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


def write(path: Path, content: Any, legacy: bool = False, **options: Any) -> Path:
    """The path of a file that torch.save makes, in the format before PyTorch 1.6 if `legacy`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, path, _use_new_zipfile_serialization=not legacy, **options)
    return path


def zip_of(path: Path, pickled: bytes, data: dict[str, bytes] | None = None, **options: Any) -> Path:
    """A zip checkpoint whose pickle is given byte by byte."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("x/data.pkl", pickled)
        archive.writestr("x/byteorder", "little")
        for key, values in (data or {}).items():
            archive.writestr(f"x/data/{key}", values)
    return path


def legacy_of(path: Path, pickled: bytes, tail: bytes = b"") -> Path:
    """The same in the format before PyTorch 1.6; `tail`: its list of storages and their data, none by default."""
    head = b"".join(pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    path.write_bytes(head + pickled + (tail or pickle.dumps([], 2)))
    return path


def same(a: Any, b: Any) -> None:
    """Equal in kind, structure and every number."""
    if isinstance(b, torch.Tensor):
        assert isinstance(a, torch.Tensor) and a.device.type == "cpu" and not a.requires_grad
        assert a.dtype == b.dtype and a.shape == b.shape and a.stride() == b.stride()
        assert torch.equal(a, b.detach())
    elif isinstance(b, np.ndarray):
        assert isinstance(a, np.ndarray) and a.dtype == b.dtype and a.flags.writeable
        assert np.array_equal(a, b)
    elif isinstance(b, dict):
        assert type(a) is dict and list(a) == list(b)
        for key in b:
            same(a[key], b[key])
    elif isinstance(b, list | tuple):
        assert type(a) is (tuple if isinstance(b, tuple) else list) and len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    else:
        assert type(a) is type(b) and a == b


def refusal(path: Path) -> str:
    """The one line with which a file is refused."""
    text = told_by(lambda: read_checkpoint(path), WorkError)
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


def various() -> dict[str, Any]:
    """Every kind of value that comes back as itself."""
    base = torch.arange(24.0)
    shared = [1, 2]
    return {
        "state_dict": torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3)).state_dict(),
        "views": (base, base.view(4, 6).T, base[3:9:2], base.view(2, 3, 4)[1, :, 2]),
        "odd": [torch.tensor(2.5), torch.empty(0), torch.empty(3, 0, 2)],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "size": torch.ones(2, 3).size(),
        "lists": [shared, shared],
        "plain": [None, True, -1, 2**70, 1.5, 2j, "ü\n", b"\x00\xff", (), {1: {2, 3}, (4, "k"): frozenset([5])}],
        "array": np.arange(6, dtype=np.int16).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">i4"),
    }


def named(module: str, name: str, protocol: int = 4) -> bytes:
    """The instructions that push a class or function."""
    if protocol < 4:
        return f"c{module}\n{name}\n".encode()
    return b"".join(b"\x8c" + bytes([len(v)]) + v.encode() for v in (module, name)) + b"\x93"


def pushed(value: Any) -> bytes:
    """The instructions that push a value."""
    return pickle.dumps(value, 2)[2:-1].removesuffix(b"q\x00")


def tensor_pickle(size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, numel: int = 4) -> bytes:
    """`{"x": a float32 tensor in storage 0}`."""
    numbers = [pickle.dumps(v, 2)[2:-1].replace(b"q\x00", b"") for v in (offset, size, stride, numel)]
    storage = b"(\x8c\x07storage" + named("torch", "FloatStorage") + b"\x8c\x010\x8c\x03cpu" + numbers[3] + b"tQ"
    args = b"(" + storage + numbers[0] + numbers[1] + numbers[2] + b"\x89}t"
    return b"\x80\x04}\x8c\x01x" + named("torch._utils", "_rebuild_tensor_v2") + args + b"Rs."
