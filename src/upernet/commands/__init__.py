"""The command line's subcommands: each is the public function of the module of its name."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

COMMANDS = ("predict", "train", "evaluate", "benchmark", "prepare", "convert", "models")


def find_command(name: str) -> Callable[..., int]:
    """The function of a subcommand; it returns the exit status."""
    function: Callable[..., int] = getattr(import_module(f"upernet.commands.{name}"), name)
    return function
