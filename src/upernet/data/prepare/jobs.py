"""Preparing files job by job in several processes. What is there already is kept, and a fault ends only its job."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from upernet.data.pool import in_processes
from upernet.errors import UserError, WorkError
from upernet.files import remove_unfinished


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
    with closing(in_processes(jobs, _attempt, workers, command="prepare")) as outcomes:
        for outcome in outcomes:
            if outcome.hopeless:
                raise WorkError(f"{outcome.fault}; finished files are kept, run the command again")
            yield outcome


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
