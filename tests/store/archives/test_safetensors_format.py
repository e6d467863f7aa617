"""Headers of safetensors files, hostile and honest."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from archive_files import refusal

from upernet.errors import WorkError
from upernet.store.archives import read_safetensors

F32 = b'{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'


def safetensors_of(path: Path, header: bytes, data: bytes = bytes(4), length: int | None = None) -> Path:
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
    return path


def claims(shape: str, dtype: str = "F32", end: int = 4) -> bytes:
    return f'{{"x":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{end}]}}}}'.encode()


@pytest.mark.parametrize(
    ("header", "length", "words"),
    [
        (claims("[1]"), 2**63, "header claims 9223372036854775808 bytes"),
        (claims("[1]"), 2**25, "header claims 33554432 bytes"),
        (claims("[1]"), 4000, "no readable safetensors file"),
        (claims("[0,1099511627776]", end=0), None, "tensor 'x' claims a side of 1099511627776"),
        (claims("[65536,0]", end=0), None, "tensor 'x' claims a side of 65536"),
        (claims("[9223372036854775807,9223372036854775807]"), None, "damaged"),
        (claims("[16384,16384,16384,16384,16384]"), None, "no readable safetensors file"),
        (claims("[-1]"), None, "damaged: -1"),
        (claims("[1e300]"), None, "damaged: 1e+300"),
        (claims("[NaN]"), None, "damaged: nan"),
        (claims("[true]"), None, "damaged: True"),
        (claims("4"), None, "damaged: 4"),
        (claims("[" + "1," * 99 + "1]"), None, "100 dimensions"),
        (claims("[" + "9" * 5000 + "]"), None, "no readable safetensors file"),
        (claims("[8]", "F4"), None, "has the type 'F4'"),
        (claims("[1]").replace(b'"F32"', b"[]"), None, "no readable safetensors file"),
        (b'{"x":' + F32 + b',"x":' + F32 + b"}", None, "names 'x' twice"),
        (b'{"x":' + F32 + b',"y":' + F32 + b"}", None, "no readable safetensors file"),
        (b'{"x":' + F32.replace(b"[0,4]", b"[4,0]") + b"}", None, "no readable safetensors file"),
        (b'{"x":' + F32.replace(b"[0,4]", b"[0,4000]") + b"}", None, "no readable safetensors file"),
        (b'{"x":' + b"[" * 10**5 + b"]" * 10**5 + b"}", None, "no readable safetensors file"),
        (b'{"x":{}}', None, "no readable safetensors file"),
    ],
)
def test_hostile_safetensors(tmp_path: Path, header: bytes, length: int | None, words: str) -> None:
    path = safetensors_of(tmp_path / "a.safetensors", header, length=length)
    assert words in refusal(path)
    with pytest.raises(WorkError):
        read_safetensors(path)


def test_an_honest_header_in_the_same_manner(tmp_path: Path) -> None:
    path = safetensors_of(tmp_path / "a.safetensors", b'{"__metadata__":{"format":"pt"},"x":' + F32 + b"}")
    assert read_safetensors(path)["x"].tolist() == [0]
