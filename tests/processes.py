"""Commands in processes of their own, forked from a server that has imported everything.

A fresh Python takes many times as long to import PyTorch and Lightning as to train a small network. A forked process
does not end as a fresh one does: `tests/engine/test_processes.py` lets torchrun start two of those.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from upernet.cli import main

PRELOAD = [
    "jsonargparse",
    "pytest",
    "upernet.commands.evaluate",
    "upernet.compare.ours",
    "upernet.compare.runner",
    "upernet.engine.knowledge.discovery",
    "upernet.engine.class_weights",
    "upernet.engine.trainer",
    "upernet.store.loading",
    "upernet.tasks.object",
    "upernet.tasks.part",
    "upernet.tasks.scene",
]
"""What a process finds imported: pytest, which a child of pytest loads, and what the commands import when they run."""

if "forkserver" not in multiprocessing.get_all_start_methods():
    pytest.skip("no processes are forked here", allow_module_level=True)
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(PRELOAD)
_USUAL = multiprocessing.get_context().get_start_method()
"""How processes start on this platform, which those of the fork server must not inherit from it."""

TIMEOUT = 240
"""Seconds after which a process counts as hanging, on a machine that does other things too."""

Starter = Callable[[int, int], dict[str, str]]
"""From a rank, 0 or 1, and a port to the environment variables with which a program starts this rank."""


def by_torchrun(rank: int, port: int) -> dict[str, str]:
    """What torchrun tells each of two processes."""
    known = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    return {name: str(value) for name, value in known.items()} | {"MASTER_ADDR": "127.0.0.1"}


def by_srun(rank: int, port: int) -> dict[str, str]:
    """What srun tells them; Lightning adds the last four digits of the job's number to 15000, which gives the port."""
    counts = dict.fromkeys(("SLURM_NTASKS", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS_PER_NODE"), "2")
    numbers = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NODEID": 0, "SLURM_NNODES": 1}
    job = {"SLURM_JOB_ID": f"1{port - 15000:04d}", "SLURM_JOB_NAME": "upernet", "SLURM_NODELIST": "localhost"}
    return counts | {name: str(value) for name, value in numbers.items()} | job


@dataclass(frozen=True)
class Running:
    """A command in a process and session of its own."""

    process: BaseProcess
    errors: Path

    def finish(self, seconds: float = TIMEOUT) -> tuple[int | None, str]:
        """Exit code, minus the signal if one ended it, and what was written to the error stream."""
        self.process.join(seconds)
        return self.process.exitcode, self.errors.read_text()


@contextmanager
def running(words: list[str], environment: dict[str, str] | None = None) -> Iterator[Running]:
    """`upernet` with these words, ended with the block at the latest."""
    with TemporaryDirectory() as folder:
        errors = Path(folder) / "errors.txt"
        errors.touch()
        process = _context.Process(target=_command, args=(words, environment or {}, errors, os.getpid()))
        process.start()
        try:
            yield Running(process, errors)
        finally:
            process.kill()
            process.join()


def _command(words: list[str], environment: dict[str, str], errors: Path, test: int) -> None:
    os.setsid()
    threading.Thread(target=_end_with, args=(test,), daemon=True).start()
    multiprocessing.set_start_method(_USUAL, force=True)
    os.environ |= environment
    with errors.open("wb") as file:
        os.dup2(file.fileno(), 2)
    raise SystemExit(main(words))


def _end_with(test: int) -> None:
    """End this process and those that it started when the tests are killed, which leaves them no time to do so."""
    while True:
        time.sleep(1)
        try:
            os.kill(test, 0)
        except ProcessLookupError:
            os.killpg(os.getpid(), signal.SIGKILL)


def in_two_processes(words: list[str], start: Starter = by_torchrun) -> tuple[list[int | None], list[str]]:
    """Exit codes and error streams of a command that two processes run together, by rank."""
    port = _free_port()
    with running(words, start(0, port)) as first, running(words, start(1, port)) as second:
        codes, errors = zip(first.finish(), second.finish(), strict=True)
    return list(codes), list(errors)


def _free_port() -> int:
    """A port that srun can name."""
    while True:
        port = random.SystemRandom().randrange(15000, 25000)
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
