"""Importing modules from the working folder, but only those that the user names."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path


def allow_modules(names: Iterable[str]) -> None:
    """Let Python find modules in the working folder, after all other places, if a named module lies only there.

    Otherwise the working folder is not searched, so that no file is executed because of its name: libraries try to
    import modules that may not be installed, such as `dill`, and would find a file `dill.py` beside somebody's
    photographs.

    Args:
        names: Modules that the user has named, such as `my_project.tasks`.
    """
    here = Path.cwd()
    for package in {name.partition(".")[0] for name in names}:
        lies_here = (here / f"{package}.py").is_file() or (here / package).is_dir()
        if package.isidentifier() and lies_here and not _is_found(package) and os.fspath(here) not in sys.path:
            sys.path.append(os.fspath(here))


def _is_found(package: str) -> bool:
    try:
        return package in sys.modules or importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False
