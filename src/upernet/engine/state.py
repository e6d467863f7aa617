"""What a run needs to be resumed: one file in its folder, and the settings that must not change."""

from __future__ import annotations

import pickle
import re
from dataclasses import MISSING, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from upernet.errors import UserError, WorkError
from upernet.files import write_whole
from upernet.plain import Configurable, to_plain

FILE = "state.pt"
WORLD = "processes"
"""Key of a setting that no YAML file holds: the number of processes that train together."""
MAY_CHANGE = re.compile(
    r"run\.(out|steps|device|checkpoint|val_every|save_every|log_every|half|resume)|data\.(workers|protocol)"
    r"|data\.sources\..*\.(dataset\.init_args\.root|faults)"
)
"""Settings that may change when a run is resumed: its length, bookkeeping and figures, the folders of the data, and
what happens at faults in them."""


def flat_settings(**blocks: Any) -> dict[str, str]:
    """The settings that a resumed run must share with the run before, as flat text: `optim.lr` → `0.01`."""
    flat: dict[str, str] = {}
    for name, block in blocks.items():
        flat |= _flatten(name, to_plain(block))
    return {key: value for key, value in flat.items() if not MAY_CHANGE.fullmatch(key)}


def flat_defaults(**blocks: Any) -> dict[str, str]:
    """The defaults of settings, as flat text, those of tasks, sources and other objects in the blocks too."""
    flat: dict[str, str] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}.{key}", inner)
        if not is_dataclass(value) or isinstance(value, type):
            return
        place = f"{prefix}.init_args" if isinstance(value, Configurable) else prefix
        for one in fields(value):
            default = one.default if one.default_factory is MISSING else one.default_factory()
            if one.init and default is not MISSING:
                flat.update(_flatten(f"{place}.{one.name}", to_plain(default)))
            if one.init:
                walk(f"{place}.{one.name}", getattr(value, one.name))

    for name, block in blocks.items():
        walk(name, block)
    return flat


def _flatten(prefix: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        return {prefix: str(value)}
    return {k: text for key, inner in value.items() for k, text in _flatten(f"{prefix}.{key}", inner).items()}


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Write the state of a run into its folder, whole or not at all."""
    write_whole(folder / FILE, partial(torch.save, state))


def read_state(
    folder: Path, settings: dict[str, str], defaults: dict[str, str], steps: int, device: torch.device
) -> dict[str, Any] | None:
    """Read the state of the run in a folder; none if there is no run.

    Args:
        folder: The run folder.
        settings: Settings of the run that wants to resume.
        defaults: Their defaults.
        steps: Its length in steps.
        device: Where the tensors are put.

    Raises:
        UserError: If the run was made with other settings, or has more steps already.
        WorkError: If the file is damaged.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        state = torch.load(file, map_location=device, weights_only=True)
        before, step = state["settings"], int(state["step"])
    except (RuntimeError, KeyError, TypeError, ValueError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise WorkError(f"{file}: damaged; delete it to start afresh, or choose another run.out") from error
    known = {key.rpartition(".")[0] for key in before} | {""}
    for key in sorted(before.keys() | settings.keys()):
        # A run that lacks an option was made before the option existed, and behaved as its default does. If it has no
        # other option of the same object, it lacks the object itself.
        usual = defaults.get(key) if key.rpartition(".")[0] in known else None
        old, new = before.get(key, usual), settings.get(key, usual)
        if old != new and key == WORLD:
            reason = f"holds a run of {old} processes, each with its own part of every batch, not of {new}"
            raise UserError(f"{folder}: {reason}; start as many, or choose another run.out")
        if old != new:
            raise UserError(f"{folder}: holds a run with {key} {old!r}, not {new!r}; choose another run.out")
    if step > steps:
        raise UserError(f"run.steps: {steps}, but {folder} holds a run at step {step}; give at least {step}")
    return state
