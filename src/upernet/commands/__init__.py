"""The subcommands of the command line. Each is the public function of the module of the same name."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

COMMANDS = ("predict", "train", "evaluate", "discover", "benchmark", "prepare", "labels", "convert", "export", "models")


def find_command(name: str) -> Callable[..., int]:
    """Import the function of a subcommand. It returns the exit status."""
    function: Callable[..., int] = getattr(import_module(f"upernet.commands.{name}"), name)
    return function
