"""Finding the files and folders of a data set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from upernet.data.inputs import SUFFIXES
from upernet.errors import UserError


def image_files(folder: Path) -> list[Path]:
    """Image files below a folder, sorted by path, without hidden files.

    Raises:
        UserError: If the folder is missing or holds no image.
    """
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not found:
        raise UserError(f"{folder}: no images; expected files ending {', '.join(sorted(SUFFIXES))}")
    return found


def read_lines(path: Path) -> list[str]:
    """Lines of a text file in which a data set lists names, stripped, without empty ones.

    Raises:
        UserError: If the file cannot be read or is not text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a list of names ({error})") from error
    return [line.strip() for line in lines if line.strip()]


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name, without hidden ones; empty if the folder cannot be read.

    There are at most a hundred, so that a mistaken path does not lead through a whole disk.
    """
    try:
        found = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError:
        return []
    return found[:100]


def nearby_folders(folder: Path) -> Iterator[Path]:
    """Folders that the user may have meant instead of this one: up to two levels below, then up to two above."""
    below = subfolders(folder)
    yield from below
    for child in below:
        yield from subfolders(child)
    yield from folder.absolute().parents[:2]
