"""What appears on a terminal: lines, and a bar for long work. Quick to import; rich is imported when a bar is shown."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

TITLE = 40
"""Most characters of the title before a bar."""


def printable(text: str) -> str:
    """The text with every character that a terminal would obey, ends of lines too, written as an escape sequence."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def print_line(line: str, stream: TextIO) -> None:
    """Print one line, whatever it holds, such as the name of a file or of a class from a downloaded model.

    Args:
        line: Made `printable` first; what the stream's encoding lacks is written as an escape sequence.
        stream: Flushed afterwards.
    """
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(printable(line).encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


@contextmanager
def progress(title: str, total: int, *, shown: bool = True) -> Iterator[Callable[[], None]]:
    """Show a bar with a count and the time left while the block runs, if stderr is a terminal.

    Lines printed meanwhile appear above the bar, which vanishes at the end.

    Args:
        title: What is being done, such as `parsing`.
        total: Number of pieces of work.
        shown: Whether to show a bar at all.

    Yields:
        A function to call after each piece.
    """
    if not (shown and sys.stderr.isatty()):
        yield lambda: None
        return
    from rich.progress import MofNCompleteColumn, TimeRemainingColumn

    with _bar(MofNCompleteColumn(), TimeRemainingColumn(), transient=True) as bar:
        task = bar.add_task(_short(title), total=total)
        yield lambda: bar.advance(task)


@contextmanager
def transfer_progress(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show a bar with bytes, speed and the time left while the block runs, if stderr is a terminal.

    Args:
        name: Of the file.

    Yields:
        A function of the bytes that are here and of all of them; none where their number is unknown.
    """
    if not sys.stderr.isatty():
        yield lambda have, total: None
        return
    from rich.progress import DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

    with _bar(DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(), transient=False) as bar:
        task = bar.add_task(_short(name), total=None)
        yield lambda have, total: bar.update(task, completed=have, total=total)


def _short(title: str) -> str:
    """The title on one line, cut in the middle where it is long."""
    title = printable(title)
    return title if len(title) <= TITLE else f"{title[: TITLE - 16]}…{title[-15:]}"


def _bar(*columns: ProgressColumn, transient: bool) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *columns,
        console=Console(stderr=True),
        transient=transient,
        # rich would write to stderr what is printed to stdout, which must still arrive where stdout is a pipe.
        redirect_stdout=sys.stdout.isatty(),
    )
