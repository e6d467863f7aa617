"""Work that several processes share."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from upernet.data.pool import in_processes, processor_cores
from upernet.errors import WorkError


def test_every_job_is_done_in_processes_that_are_started_first(tmp_path: Path) -> None:
    before = Path.cwd()
    found = list(in_processes(["a", "b"], os.path.abspath, 2, command="prepare", start=partial(os.chdir, tmp_path)))
    assert sorted(found) == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert Path.cwd() == before


def test_one_worker_is_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    found = list(in_processes(["a", "b"], os.path.abspath, 1, command="prepare", start=partial(os.chdir, tmp_path)))
    assert found == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert Path.cwd() == tmp_path


def test_a_process_that_is_ended_from_outside_is_told() -> None:
    with pytest.raises(WorkError, match=r"prepare: a worker process was killed, .*; try --workers 1"):
        list(in_processes([1, 1], os._exit, 2, command="prepare"))


PARENT = """
import sys, time
from upernet.data.pool import in_processes
if __name__ == "__main__":
    list(in_processes([60, 60], time.sleep, 2, command="prepare"))
"""


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    """A killed process cannot end them, and they would wait for work forever."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, str(script)]) as parent:
        children: list[int] = []
        while len(children) < 2:
            assert parent.poll() is None
            children = [pid for pid in _processes() if _parent(pid) == parent.pid and b"spawn_main" in _words(pid)]
            time.sleep(0.05)
        time.sleep(1)  # until they work
        parent.kill()
    ends = time.monotonic() + 60
    while any(b"spawn_main" in _words(pid) for pid in children):
        assert time.monotonic() < ends
        time.sleep(0.05)


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _words(pid: int) -> bytes:
    """The command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_there_is_a_core() -> None:
    assert processor_cores() >= 1
