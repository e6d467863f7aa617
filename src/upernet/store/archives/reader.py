"""The public functions. They open a file, find its format, and turn any error into one line with the file's name."""

from __future__ import annotations

from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import Any

from torch import Tensor

from upernet.errors import UserError, WorkError
from upernet.store.archives.descriptions import RefusedError
from upernet.store.archives.json_format import parse_index, parse_settings
from upernet.store.archives.legacy_format import read_legacy
from upernet.store.archives.safetensors_format import read_tensors
from upernet.store.archives.zip_format import read_zip


def read_checkpoint(path: str | Path) -> Any:
    """Read the content of a checkpoint file onto the CPU, without executing anything in it.

    Args:
        path: A file of `torch.save`, in today's zip format or the one before PyTorch 1.6, or a safetensors file. The
            format is found from the content, not from the name.

    Returns:
        Nested dicts, lists, tuples, plain values, tensors and numpy arrays. Ordered and default dicts are dicts,
        parameters and storages are tensors, devices are strings, objects of unknown classes are `Placeholder`s.
        Tensors share memory where the saved ones did.

    Raises:
        UserError: If there is no such file.
        WorkError: If it is damaged, is no checkpoint, or asks for what no checkpoint needs.
    """
    return _opened(Path(path), _read)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file by name, on the CPU.

    Raises:
        UserError: If there is no such file.
        WorkError: If it is no safetensors file, is damaged, or claims what no UPerNet has.
    """
    tensors: dict[str, Tensor] = _opened(path, read_tensors)
    return tensors


def read_index(path: Path) -> list[Path]:
    """The files of a checkpoint that is split by an index (`….index.json`), each once; they are not opened.

    Raises:
        UserError: If there is no such file.
        WorkError: If it is no index, or names anything but files in its own folder.
    """
    files: list[Path] = _opened(path, parse_index)
    return files


def read_settings(path: Path) -> dict[str, Any]:
    """Read a JSON file that describes a checkpoint.

    Raises:
        UserError: If there is no such file.
        WorkError: If it holds no mapping, holds a key twice, or is longer than any description.
    """
    settings: dict[str, Any] = _opened(path, parse_settings)
    return settings


def _opened(path: Path, read: Callable[[Path, BufferedReader], Any]) -> Any:
    """The result of `read` on a file. Whatever it raises becomes one error line."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the checkpoint file, such as {path / 'checkpoint.pth'}")
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: is a device or pipe; give a file")  # to open a pipe may block forever
    try:
        file = path.open("rb")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({_line(getattr(error, 'strerror', None) or error)})") from error
    with file:
        try:
            return read(path, file)
        except RefusedError as error:
            raise WorkError(f"{path}: {_line(error)}") from error
        # Damage can raise nearly any exception, of zipfile, struct, codecs, numpy, torch, or for lack of memory.
        except Exception as error:
            raise WorkError(f"{path}: damaged, or no checkpoint ({type(error).__name__}: {_line(error)})") from error


def _line(value: object) -> str:
    text = " ".join(str(value)[:1000].split())
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 300 else text[:300] + "…"


def _read(path: Path, file: BufferedReader) -> Any:
    size = file.seek(0, 2)
    file.seek(0)
    start = file.read(512)
    file.seek(0)
    if not start:
        raise RefusedError("is empty")
    if start.startswith(b"PK\x03\x04"):
        return read_zip(file, size)
    is_safetensors = start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= size - 8
    if not is_safetensors and start.lstrip().startswith(b"<"):
        raise RefusedError("is a web page, not a checkpoint; the download failed, fetch it again")
    if start.startswith(b"version https://git-lfs"):
        raise RefusedError("is a pointer of Git LFS, not the checkpoint itself; fetch it with git lfs pull")
    if is_safetensors or (path.suffix == ".safetensors" and start[0] != 0x80):
        return read_tensors(path, file)
    if start[0] != 0x80:
        raise RefusedError(f"no checkpoint: starts with {start[:8]!r}, expected a file of torch.save or safetensors")
    return read_legacy(file, size)
