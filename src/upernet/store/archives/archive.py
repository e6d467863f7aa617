"""PyTorch checkpoint files read without executing anything they hold.

A file's structure is checked first: no entry may be compressed, shared or longer than the file. Its pickle becomes
descriptions, by `pickles`. What those claim of tensors and arrays is compared with what the file holds and with what a
UPerNet could need, and only when all of it fits are tensors made. A safetensors file is checked by its header.
"""

from __future__ import annotations

import json
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Callable
from io import BufferedReader, BytesIO
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from upernet.errors import UserError, WorkError
from upernet.store.archives.pickles import (
    PICKLE_BYTES,
    PICKLE_STEPS,
    Array,
    Pickle,
    Placeholder,
    RefusedError,
    TensorView,
    sizes,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Placeholder", "read_checkpoint", "read_index", "read_safetensors", "read_settings"]

DEPTH = 64
"""Deepest nesting of containers."""
EXPANSION = 8
"""Bytes of all tensors and arrays together, as a multiple of the file's size; above 1 for weights that are shared."""
TENSORS = 2**16
"""Most tensors and arrays of a file; a UPerNet has about a thousand, its optimiser two more for each."""
SIDE = 2**15
"""Largest size in a dimension of a tensor that has several, or is empty: each class that it stands for takes a name and
a colour, which no data in the file pay for. The largest of a UPerNet is 8192."""
LISTING_BYTES = 2**24
"""Longest list of what a file holds: a zip's entries, a safetensors header, an index of shards."""
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

_PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray, torch.dtype)
_OPEN = object()
_NUMERIC = re.compile(r"[biufc]\d{1,2}|\?")
_SAFETENSORS = re.compile(r"BOOL|[IU](8|16|32|64)|F(16|32|64)|BF16|F8_E[45]M[23]|C64")
_WEIGHT = re.compile(
    r"(weight|bias|bias_table|running_mean|running_var|gamma|layer_scale_parameter|position_embeddings?)$"
)
"""Ends of the names that parameters and running statistics have; masks, logs and an optimiser's state have others."""
_SHARD = re.compile(r"\w[\w.+-]{0,200}", re.ASCII)


def read_checkpoint(path: str | Path) -> Any:
    """Whatever a checkpoint file holds, on the CPU, with nothing of it executed.

    Args:
        path: A file of `torch.save`, of today's zip format or the one before PyTorch 1.6, or a safetensors file. Its
            content decides which, not its name.

    Returns:
        Nested dicts, lists, tuples, plain values, tensors and numpy arrays. Ordered and default dicts are dicts,
        parameters and storages are tensors, devices are strings, objects of unknown classes are `Placeholder`s.
        Tensors share memory where the saved ones did.

    Raises:
        UserError: If there is no such file.
        WorkError: If it is damaged, no checkpoint, or asks for what no checkpoint needs.
    """
    return _opened(Path(path), _read)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file by name, on the CPU.

    Raises:
        UserError: If there is no such file.
        WorkError: If it is none, damaged, or claims what no UPerNet has.
    """
    tensors: dict[str, Tensor] = _opened(path, _read_safetensors)
    return tensors


def read_index(path: Path) -> list[Path]:
    """The files over which an index (`….index.json`) spreads a checkpoint, each once; none is opened.

    Raises:
        UserError: If there is no such index.
        WorkError: If it is none, or names anything else than files beside it.
    """
    files: list[Path] = _opened(path, _read_index)
    return files


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON file that describes a checkpoint.

    Raises:
        UserError: If there is no such file.
        WorkError: If it holds anything else than a mapping, a key twice, or more than a description needs.
    """
    settings: dict[str, Any] = _opened(path, _read_settings)
    return settings


def _opened(path: Path, read: Callable[[Path, BufferedReader], Any]) -> Any:
    """What `read` makes of a file; whatever it raises becomes one line."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the checkpoint file, such as {path / 'checkpoint.pth'}")
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: is a device or pipe; give a file")  # opening one may wait for ever
    try:
        file = path.open("rb")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({_line(getattr(error, 'strerror', None) or error)})") from error
    with file:
        try:
            return read(path, file)
        except RefusedError as error:
            raise WorkError(f"{path}: {_line(error)}") from error
        # Damage can surface as nearly any exception: of zipfile, struct, codecs, numpy, torch, or for want of memory.
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
        return _read_zip(file, size)
    promising = start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= size - 8
    if not promising and start.lstrip().startswith(b"<"):
        raise RefusedError("is a web page, not a checkpoint; the download failed, fetch it again")
    if start.startswith(b"version https://git-lfs"):
        raise RefusedError("is a pointer of Git LFS, not the checkpoint itself; fetch it with git lfs pull")
    if promising or (path.suffix == ".safetensors" and start[0] != 0x80):
        return _read_safetensors(path, file)
    if start[0] != 0x80:
        raise RefusedError(f"no checkpoint: starts with {start[:8]!r}, expected a file of torch.save or safetensors")
    return _read_legacy(file, size)


def _json(text: bytes) -> Any:
    """JSON in which no key comes twice, for readers differ in which they take."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in pairs:
            if key in made:
                raise RefusedError(f"names {key[:100]!r} twice; it may be hostile")
            made[key] = value
        return made

    return json.loads(text.decode(), object_pairs_hook=once)


def _read_safetensors(path: Path, file: BufferedReader) -> dict[str, Tensor]:
    """Claims that its library lets pass are refused here, the other ones there."""
    try:
        length = int.from_bytes(file.read(8), "little")
        if length > LISTING_BYTES:
            raise RefusedError(f"no readable safetensors file: its header claims {length} bytes; it may be hostile")
        header = _json(file.read(length))
        header.pop("__metadata__", None)
        if len(header) > TENSORS:
            raise RefusedError(f"holds {len(header)} tensors, more than {TENSORS}; it may be hostile")
        for name, claim in header.items():
            _check_sides(sizes(claim["shape"]), name[:100])
            if not _SAFETENSORS.fullmatch(claim["dtype"]):
                raise RefusedError(f"tensor {name[:100]!r} has the type {claim['dtype'][:40]!r}; valid: such as 'F32'")
        tensors = load_file(path)
        for name, tensor in tensors.items():
            _check_finite(tensor, name[:100])
        return tensors
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RefusedError(f"no readable safetensors file ({type(error).__name__}: {error})") from error


def _read_settings(path: Path, file: BufferedReader) -> dict[str, Any]:
    if path.stat().st_size > LISTING_BYTES:
        raise RefusedError(f"is longer than {LISTING_BYTES} bytes; it may be hostile")
    try:
        content = _json(file.read())
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"no readable JSON ({error})") from error
    if not isinstance(content, dict):
        raise RefusedError(f"holds a {type(content).__name__}; expected a mapping, such as {{}}")
    return content


def _read_index(path: Path, file: BufferedReader) -> list[Path]:
    shards = _read_settings(path, file).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise RefusedError("names no weight files beside it")
    files: dict[Path, None] = {}
    for name in shards.values():
        if not isinstance(name, str) or not _SHARD.fullmatch(name):
            raise RefusedError(f"names no weight files beside it but {str(name)[:100]!r}; valid: 'model-1-of-2.bin'")
        if path.parent / name not in files and not (path.parent / name).is_file():
            raise RefusedError(f"names the weight file {name!r}, which is not beside it; download it too")
        files[path.parent / name] = None
    return list(files)


def _check_sides(size: tuple[int, ...], where: str) -> None:
    if (len(size) > 1 or 0 in size) and max(size) > SIDE:
        raise RefusedError(f"tensor {where!r} claims a side of {max(size)}, no UPerNet has one above {SIDE}")


def _check_finite(tensor: Tensor, where: str) -> None:
    """A weight that is no number makes every answer none, without a word."""
    if not _WEIGHT.search(where) or not tensor.is_floating_point() or not tensor.numel():
        return
    # Either extreme is nan or infinite if any value is: some 30 times as fast as looking at each with isfinite.
    extremes = torch.stack((tensor if tensor.itemsize > 1 else tensor.float()).aminmax())
    if not extremes.isfinite().all():
        bad = "nan" if extremes.isnan().any() else "inf"
        raise RefusedError(
            f"tensor {where!r} holds {bad}; its training went astray or it is damaged, give a checkpoint from before"
        )


class _Listed(BufferedReader):
    """A file of which no long piece is read at once, as `zipfile` does with its list of entries."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > LISTING_BYTES:
            raise RefusedError(f"its list of entries claims {size} bytes, more than {LISTING_BYTES}; it may be hostile")
        return super().read(size)


def _read_zip(whole: BufferedReader, size: int) -> Any:
    with _Listed(whole.raw) as file, zipfile.ZipFile(file) as archive:
        _check_entries(file, size, archive)
        entries = {entry.filename: entry for entry in archive.infolist()}
        roots = [name.removesuffix("data.pkl") for name in entries if re.fullmatch(r"[^/]+/data\.pkl", name)]
        if len(roots) != 1:
            raise RefusedError("is a zip archive without a data.pkl, so no checkpoint of torch.save")
        root = roots[0]
        if f"{root}constants.pkl" in entries:
            raise RefusedError("is a TorchScript program, not a checkpoint; save its state_dict() and give that")
        order = entries.get(f"{root}byteorder")
        if order is not None and (order.file_size > 16 or archive.read(order).strip() != b"little"):
            raise RefusedError("its byte order is not little; save it anew on a little-endian machine")
        entry = entries[f"{root}data.pkl"]
        if entry.file_size > PICKLE_BYTES:
            raise RefusedError(f"its pickle is longer than {PICKLE_BYTES} bytes; it may be hostile")
        with archive.open(entry) as part:
            described = Pickle(BytesIO(_take(part, entry.file_size).numpy().tobytes())).load()
        data = {name.removeprefix(f"{root}data/"): e for name, e in entries.items() if name.startswith(f"{root}data/")}

        def load(key: str) -> Tensor:
            with archive.open(data[key]) as part:
                return _take(part, data[key].file_size)

        return _build(described, {key: e.file_size for key, e in data.items()}, size, load)


def _check_entries(file: IO[bytes], size: int, archive: zipfile.ZipFile) -> None:
    """Refuse archives that hold more than their bytes: compressed, overlapping or repeated entries."""
    entries = archive.infolist()
    for name, times in Counter(e.filename for e in entries).most_common(1):
        if times > 1:
            raise RefusedError(f"holds the entry {name!r} {times} times; it may be hostile")
    spans = []
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise RefusedError(
                f"entry {entry.filename!r} is compressed to {entry.compress_size} of {entry.file_size} bytes, as "
                "torch.save never does; it may be a zip bomb"
            )
        if entry.flag_bits & 0x41:
            raise RefusedError(f"entry {entry.filename!r} is encrypted; give the checkpoint without a password")
        file.seek(max(entry.header_offset, 0))
        header = file.read(30)
        if entry.header_offset < 0 or len(header) < 30 or not header.startswith(b"PK\x03\x04"):
            raise RefusedError(f"damaged: entry {entry.filename!r} does not start where its archive says")
        name_size, extra_size = struct.unpack("<HH", header[26:30])
        end = entry.header_offset + 30 + name_size + extra_size + entry.file_size
        spans.append((entry.header_offset, end, entry.filename))
    spans.append((archive.start_dir, size, "the list of entries"))
    spans.sort()
    for (_, end, first), (start, _, second) in pairwise(spans):
        if end > start:
            raise RefusedError(f"entries {first!r} and {second!r} overlap; it is damaged or a zip bomb")


def _read_legacy(file: IO[bytes], size: int) -> Any:
    """Five pickles (a magic number, a version, the system, the content, the storages' keys), then the storages."""
    if Pickle(file).load() != LEGACY_MAGIC:
        raise RefusedError("is a pickle, but not a file of torch.save")
    if Pickle(file).load() != LEGACY_PROTOCOL:
        raise RefusedError(f"its format is not {LEGACY_PROTOCOL}, the only one of torch.save that is known")
    system = Pickle(file).load()
    if not isinstance(system, dict) or system.get("little_endian", True) is not True:
        raise RefusedError("its byte order is not little; save it anew on a little-endian machine")
    content = Pickle(file)
    described, keys = content.load(), Pickle(file).load()
    if not isinstance(keys, list) or any(type(key) not in (str, int) for key in keys):
        raise RefusedError("damaged: it does not list its storages")
    held: dict[str, int] = {}
    starts: dict[str, int] = {}
    for key in map(str, keys):
        if key in held or key not in content.item_bytes:
            raise RefusedError(f"damaged: its list of storages holds {key!r} twice, or nothing else names it")
        (count,) = struct.unpack("<q", file.read(8))
        held[key], starts[key] = count * content.item_bytes[key], file.tell()
        if not 0 <= held[key] <= size - starts[key]:
            raise RefusedError(
                f"storage {key!r} claims {count} values of {content.item_bytes[key]} bytes, "
                f"{size - starts[key]} bytes are left; the file is truncated or damaged"
            )
        file.seek(held[key], 1)
    if file.tell() != size:
        raise RefusedError(f"damaged: {size - file.tell()} bytes follow its last storage")

    def load(key: str) -> Tensor:
        file.seek(starts[key])
        return _take(file, held[key])

    return _build(described, held, size, load)


def _take(part: IO[bytes], count: int) -> Tensor:
    """The next bytes, as uint8. Of a zip entry it must be all, for its checksum is compared at its end."""
    made = torch.empty(count, dtype=torch.uint8)
    array: Any = made.numpy()
    left = memoryview(array)
    while left:
        read = part.readinto(left[: 2**20])  # type: ignore[attr-defined]
        if not read:
            raise RefusedError("the data of a tensor end early; the file is truncated")
        left = left[read:]
    return made


def _build(described: Any, held: dict[str, int], size: int, load: Callable[[str], Tensor]) -> Any:
    _Builder(held, size).value(described)
    return _Builder(held, size, load).value(described)


class _Builder:
    """Turns descriptions into values: once without a loader, to check everything, then with it.

    Values are kept by the identity of their descriptions, so only what outlives the builder may be passed to `value`.
    """

    def __init__(self, held: dict[str, int], size: int, load: Callable[[str], Tensor] | None = None) -> None:
        """`held`: the storages' bytes, by key. `size`: the file's. `load`: reads a storage as uint8."""
        self.held, self.limit, self.load = held, EXPANSION * size, load
        self.done: dict[int, Any] = {}
        self.parts: dict[int, int] = {}
        self.bytes = self.tensors = self.visited = 0
        self.storages: dict[tuple[str, torch.dtype], Tensor] = {}

    def value(self, given: Any, where: str = "", depth: int = 0) -> Any:
        # What is shared counts wherever it occurs: whoever prints or copies a value visits it that often.
        before, self.visited = self.visited, self.visited + self.parts.get(id(given), 1)
        if self.visited > PICKLE_STEPS:
            raise RefusedError(f"holds more than {PICKLE_STEPS} values, counting shared ones anew; it may be hostile")
        if type(given) in _PLAIN:
            return given
        if id(given) not in self.done:
            if depth > DEPTH:
                raise RefusedError(f"nests its containers deeper than {DEPTH}; it may be hostile")
            self.done[id(given)] = _OPEN
            self.done[id(given)] = self.new(given, where, depth + 1)
            self.parts[id(given)] = self.visited - before
        if self.done[id(given)] is _OPEN:
            raise RefusedError("damaged: a tuple that holds itself")
        return self.done[id(given)]

    def new(self, given: Any, where: str, depth: int) -> Any:
        # What can hold itself is known before it is filled.
        if isinstance(given, dict):
            made: Any = {}
            self.done[id(given)] = made
            for key, value in given.items():
                name = str(key)[:100] if isinstance(key, str | int) else "?"
                made[self.value(key, where, depth)] = self.value(value, f"{where}.{name}" if where else name, depth)
            return made
        if isinstance(given, list):
            made = self.done[id(given)] = []
            made.extend(self.value(v, f"{where}[{i}]", depth) for i, v in enumerate(given))
            return made
        if isinstance(given, tuple | set | frozenset):
            return type(given)([self.value(v, f"{where}[{i}]", depth) for i, v in enumerate(given)])
        if isinstance(given, TensorView):
            return self.tensor(given, where or "tensor")
        if isinstance(given, Array):
            if (dtype := _number_type(given.state[2])) is not None:
                return self.array(given, dtype, where)
        elif given.name == "numpy.dtype" and given.args and (dtype := _number_type(given)) is not None:
            return dtype
        made = self.done[id(given)] = Placeholder(given.name)
        made.args, made.state = self.value(given.args, where, depth), self.value(given.state, where, depth)
        return made

    def claim(self, count: int, where: str) -> None:
        self.bytes, self.tensors = self.bytes + count, self.tensors + 1
        if self.tensors > TENSORS:
            raise RefusedError(f"holds more than {TENSORS} tensors and arrays, up to {where!r}; it may be hostile")
        if self.bytes > self.limit:
            raise RefusedError(
                f"its tensors, up to {where!r}, claim {self.bytes} bytes, the file holds "
                f"{self.limit // EXPANSION}; it may be hostile"
            )

    def tensor(self, given: TensorView, where: str) -> Tensor | None:
        held = self.held.get(given.key)
        if held is None:
            raise RefusedError(f"the data {given.key!r} of tensor {where!r} are missing; the file is truncated")
        if given.bytes != held:
            raise RefusedError(
                f"the data of tensor {where!r} should be {given.bytes} bytes, the file holds {held}; it is damaged"
            )
        values, have = prod(given.size), held // given.dtype.itemsize
        reach = given.offset + sum((n - 1) * step for n, step in zip(given.size, given.stride, strict=True)) + 1
        if values and max(values, reach) > have:
            raise RefusedError(
                f"tensor {where!r} claims {max(values, reach)} values, the file holds {have} for it; "
                "it is damaged or hostile"
            )
        _check_sides(given.size, where)
        self.claim(values * given.dtype.itemsize, where)
        if self.load is None:
            return None
        if not values:
            return torch.empty(given.size, dtype=given.dtype)
        made = self.storage(given.key, given.dtype, self.load).as_strided(given.size, given.stride, given.offset)
        _check_finite(made, where)
        return made

    def storage(self, key: str, dtype: torch.dtype, load: Callable[[str], Tensor]) -> Tensor:
        if (key, dtype) not in self.storages:
            if dtype is torch.uint8:
                made = load(key)
            else:
                raw = self.storage(key, torch.uint8, load)
                # A byte that is neither 0 nor 1 is no bool.
                made = raw.ne(0) if dtype is torch.bool else raw.view(dtype)
            self.storages[key, dtype] = made
        return self.storages[key, dtype]

    def array(self, given: Array, dtype: np.dtype[Any], where: str) -> Any:
        _, shape, _, fortran, data = given.state
        data = data.encode("latin1") if isinstance(data, str) else data
        if not isinstance(data, bytes | bytearray):
            raise RefusedError(f"damaged: the numpy array {where!r} holds no bytes")
        values, have = prod(sizes(shape)), len(data) // dtype.itemsize
        if not values:
            _check_sides(shape, where)
        if values * dtype.itemsize != len(data):
            raise RefusedError(
                f"the numpy array {where!r} claims {values} values, the file holds {have} for it; "
                "it is damaged or hostile"
            )
        self.claim(len(data), where)
        if self.load is None:
            return None
        made = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="))
        if given.name == "numpy.generic":
            return made[0].item()
        return made.reshape(shape, order="F" if fortran is True else "C")


def _number_type(given: Any) -> np.dtype[Any] | None:
    """The numpy type that is described, or None if it is not one of numbers."""
    if not isinstance(given, Placeholder) or given.name != "numpy.dtype" or not given.args:
        raise RefusedError("damaged: a numpy array has no type")
    # The state is (version, byte order, ...); what follows describes structures, which are no numbers.
    order = "<" if given.state is None else given.state[1]
    if order not in ("<", ">", "|", "="):
        raise RefusedError("damaged: a numpy type with a wrong state")
    return np.dtype(given.args[0]).newbyteorder(order) if _NUMERIC.fullmatch(given.args[0]) else None
