"""Work that several processes share."""

from __future__ import annotations

import os
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


def test_there_is_a_core() -> None:
    assert processor_cores() >= 1
