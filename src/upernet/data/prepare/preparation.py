"""The contract of a preparation: the files to make, and what to write and report in the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from upernet.data.prepare.jobs import Job, Outcome


class Preparation(ABC):
    """Makes the files of one data set that are not published as they are used."""

    options: ClassVar[tuple[str, ...]] = ()
    """Command-line options for further folders, such as `sbd`."""

    @abstractmethod
    def __init__(self, root: str, **folders: str) -> None:
        """Look at the data set.

        Args:
            root: Folder of the data set; `~` and environment variables are expanded.
            folders: The further folders that the user gave, by the name in `options`.

        Raises:
            UserError: If a folder is missing or lacks what it should hold.
        """

    @abstractmethod
    def jobs(self) -> Sequence[Job]:
        """The files to make.

        Raises:
            UserError: If there are no files to make them from, or their folder cannot be made.
        """

    @abstractmethod
    def finish(self, outcomes: Mapping[Job, Outcome]) -> Iterator[str]:
        """Write the files that depend on all jobs, and report what was done.

        Args:
            outcomes: The outcome of each job.

        Yields:
            Lines for the screen.

        Raises:
            WorkError: If something cannot be written because jobs failed.
        """


def summary(outcomes: Sequence[Outcome], what: str, published: int) -> str:
    """A line that counts the files made, kept and failed, and compares them with the published number."""
    kept, failed = sum(o.kept for o in outcomes), sum(bool(o.fault) for o in outcomes)
    details = [f"{number:,} {word}" for number, word in ((kept, "were there"), (failed, "failed")) if number]
    made = len(outcomes) - failed
    return compare(f"{made:,} {what}" + (f" ({', '.join(details)})" if details else ""), made, published)


def compare(line: str, count: int, published: int) -> str:
    """A line, followed by the published number, or by "as published" if `count` equals it."""
    return f"{line}, {'as published' if count == published else f'published: {published:,}'}"
