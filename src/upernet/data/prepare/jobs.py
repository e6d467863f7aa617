"""Preparing files job by job in several processes. What is there already is kept, and a fault ends only its job."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from upernet.errors import UserError, WorkError
from upernet.files import remove_unfinished

AHEAD = 4
"""Jobs per process that are handed out ahead of time. More would only take memory."""


class Job(ABC):
    """The files that are made from one original. Jobs are hashable, and small, since each is sent to a process."""

    source: Path
    """The file that it is made from."""

    @property
    @abstractmethod
    def targets(self) -> tuple[Path, ...]:
        """The files to write. Their folders exist."""

    @abstractmethod
    def kept(self) -> Mapping[str, Any] | None:
        """What `make` would return, if all files are there and valid already; None if they have to be made.

        Raises:
            UserError: If the originals cannot be read.
        """

    @abstractmethod
    def make(self) -> Mapping[str, Any]:
        """Write the files.

        Returns:
            What the preparation needs to know of them in the end; plain values, and few.

        Raises:
            UserError: If the originals cannot be read or do not hold what they should.
            OSError: If a file cannot be written.
        """


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job.

    Attributes:
        job: The job.
        fault: Why it failed, in one line; empty if it did not.
        hopeless: Whether all further jobs will fail for the same reason.
        kept: Whether its files were there already.
        record: What the job returned; empty if it failed.
    """

    job: Job
    fault: str = ""
    hopeless: bool = False
    kept: bool = False
    record: Mapping[str, Any] = field(default_factory=dict)


def run_jobs(jobs: Sequence[Job], workers: int) -> Generator[Outcome, None, None]:
    """Do all jobs, `workers` at a time.

    Yields:
        Outcomes as they come, those of failed jobs too.

    Raises:
        UserError: If a folder cannot be written.
        WorkError: If a job failed for a reason that all further jobs share, such as a full disk.
    """
    for folder in sorted({target.parent for job in jobs for target in job.targets}):
        if not os.access(folder, os.W_OK):
            raise UserError(f"{folder}: cannot be written; copy the data set to a folder that can be")
        remove_unfinished(folder)
    with closing(_in_processes(jobs, _attempt, workers)) as outcomes:
        for outcome in outcomes:
            if outcome.hopeless:
                raise WorkError(f"{outcome.fault}; finished files are kept, run the command again")
            yield outcome


def _in_processes(jobs: Sequence[Job], work: Callable[[Job], Outcome], workers: int) -> Generator[Outcome, None, None]:
    if workers == 1 or len(jobs) < 2:
        yield from map(work, jobs)
        return
    from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    # Ctrl-C reaches every process of a terminal: workers ignore it and finish their file, the main process stops them.
    pool = ProcessPoolExecutor(min(workers, len(jobs)), get_context("spawn"), _begin_worker)
    rest, pending = iter(jobs), set[Future[Outcome]]()
    try:
        while True:
            with _interrupts_blocked():
                pending |= {pool.submit(work, job) for job in islice(rest, AHEAD * workers - len(pending))}
            if not pending:
                return
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool:
        raise WorkError("prepare: a worker process was killed, perhaps for lack of memory; try --workers 1") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Delay Ctrl-C until the end of the block. Processes started in it never receive it, not even while they start."""
    import signal

    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker() -> None:
    import signal
    import threading

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_main_process, daemon=True).start()


def _end_with_main_process() -> None:
    """End a worker whose main process was killed. It would wait for its next job for ever."""
    from multiprocessing import parent_process

    main = parent_process()
    if main is not None:
        main.join()
        os._exit(1)


def _attempt(job: Job) -> Outcome:
    """Do one job; any error in its files becomes the fault of its outcome."""
    try:
        there = job.kept()
        return Outcome(job, record=job.make()) if there is None else Outcome(job, kept=True, record=there)
    except UserError as error:
        return Outcome(job, str(error))
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
        return Outcome(job, f"{job.targets[0]}: {error.strerror or error}", hopeless=full)
    except Exception as error:  # broken files reach every corner of a reader: no list of types is complete
        return Outcome(job, f"{job.source}: cannot be read ({' '.join(str(error).split()) or type(error).__name__})")
