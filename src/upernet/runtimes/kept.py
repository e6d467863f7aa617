"""Graphs that are kept on disk: each in a folder named by its content, checked on every use, and the oldest deleted."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from isal import isal_zlib

from upernet.files import lock, remove_unfinished, write_whole_folder
from upernet.screen import print_line
from upernet.zoo.download import cache_folder

MOST_BYTES = 4 * 2**30
"""Most bytes of all graphs together, the newest one aside. The graph of an R-50 takes 0.25 GB."""
CHECKS = "checks.json"
"""File of a graph's folder: the size and the CRC-32 of every file that was written with it. Engines add others."""


def graphs_folder() -> Path:
    """The folder of all graphs, beside the downloads of models."""
    return cache_folder() / "upernet" / "graphs"


def find_graph(key: str) -> Path | None:
    """The folder of a graph; None if there is none, or it is damaged."""
    folder = graphs_folder() / key
    try:
        checks = json.loads((folder / CHECKS).read_text())
        sound = checks == {name: _check(folder / name) for name in checks}
    except (OSError, ValueError, TypeError):
        return None
    if not sound:
        return None
    with suppress(OSError):  # a folder that may only be read
        os.utime(folder)
    return folder


def keep_graph(key: str, write: Callable[[Path], None]) -> Path:
    """Find a graph, or write it and delete those that were not used for the longest time.

    If several processes want the same graph, one writes it and the others wait.

    Args:
        key: Names all that the graph depends on, in characters that a file's name may have.
        write: Writes its files into the empty folder that it is given.

    Returns:
        The folder of the graph.

    Raises:
        OSError: If the folder cannot be written.
    """
    above = graphs_folder()
    above.mkdir(parents=True, exist_ok=True)
    waiting = partial(print_line, f"upernet: {above / key}: waiting for another process that prepares it", sys.stderr)
    with lock(above / f"{key}.lock", waiting):
        found = find_graph(key)
        if found is not None:
            return found

        def write_checked(folder: Path) -> None:
            write(folder)
            files = (path for path in folder.rglob("*") if path.is_file())
            checks = {path.relative_to(folder).as_posix(): _check(path) for path in files}
            (folder / CHECKS).write_text(json.dumps(checks))

        write_whole_folder(above / key, write_checked)
    remove_unfinished(above)
    _delete_oldest(above, newest=above / key)
    return above / key


def _check(path: Path) -> list[int]:
    """Size and CRC-32 of a file."""
    size = value = 0
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            size, value = size + len(chunk), isal_zlib.crc32(chunk, value)
    return [size, value]


def _delete_oldest(above: Path, newest: Path) -> None:
    """Delete the folders of graphs that were not used for the longest time, until `MOST_BYTES` hold all others."""
    used = {}
    for folder in above.iterdir():
        with suppress(OSError):  # another process has deleted it
            if folder.is_dir() and folder != newest and (folder / CHECKS).exists():
                sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
                used[folder] = folder.stat().st_mtime, sum(sizes)
    total = 0
    for folder, (_, size) in sorted(used.items(), key=lambda one: one[1][0], reverse=True):
        total += size
        if total > MOST_BYTES:
            shutil.rmtree(folder, ignore_errors=True)
