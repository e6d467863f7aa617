"""Importing modules from the working folder, but only those that the user names."""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

VARIABLE = "UPERNET_MODULES"
"""Environment variable that tells started processes which modules to find: a folder, then their names."""


class FolderFinder(MetaPathFinder):
    """Finds modules in one folder if they are allowed, after Python has looked everywhere else.

    Attributes:
        folder: The folder.
        allowed: Names of top-level modules and packages.
    """

    def __init__(self, folder: str, allowed: Iterable[str] = ()) -> None:
        self.folder, self.allowed = folder, set(allowed)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a top-level module. Python itself finds what lies inside a package."""
        return PathFinder.find_spec(fullname, [self.folder]) if path is None and fullname in self.allowed else None


def allow_modules(names: Iterable[str]) -> None:
    """Let Python find the named modules in the working folder, and the modules there that these import.

    No other file of the folder is executed because of its name: libraries try to import modules that may not be
    installed, such as `dill`, and would find a file `dill.py` beside somebody's photographs. Processes that this one
    starts find the same modules.

    Args:
        names: Modules that the user has named, such as `my_project.tasks`.
    """
    here = Path.cwd()
    finder = _finder_of(os.fspath(here))
    waiting = {name.partition(".")[0] for name in names}
    while waiting:
        package = waiting.pop()
        files = _files_of(here, package)
        if package in finder.allowed or not files or _is_found(package):
            continue
        finder.allowed.add(package)
        waiting.update(name for file in files for name in _imported_by(file))
    if finder.allowed:
        os.environ[VARIABLE] = os.pathsep.join([finder.folder, *sorted(finder.allowed)])


def find_again() -> None:
    """In a process that a command has started: find the modules that the command has allowed."""
    folder, *allowed = os.environ[VARIABLE].split(os.pathsep)
    _finder_of(folder).allowed.update(allowed)


def _finder_of(folder: str) -> FolderFinder:
    for finder in sys.meta_path:
        if isinstance(finder, FolderFinder) and finder.folder == folder:
            return finder
    sys.meta_path.append(made := FolderFinder(folder))
    return made


def _files_of(folder: Path, package: str) -> list[Path]:
    if not package.isidentifier():
        return []
    module = folder / f"{package}.py"
    return [module] if module.is_file() else sorted((folder / package).rglob("*.py"))


def _imported_by(file: Path) -> Iterator[str]:
    """Top-level names of the modules that a file imports, wherever in it; none if it cannot be parsed."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _is_found(package: str) -> bool:
    try:
        return package in sys.modules or importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False
