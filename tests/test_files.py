"""`files.py`: what is written survives interruptions, and names of files stay apart."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upernet.errors import UserError
from upernet.files import check_writable, file_part, write_whole

# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("object", "object"),
        ("Straße-2_b", "Straße-2_b"),
        ("../../etc", "%2E%2E%2F%2E%2E%2Fetc"),
        ("a\\b c", "a%5Cb%20c"),
        ("50%", "50%25"),
        ("\n", "%0A"),
        ("²/€", "²%2F%E2%82%AC"),
    ],
)
def test_names_are_escaped_as_in_addresses(name: str, part: str) -> None:
    assert file_part(name) == part


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_two_names_become_one(name: str) -> None:
    part = file_part(name)
    assert unquote(part) == name
    assert not set(part) & set("./\\:\0")


def test_a_name_that_is_no_text_can_be_used(tmp_path: Path) -> None:
    (tmp_path / file_part("\udcff\ud800")).touch()
    assert file_part("\udcff") != file_part("\ud800")


def test_further_characters_can_be_kept() -> None:
    assert file_part("model+s=1.2 b.pth", keep=".+=") == "model+s=1.2%20b.pth"
    assert file_part("a]^b", keep="]^") == "a]^b"


# --- whole files ----------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "state.pt"
    path.write_bytes(b"old")
    return path


def names(file: Path) -> list[str]:
    return [p.name for p in file.parent.iterdir()]


def test_a_file_is_on_the_disk_before_it_has_its_name(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, bool, bytes]] = []
    fsync, replace = os.fsync, os.replace

    def recording_fsync(descriptor: int) -> None:
        folder = os.path.samestat(os.fstat(descriptor), file.parent.stat())
        unfinished = [p for p in file.parent.iterdir() if p != file]
        assert folder or os.path.samestat(os.fstat(descriptor), unfinished[0].stat())
        assert folder or unfinished[0].read_bytes() == b"new"  # nothing waits in a buffer of Python's
        calls.append(("fsync", folder, file.read_bytes()))
        fsync(descriptor)

    def recording_replace(source: Path, target: Path) -> None:
        calls.append(("replace", False, file.read_bytes()))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "replace", recording_replace)
    write_whole(file, lambda f: f.write(b"new"))
    assert calls == [("fsync", False, b"old"), ("replace", False, b"old"), ("fsync", True, b"new")]
    assert names(file) == ["state.pt"]

    calls.clear()
    write_whole(file, lambda f: f.write(b"newer"), durable=False)
    assert calls == [("replace", False, b"new")]
    assert file.read_bytes() == b"newer"


@pytest.mark.parametrize("step", ["fill", "fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_no_litter(step: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill(f: object) -> None:
        f.write(b"half of the n")
        if step == "fill":
            fail()

    if step != "fill":
        monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        write_whole(file, fill)
    assert file.read_bytes() == b"old"
    assert names(file) == ["state.pt"]


@pytest.mark.skipif(os.name == "nt", reason="Windows opens no folders")
@pytest.mark.parametrize("code", [errno.EINVAL, errno.EBADF, errno.EIO])
def test_a_folder_that_cannot_be_forced(code: int, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems sync no folders, which is no failure; a broken disk is one. The file is whole in both cases."""
    fsync = os.fsync

    def only_files(descriptor: int) -> None:
        if os.path.samestat(os.fstat(descriptor), file.parent.stat()):
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    if code == errno.EIO:
        with pytest.raises(OSError, match=os.strerror(code)):
            write_whole(file, lambda f: f.write(b"new"))
    else:
        write_whole(file, lambda f: f.write(b"new"))
    assert file.read_bytes() == b"new"
    assert names(file) == ["state.pt"]


def test_places_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    check_writable("--out", tmp_path / "new" / "report.json")
    with pytest.raises(UserError, match=r"--out .* is a folder; valid: a file"):
        check_writable("--out", tmp_path)
    with pytest.raises(UserError, match=r"taken is a file; valid: a file in a folder"):
        check_writable("--out", tmp_path / "taken" / "report.json")
    assert names(tmp_path / "taken") == ["taken"]
