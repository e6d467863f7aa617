"""Which image files a command line means: files, folders and globs."""

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
"""What a folder is searched for, whatever the case. A file named outright may have any suffix."""


def find_images(inputs: Sequence[str | Path]) -> tuple[dict[Path, Path], list[UserError]]:
    """The image files that files, folders and globs stand for.

    Folders are searched to any depth for `SUFFIXES`, in sorted order, leaving out hidden files and folders; so are the
    matches of a glob (`**` reaches any depth). A file named outright is taken whatever its suffix. A file met twice
    counts once.

    Returns:
        Each image with its place below the input it came from (`photos/` holding `a/b.jpg` gives `a/b.jpg`, a file
        gives its name); and one error for each input that holds no image or does not exist.
    """
    found: dict[Path, Path] = {}
    errors: list[UserError] = []
    met: set[str] = set()
    for given in inputs:
        try:
            root, paths = _expand(given, errors)
        except UserError as error:
            errors.append(error)
        except OSError as error:  # a name too long, a parent that may not be entered
            errors.append(UserError(f"{given}: {error.strerror}"))
        else:
            for path in paths:
                place = os.path.abspath(path)
                if place not in met:
                    met.add(place)
                    # A pattern may climb ('*/../x.jpg'), a place never does.
                    found[path] = Path(*(part for part in path.relative_to(root).parts if part != ".."))
    return found, errors


def _expand(given: str | Path, errors: list[UserError]) -> tuple[Path, list[Path]]:
    """One input's images and the folder their places are told from; folders that cannot be listed go to `errors`."""
    path = Path(given)
    if path.is_dir():
        unreadable: list[OSError] = []
        images = [file for file in _walk(path, unreadable) if file.suffix.lower() in SUFFIXES]
        errors += [UserError(f"{error.filename}: {error.strerror}") for error in unreadable]
        if not images and not unreadable:
            raise UserError(f"{given}: no image in this folder; looked for {', '.join(SUFFIXES)}")
        return path, images
    if path.exists():
        return path.parent, [path]
    if glob.has_magic(str(given)):
        matches = (Path(match) for match in sorted(glob.glob(str(given), recursive=True)))
        images = [match for match in matches if match.suffix.lower() in SUFFIXES and match.is_file()]
        if not images:
            raise UserError(f"{given}: matches no image; try a pattern such as 'photos/*.jpg'")
        return _fixed_part(path), images
    raise UserError(f"{given}: no such file or folder")


def _walk(root: Path, unreadable: list[OSError]) -> Iterator[Path]:
    for folder, below, files in os.walk(root, onerror=unreadable.append):
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(files) if not name.startswith("."))


def _fixed_part(pattern: Path) -> Path:
    """The folder in front of a pattern's first wildcard."""
    parts = pattern.parts[:-1]
    fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return Path(*parts[:fixed])
