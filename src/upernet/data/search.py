"""Finding the files and folders of a data set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from upernet.data.inputs import SUFFIXES
from upernet.errors import UserError


def image_files(folder: Path) -> list[Path]:
    """Image files below a folder, sorted by path, hidden ones left out.

    Raises:
        UserError: If the folder is missing or holds none.
    """
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not found:
        raise UserError(f"{folder}: no images; expected files ending {', '.join(sorted(SUFFIXES))}")
    return found


def read_lines(path: Path) -> list[str]:
    """Lines of a list of a data set, without those that are empty.

    Raises:
        UserError: If it cannot be read or is no text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no list of names ({error})") from error
    return [line.strip() for line in lines if line.strip()]


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name, hidden ones left out; none where it may not be entered.

    At most a hundred: somebody's whole disk is not searched.
    """
    try:
        found = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError:
        return []
    return found[:100]


def nearby_folders(folder: Path) -> Iterator[Path]:
    """Folders that may be meant where another is given: up to two levels below, then up to two above."""
    below = subfolders(folder)
    yield from below
    for each in below:
        yield from subfolders(each)
    yield from folder.absolute().parents[:2]
