"""Checkpoints of today: zip archives, and what is wrong with them."""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from archive_files import refusal, tensor_pickle, write, zip_of

from upernet.store.archives import read_checkpoint, zip_format


def test_a_list_of_entries_longer_than_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python would take about ten times its bytes to hold it."""
    path = write(tmp_path / "a.pth", {"w": torch.zeros(2**20)})
    monkeypatch.setattr(zip_format, "LISTING_BYTES", 2**20)
    assert len(read_checkpoint(path)["w"]) == 2**20
    monkeypatch.setattr(zip_format, "LISTING_BYTES", 200)
    assert "its list of entries claims" in refusal(path)


def test_zip_bombs(tmp_path: Path) -> None:
    bomb = zip_of(tmp_path / "a.pth", tensor_pickle((4,), (1,)), {"0": bytes(10**6)}, compression=zipfile.ZIP_DEFLATED)
    assert "zip bomb" in refusal(bomb)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(tmp_path / "b.pth", "w") as archive:
            for _ in range(2):
                archive.writestr("x/data.pkl", pickle.dumps([], 2))
    assert "2 times" in refusal(tmp_path / "b.pth")
    # Both entries of the directory point to the first one's bytes.
    path = zip_of(tmp_path / "c.pth", tensor_pickle((4,), (1,)), {"0": bytes(16), "1": bytes(16)})
    with zipfile.ZipFile(path) as archive:
        first, second = (archive.getinfo(f"x/data/{k}").header_offset for k in "01")
    content = bytearray(path.read_bytes())
    at = content.rindex(struct.pack("<I", second) + b"x/data/1")
    content[at : at + 4] = struct.pack("<I", first)
    path.write_bytes(content)
    assert "overlap" in refusal(path)


def test_other_zip_archives(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "data.pkl" in refusal(tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "b.pth", "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps([], 2))
        archive.writestr("x/byteorder", "big")
    assert "byte order" in refusal(tmp_path / "b.pth")
    path = zip_of(tmp_path / "c.pth", pickle.dumps([], 2))
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 8] |= 1
    path.write_bytes(content)
    assert "encrypted" in refusal(path)
    assert "missing" in refusal(zip_of(tmp_path / "d.pth", tensor_pickle((4,), (1,))))


def test_names_of_entries_lead_nowhere(tmp_path: Path) -> None:
    for root in ("", "/", "../x/", "/x/", "C:/x/"):
        with zipfile.ZipFile(tmp_path / "a.pth", "w") as made:
            made.writestr(f"{root}data.pkl", tensor_pickle((4,), (1,)))
            made.writestr(f"{root}data/0", bytes(16))
        assert "data.pkl" in refusal(tmp_path / "a.pth")
    pickled = tensor_pickle((4,), (1,)).replace(b"\x8c\x010", b"\x8c\x0b/etc/passwd")
    assert "'/etc/passwd' of tensor 'x' are missing" in refusal(zip_of(tmp_path / "b.pth", pickled, {"0": bytes(16)}))


def test_flipped_bits_of_the_zip_format_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pth", {"w": torch.arange(50.0), "b": torch.ones(3)})
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        pickled, first, second = (archive.read(f"a/{n}") for n in ("data.pkl", "data/0", "data/1"))
    at = content.index(pickled)
    places = [*range(at, at + len(pickled), 7)]
    for data in (first, second):
        at = content.index(data)
        places += [at, at + 1, at + len(data) - 1]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        refusal(path)
