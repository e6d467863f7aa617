"""Safetensors files, whose header is checked before the library opens them."""

from __future__ import annotations

import re
from io import BufferedReader
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from upernet.store.archives.descriptions import RefusedError, sizes
from upernet.store.archives.json_format import parse_json
from upernet.store.archives.limits import LISTING_BYTES, TENSORS, check_finite, check_sides

_SAFETENSORS = re.compile(r"BOOL|[IU](8|16|32|64)|F(16|32|64)|BF16|F8_E[45]M[23]|C64")


def read_tensors(path: Path, file: BufferedReader) -> dict[str, Tensor]:
    """The tensors by name. Wrong claims that the library accepts are refused here, all others by the library.

    Raises:
        RefusedError: If the file is no safetensors file, is damaged, or claims what no UPerNet has.
    """
    try:
        length = int.from_bytes(file.read(8), "little")
        if length > LISTING_BYTES:
            raise RefusedError(f"no readable safetensors file: its header claims {length} bytes; it may be hostile")
        header = parse_json(file.read(length))
        header.pop("__metadata__", None)
        if len(header) > TENSORS:
            raise RefusedError(f"holds {len(header)} tensors, more than {TENSORS}; it may be hostile")
        for name, claim in header.items():
            check_sides(sizes(claim["shape"]), name[:100])
            if not _SAFETENSORS.fullmatch(claim["dtype"]):
                raise RefusedError(f"tensor {name[:100]!r} has the type {claim['dtype'][:40]!r}; valid: such as 'F32'")
        tensors = load_file(path)
        for name, tensor in tensors.items():
            check_finite(tensor, name[:100])
        return tensors
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RefusedError(f"no readable safetensors file ({type(error).__name__}: {error})") from error
