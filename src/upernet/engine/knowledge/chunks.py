"""Unfinished work on disk: what was observed in each chunk of images, and the settings that it belongs to."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from upernet.engine.knowledge.observation import Observation
from upernet.errors import UserError, WorkError
from upernet.files import write_whole

SETTINGS = "settings.json"


def chunk_file(folder: Path, number: int) -> Path:
    """The file of a chunk, by its number."""
    return folder / f"chunk-{number:07d}.npz"


def claim(folder: Path, settings: Mapping[str, str]) -> None:
    """Make the folder of unfinished work, or take up the one that is there.

    Args:
        folder: The folder.
        settings: Everything that observations depend on, by name.

    Raises:
        UserError: If the folder holds the work of another call; the line names the first setting that differs.
    """
    path = folder / SETTINGS
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write_whole(path, lambda file: file.write(json.dumps(dict(settings), indent=1).encode()))
        return
    before = read_settings(folder)
    differing = [name for name in {**settings, **before} if settings.get(name) != before.get(name)]
    if differing:
        raise UserError(
            f"{folder}: holds the unfinished work of a call with other settings ({differing[0]} differs); "
            "repeat that call, give another --out, or delete the folder"
        )


def read_settings(folder: Path) -> dict[str, str]:
    """The settings of the unfinished work in a folder; empty if there is none, or they are damaged."""
    try:
        content = dict(json.loads((folder / SETTINGS).read_text()))
    except (OSError, ValueError, TypeError):
        return {}
    return {name: str(value) for name, value in content.items()}


def write_chunk(path: Path, observations: Sequence[Observation]) -> None:
    """Write what the images of a chunk tell, in their order."""
    write_whole(
        path,
        partial(
            np.savez_compressed,
            sizes=np.array([seen.size for seen in observations], np.int64),
            origins=np.stack([seen.origins for seen in observations]),
            class_counts=np.array([len(seen.classes) for seen in observations], np.int64),
            classes=np.concatenate([seen.classes for seen in observations]),
            pair_counts=np.array([len(seen.pairs) for seen in observations], np.int64),
            pairs=np.concatenate([seen.pairs for seen in observations]),
            faults=np.array([seen.fault for seen in observations], np.str_),
        ),
    )


def read_chunk(path: Path) -> list[Observation]:
    """Read what `write_chunk` has written.

    Raises:
        WorkError: If the file is missing or damaged.
    """
    try:
        with np.load(path) as content:
            arrays = {name: content[name] for name in content.files}
        classes = np.split(arrays["classes"], np.cumsum(arrays["class_counts"])[:-1])
        pairs = np.split(arrays["pairs"], np.cumsum(arrays["pair_counts"])[:-1])
        rows = zip(arrays["sizes"], arrays["origins"], classes, pairs, arrays["faults"], strict=True)
        return [Observation(int(size), origins, c, p, str(fault)) for size, origins, c, p, fault in rows]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        hint = "--out must be a folder that all machines share; a damaged file can be deleted, then repeat the command"
        raise WorkError(f"{path}: no observations can be read here; {hint}") from error
