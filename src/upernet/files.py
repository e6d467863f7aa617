"""Files that are there entirely or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from upernet.errors import UserError


def check_writable(option: str, path: Path) -> None:
    """Refuse, before any work, a place where no file can be written.

    Args:
        option: Of the command line, for the error line.
        path: The file.

    Raises:
        UserError: If it is a folder, a part of its path is a file, or nothing may be written there.
    """
    if path.is_dir():
        raise UserError(f"{option} {path} is a folder; valid: a file, such as {path / 'report.json'}")
    above = next((p for p in path.parents if p.exists()), None)
    if above is not None and not above.is_dir():
        raise UserError(f"{option} {path}: {above} is a file; valid: a file in a folder, such as report.json")
    try:
        with TemporaryFile(dir=above):
            pass
    except OSError as error:
        raise UserError(f"{option} {path}: nothing can be written in {above} ({error.strerror})") from error


def write_whole(path: Path, fill: Callable[[IO[bytes]], Any]) -> None:
    """Write a file that is there entirely or not at all, whatever interrupts.

    Args:
        path: Replaced if it exists.
        fill: Writes the content into the open file.
    """
    unfinished = path.with_name(f".upernet-{os.getpid()}-{os.urandom(4).hex()}.tmp")
    try:
        with open(unfinished, "wb") as file:
            fill(file)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
