"""Checkpoints of `torch.save` before PyTorch 1.6: five pickles and the data of their tensors, one after the other."""

from __future__ import annotations

import struct
from typing import IO, Any

from torch import Tensor

from upernet.store.archives.building import build, take
from upernet.store.archives.descriptions import RefusedError
from upernet.store.archives.pickles import Pickle

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


def read_legacy(file: IO[bytes], size: int) -> Any:
    """Read the content of a file.

    The file holds a magic number, a version, the system, the content, the keys of the storages, then the storages.

    Args:
        file: The file, at its start.
        size: Its size in bytes.

    Raises:
        RefusedError: If it is damaged, hostile, or no file of `torch.save`; damage may raise nearly any error.
    """
    if Pickle(file).load() != _MAGIC:
        raise RefusedError("is a pickle, but not a file of torch.save")
    if Pickle(file).load() != _PROTOCOL:
        raise RefusedError(f"its format is not {_PROTOCOL}, the only one of torch.save that is known")
    system = Pickle(file).load()
    if not isinstance(system, dict) or system.get("little_endian", True) is not True:
        raise RefusedError("its byte order is not little; save it anew on a little-endian machine")
    content = Pickle(file)
    described, keys = content.load(), Pickle(file).load()
    if not isinstance(keys, list) or any(type(key) not in (str, int) for key in keys):
        raise RefusedError("damaged: it does not list its storages")
    storage_bytes: dict[str, int] = {}
    starts: dict[str, int] = {}
    for key in map(str, keys):
        if key in storage_bytes or key not in content.item_bytes:
            raise RefusedError(f"damaged: its list of storages holds {key!r} twice, or its content does not use it")
        (count,) = struct.unpack("<q", file.read(8))
        storage_bytes[key], starts[key] = count * content.item_bytes[key], file.tell()
        if not 0 <= storage_bytes[key] <= size - starts[key]:
            raise RefusedError(
                f"storage {key!r} claims {count} values of {content.item_bytes[key]} bytes, but "
                f"{size - starts[key]} bytes are left; the file is truncated or damaged"
            )
        file.seek(storage_bytes[key], 1)
    if file.tell() != size:
        raise RefusedError(f"damaged: {size - file.tell()} bytes follow its last storage")

    def load(key: str) -> Tensor:
        file.seek(starts[key])
        return take(file, storage_bytes[key])

    return build(described, storage_bytes, size, load)
