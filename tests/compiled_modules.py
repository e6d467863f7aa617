"""Compiled modules of a test session, kept in a folder of their own where the environment forbids them elsewhere.

Containers often set PYTHONDONTWRITEBYTECODE. Every process that a test starts would then compile PyTorch anew, which
takes longer than all else that it does. Import this module before PyTorch. Nothing happens where PyTorch is compiled.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path


def _is_compiled(module: str) -> bool:
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.cached is not None and Path(spec.cached).is_file()


if sys.dont_write_bytecode and not _is_compiled("torch"):
    folder = tempfile.mkdtemp(prefix="upernet-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    sys.dont_write_bytecode, sys.pycache_prefix = False, folder
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": folder}
