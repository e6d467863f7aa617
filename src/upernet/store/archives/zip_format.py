"""Checkpoints of `torch.save` since PyTorch 1.6: a zip archive of a pickle and the data of its tensors."""

from __future__ import annotations

import re
import struct
import zipfile
from collections import Counter
from io import BufferedReader, BytesIO
from itertools import pairwise
from typing import IO, Any

from torch import Tensor

from upernet.store.archives.building import build, take
from upernet.store.archives.descriptions import RefusedError
from upernet.store.archives.limits import LISTING_BYTES
from upernet.store.archives.pickles import PICKLE_BYTES, Pickle


def read_zip(whole: BufferedReader, size: int) -> Any:
    """Read the content of an archive.

    Args:
        whole: The file, at its start.
        size: Its size in bytes.

    Raises:
        RefusedError: If it is damaged, hostile, or of another program; damage may raise nearly any error.
    """
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
            described = Pickle(BytesIO(take(part, entry.file_size).numpy().tobytes())).load()
        data = {name.removeprefix(f"{root}data/"): e for name, e in entries.items() if name.startswith(f"{root}data/")}

        def load(key: str) -> Tensor:
            with archive.open(data[key]) as part:
                return take(part, data[key].file_size)

        return build(described, {key: e.file_size for key, e in data.items()}, size, load)


class _Listed(BufferedReader):
    """A file that refuses to read a long piece at once, since `zipfile` would read a list of entries of any length."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > LISTING_BYTES:
            raise RefusedError(f"its list of entries claims {size} bytes, more than {LISTING_BYTES}; it may be hostile")
        return super().read(size)


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
