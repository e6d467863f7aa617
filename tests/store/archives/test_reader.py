"""A file of any format, or none: how it is told apart, and that whatever is wrong is one line."""

from __future__ import annotations

import datetime
import os
import pickle
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from archive_files import FORMATS, refusal, same, various, write
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from upernet.errors import UserError, WorkError
from upernet.store.archives import read_checkpoint


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_safetensors_are_known_by_their_content(tmp_path: Path, name: str) -> None:
    content = {"a": torch.arange(3), "b": torch.ones(2, 2, dtype=torch.bfloat16)}
    save_file(content, tmp_path / name)
    same(dict(sorted(read_checkpoint(tmp_path / name).items())), content)


@FORMATS
def test_the_suffix_does_not_matter(tmp_path: Path, legacy: bool) -> None:
    assert read_checkpoint(str(write(tmp_path / "a.safetensors", [1], legacy))) == [1]


@pytest.mark.parametrize("name", ["mmseg_tiny", "mmseg_tiny_11"])
def test_checkpoints_of_the_toolbox(fixtures_dir: Path, name: str) -> None:
    path = fixtures_dir / name / "checkpoint.pth"
    if not path.is_file():
        pytest.skip(f"no {path}")
    got = read_checkpoint(path)
    with torch.serialization.safe_globals([torch.torch_version.TorchVersion]):
        same(got["state_dict"], torch.load(path, weights_only=True)["state_dict"])
    assert isinstance(got["meta"], dict)


def test_the_oldest_format_is_refused(tmp_path: Path) -> None:
    """Before PyTorch 0.1.10 checkpoints were tar archives."""
    with tarfile.open(tmp_path / "a.pth", "w") as made:
        made.addfile(tarfile.TarInfo("../../sys_info"), BytesIO())
    assert "no checkpoint: starts with" in refusal(tmp_path / "a.pth")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.pth")
    with pytest.raises(UserError, match="is a device or pipe"):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"hello world", "no checkpoint"),
        (b"\n<!DOCTYPE html><html>not found</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (bytes(range(7, 255)) * 9, "no checkpoint"),
        (b"PK\x03\x04 and nothing else", "damaged"),
        (pickle.dumps({"a": 1}, 2), "not a file of torch.save"[4:]),
        (pickle.dumps(list(range(3)), 4), "torch.save"),
        (b"\x80", "truncated"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{not json at all", "safetensors"),
    ],
)
@pytest.mark.parametrize("name", ["a.pth", "b.safetensors"])
def test_what_is_no_checkpoint(tmp_path: Path, content: bytes, words: str, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    text = refusal(tmp_path / name)
    assert words in text or "safetensors" in text


def test_what_is_no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.pth", tmp_path / "a\nb"):
        with pytest.raises(UserError, match=r"folder|No such file") as caught:
            read_checkpoint(path)
        assert not isinstance(caught.value, WorkError)


@pytest.mark.parametrize("part", [0.001, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 0.97, 0.999])
@FORMATS
def test_truncated_files(tmp_path: Path, legacy: bool, part: float) -> None:
    path = write(tmp_path / "a.pth", various(), legacy)
    content = path.read_bytes()
    path.write_bytes(content[: max(1, int(part * len(content)))])
    refusal(path)


@FORMATS
def test_any_damage_is_one_line_or_harmless(tmp_path_factory: pytest.TempPathFactory, legacy: bool) -> None:
    path = tmp_path_factory.mktemp("flips") / "a.pth"
    content = various() | {"time": datetime.datetime(2020, 1, 2), "scalar": np.float32(1)}
    whole = write(path, content, legacy, pickle_protocol=2).read_bytes()
    # The head is where a flip can do most.
    places = st.integers(0, len(whole) - 1) | st.integers(0, 3000)

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(places, st.integers(1, 255)), min_size=1, max_size=4))
    def check(flips: list[tuple[int, int]]) -> None:
        damaged = bytearray(whole)
        for place, mask in flips:
            damaged[place] ^= mask
        path.write_bytes(damaged)
        try:
            read_checkpoint(path)
        except UserError as error:
            assert len(str(error).splitlines()) == 1 and str(error).startswith(str(path))

    check()


def test_no_warnings(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    buffer = BytesIO()
    torch.save(various(), buffer)
    (tmp_path / "a.pth").write_bytes(buffer.getvalue())
    recwarn.clear()
    read_checkpoint(tmp_path / "a.pth")
    assert not recwarn.list
