"""Files that are there entirely or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any


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
