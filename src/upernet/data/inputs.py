"""Finding the image files that a command line names by files, folders and globs."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from upernet.errors import UserError

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif"),
)
"""Suffixes of the files that a folder is searched for, in upper or lower case. A file that is named itself may have any
suffix."""


def find_images(inputs: Sequence[str | Path]) -> tuple[dict[Path, Path], list[UserError]]:
    """Find the image files that files, folders and globs stand for.

    A folder is searched to any depth for files with one of `SUFFIXES`, hidden files and folders left out. Of the files
    that a glob matches (`**` reaches any depth), those with one of `SUFFIXES` are taken. Both give sorted files.
    A file that is named itself is taken whatever its suffix. A file that is found twice counts once.

    Returns:
        Each image → its relative path below the input it came from (`photos/` holding `a/b.jpg` gives `a/b.jpg`, a file
        gives its name); and one error for each input that holds no image or does not exist, and for each folder that
        cannot be read.
    """
    found: dict[Path, Path] = {}
    errors: list[UserError] = []
    seen: set[str] = set()
    for source in inputs:
        try:
            root, paths = _expand(source, errors)
        except UserError as error:
            errors.append(error)
        except OSError as error:  # a name that is too long, a parent folder that cannot be entered
            errors.append(UserError(f"{source}: {error.strerror}"))
        else:
            for path in paths:
                absolute = os.path.abspath(path)
                if absolute not in seen:
                    seen.add(absolute)
                    # A glob may climb ('*/../x.jpg'); a path below the output folder must not.
                    found[path] = Path(*(part for part in path.relative_to(root).parts if part != ".."))
    return found, errors


def _expand(source: str | Path, errors: list[UserError]) -> tuple[Path, list[Path]]:
    """The folder that an input's relative paths start from, and its images; `errors` gets the unreadable folders."""
    path = Path(source)
    if path.is_dir():
        unreadable: list[OSError] = []
        images = [file for file in _walk(path, unreadable) if file.suffix.lower() in SUFFIXES]
        errors += [UserError(f"{error.filename}: {error.strerror}") for error in unreadable]
        if not images and not unreadable:
            raise UserError(f"{source}: no image in this folder; looked for {', '.join(SUFFIXES)}")
        return path, images
    if path.exists():
        return path.parent, [path]
    if glob.has_magic(str(source)):
        matches = (Path(match) for match in sorted(glob.glob(str(source), recursive=True)))
        images = [match for match in matches if match.suffix.lower() in SUFFIXES and match.is_file()]
        if not images:
            raise UserError(f"{source}: matches no image; try a pattern such as 'photos/*.jpg'")
        return _fixed_part(path), images
    raise UserError(f"{source}: no such file or folder")


def _walk(root: Path, unreadable: list[OSError]) -> Iterator[Path]:
    for folder, below, files in os.walk(root, onerror=unreadable.append):
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(files) if not name.startswith("."))


def _fixed_part(pattern: Path) -> Path:
    """The folder before the first wildcard of a pattern."""
    parts = pattern.parts[:-1]
    fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return Path(*parts[:fixed])
