"""Instructions of a pickle, honest, malformed and at random."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import pytest
import torch
from archive_files import legacy_of, named, refusal, same, write, zip_of
from hypothesis import given, settings
from hypothesis import strategies as st

from upernet.errors import UserError
from upernet.store.archives import read_checkpoint

INSTRUCTIONS = [v for k, v in sorted(vars(pickle).items()) if k.isupper() and isinstance(v, bytes) and len(v) == 1]


def test_strings_of_python_2(tmp_path: Path) -> None:
    pickled = b"\x80\x02}U\x03namT\x05\x00\x00\x00caf\xe9\x00s."
    assert read_checkpoint(zip_of(tmp_path / "a.pth", pickled)) == {"nam": "café\x00"}


def test_instances_in_the_oldest_manner(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    pickled = b"(X" + struct.pack("<I", len(f"touch {marker}")) + f"touch {marker}".encode() + b"ios\nsystem\n."
    assert "instruction 0x69 at byte" in refusal(zip_of(tmp_path / "a.pth", pickled))
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    [("torch._utils", "_rebuild_tensor_v2"), ("collections", "OrderedDict"), ("torch", "FloatStorage"), ("a", "B")],
)
def test_a_file_changes_nothing_that_outlives_it(tmp_path: Path, name: tuple[str, str]) -> None:
    honest = write(tmp_path / "a.pth", {"w": torch.ones(2)})
    state = b"N}\x8c\x04name\x8c\x02oss\x86"
    hostile = zip_of(tmp_path / "b.pth", b"\x80\x04" + named(*name) + state + b"b.")
    assert "sets the state" in refusal(hostile)
    same(read_checkpoint(honest), {"w": torch.ones(2)})


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x82\x01.",
        b"\x83\x01\x00.",
        b"\x84\x01\x00\x00\x00.",
        b"\x97.",
        b"P1\n.",
        b"K\x01Q.",
        b"(X\x06\x00\x00\x00modulestQ.",
        b"\x8b\xff\xff\xff\x7f.",
        b"\x8e" + b"\xff" * 8 + b".",
        b"X\xff\xff\xff\xff.",
        b"B\xff\xff\xff\xff.",
        b"T\xff\xff\xff\xff.",
        b"\x95" + b"\xff" * 8,
        b"\x8a\xff.",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.",
        b"\x96\x00\x00\x00\x00\x00\x01\x00\x00.",
        b"h\x05.",
        b"t.",
        b"0.",
        b".",
        b"",
        b"(",
        b"}]K\x01s.",
        b"}(K\x01u.",
        b"NK\x01a.",
        b"I1\n.",
        b"L" + b"9" * 5000 + b"\n.",
        b"(l.",
        b"(d.",
        b"(ca\nB\no.",
        b"\x8a",
        b"}(K\x01K\x01.",
    ],
)
def test_malformed_pickles(tmp_path: Path, pickled: bytes) -> None:
    refusal(zip_of(tmp_path / "a.pth", b"\x80\x04" + pickled))
    refusal(legacy_of(tmp_path / "b.pth", b"\x80\x04" + pickled))


def test_a_far_memo_index_takes_no_memory(tmp_path: Path) -> None:
    assert read_checkpoint(zip_of(tmp_path / "a.pth", b"\x80\x02K\x07r\xfe\xff\xff\xff.")) == 7


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60) | st.lists(st.sampled_from(INSTRUCTIONS), max_size=60).map(b"".join))
def test_any_pickle_is_one_line_or_harmless(tmp_path_factory: pytest.TempPathFactory, body: bytes) -> None:
    path = zip_of(tmp_path_factory.mktemp("fuzz") / "a.pth", b"\x80\x04" + body)
    try:
        read_checkpoint(path)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
