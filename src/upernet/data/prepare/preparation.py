"""The contract of a preparation: which label maps are to be made, and what is said and written in the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from upernet.data.prepare.jobs import Job, Outcome, Recipe


class Preparation(ABC):
    """What is to be made of one data set."""

    recipe: ClassVar[Recipe]
    """How its label maps are made."""
    options: ClassVar[tuple[str, ...]] = ()
    """Options of the command line for further folders that it takes, such as `sbd`."""

    @abstractmethod
    def __init__(self, root: str, **folders: str) -> None:
        """Look at the data set.

        Args:
            root: Its folder; `~` and environment variables are expanded.
            folders: What was given of `options`.

        Raises:
            UserError: If a folder is not what it should be.
        """

    @abstractmethod
    def jobs(self) -> Sequence[Job]:
        """The label maps to make.

        Raises:
            UserError: If there is nothing to make them from, or no place for them.
        """

    @abstractmethod
    def finish(self, outcomes: Mapping[Job, Outcome]) -> Iterator[str]:
        """Write what depends on all jobs, and tell what was done.

        Args:
            outcomes: What became of each job.

        Yields:
            Lines for the screen.

        Raises:
            WorkError: If something cannot be written because jobs failed.
        """


def summary(outcomes: Sequence[Outcome], what: str, published: int) -> str:
    """How many files were made and kept, how many failed, and whether these are as many as published."""
    kept, failed = sum(o.kept for o in outcomes), sum(bool(o.fault) for o in outcomes)
    details = [f"{number:,} {word}" for number, word in ((kept, "were there"), (failed, "failed")) if number]
    made = len(outcomes) - failed
    return compare(f"{made:,} {what}" + (f" ({', '.join(details)})" if details else ""), made, published)


def compare(line: str, count: int, published: int) -> str:
    """A line, ended by the number that the data set is published with."""
    return f"{line}, {'as published' if count == published else f'published: {published:,}'}"
