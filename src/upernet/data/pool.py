"""Work that several processes of this machine do piece by piece."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from upernet.errors import WorkError

T = TypeVar("T")
S = TypeVar("S")

AHEAD = 4
"""Jobs per process that are handed out ahead of time. More would only take memory."""


def processor_cores() -> int:
    """Number of processor cores that this process may use."""
    return (len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()) or 1


def in_processes(
    jobs: Sequence[T],
    work: Callable[[T], S],
    workers: int,
    *,
    command: str,
    start: Callable[[], None] | None = None,
) -> Generator[S, None, None]:
    """Do all jobs, `workers` at a time. With one worker, this process does them.

    Args:
        jobs: The jobs.
        work: Does one; a function of a module, so that other processes find it.
        workers: Number of processes.
        command: Name of the command, for the error line.
        start: Called first in each process that does jobs.

    Yields:
        What `work` returns, as it comes.

    Raises:
        WorkError: If a process is killed. What `work` raises is raised too.
    """
    if workers == 1 or len(jobs) < 2:
        if start is not None and jobs:
            start()
        yield from map(work, jobs)
        return
    from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    # Ctrl-C reaches every process of a terminal: workers ignore it and finish their job, the main process stops them.
    pool = ProcessPoolExecutor(min(workers, len(jobs)), get_context("spawn"), _start, (start,))
    rest, pending = iter(jobs), set[Future[S]]()
    try:
        while True:
            with interrupts_blocked():
                pending |= {pool.submit(work, job) for job in islice(rest, AHEAD * workers - len(pending))}
            if not pending:
                return
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool:
        raise WorkError(
            f"{command}: a worker process was killed, perhaps for lack of memory; try --workers 1"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Delay Ctrl-C until the end of the block. Processes started in it never receive it, not even while they start."""
    import signal

    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # it starts with the first process, and lets Ctrl-C through again then
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def heed_parent() -> None:
    """Have this process, which the main process started, ignore Ctrl-C and end with the main process at the latest."""
    import signal
    import threading

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _start(start: Callable[[], None] | None) -> None:
    heed_parent()
    if start is not None:
        start()


def _end_with_parent() -> None:
    """End this process once the main process is gone, which has no time to end it if it is killed."""
    from multiprocessing import connection, parent_process

    if (parent := parent_process()) is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
