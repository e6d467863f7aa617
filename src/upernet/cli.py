"""The command line: each subcommand is the public function of the module with its name."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from upernet.config import UserError, WorkError

COMMANDS = ("predict", "train", "evaluate")
CONFIGS = Path(__file__).parent / "configs"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0, 1 if work failed, 2 if the command was used wrongly, 130 after Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in ("--version", "-V"):
        from importlib.metadata import version

        print(f"upernet {version('upernet')}")
        return 0
    if not words or words[0] in ("--help", "-h", "help"):
        print(_overview())
        return 0 if words else 2
    if words[0] not in COMMANDS:
        print(f"upernet: no command {words[0]!r}; commands: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        return _function(words[0])(**read_options(words[0], words[1:]))
    except UserError as error:
        print(f"upernet: {error}", file=sys.stderr)
        return 1 if isinstance(error, WorkError) else 2
    except OSError as error:
        print(f"upernet: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("upernet: stopped", file=sys.stderr)
        return 130


def _overview() -> str:
    lines = ["usage: upernet COMMAND …", "", "Unified Perceptual Parsing with UPerNet.", ""]
    for name in COMMANDS:
        summary = (inspect.getdoc(_function(name)) or "").splitlines()[0]
        lines.append(f"  {name:<10} {summary}")
    return "\n".join(
        [*lines, "", "upernet COMMAND --help tells each command's options; upernet --version the version."]
    )


def _function(name: str) -> Callable[..., int]:
    return getattr(importlib.import_module(f"upernet.{name}"), name)


def read_options(name: str, words: Sequence[str]) -> dict[str, Any]:
    """A command's arguments from its words: the keyword arguments of its function.

    Raises:
        UserError: If there is an option, a key or a value that the command does not know.
        SystemExit: After `--help`.
    """
    from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

    from upernet.data.source import Source
    from upernet.tasks.base import Task

    set_parsing_settings(subclasses_enabled=[Task, Source])
    function = _function(name)
    parameters = inspect.signature(function).parameters
    parser = ArgumentParser(
        prog=f"upernet {name}", description=(inspect.getdoc(function) or "").split("\n\n")[0], exit_on_error=False
    )
    skip: set[str | int] = set()
    if "inputs" in parameters:
        parser.add_argument("inputs", nargs="+", metavar="INPUT", help="Image files, folders or quoted globs.")
        skip.add("inputs")
    if "data" in parameters:
        parser.add_argument(
            "--config", action="config", help="YAML file, own or shipped; later ones change earlier ones."
        )
        # A training file also serves to evaluate: its other blocks are read and left alone.
        for block in {"tasks", "optim", "run", "inference"} - parameters.keys():
            parser.add_argument(f"--{block}", type=Any, help="Not used by this command.")
    parser.add_function_arguments(function, as_positional=False, skip=skip)
    try:
        options = parser.instantiate(parser.parse_args([_shipped(words, i) for i in range(len(words))]))
    except (ArgumentError, TypeError, ValueError) as error:
        raise UserError(f"{name}: {' '.join(str(error).split())}; upernet {name} --help lists the options") from error
    return {key: options[key] for key in parameters}


def _shipped(words: Sequence[str], i: int) -> str:
    """A `--config` value that is no file here but one inside the package becomes that file's path."""
    word = words[i]
    flag, equals, value = word.partition("=")
    if flag == "--config" and equals:
        return f"{flag}={_shipped_path(value)}"
    return _shipped_path(word) if i and words[i - 1] == "--config" else word


def _shipped_path(value: str) -> str:
    return str(CONFIGS / value) if not Path(value).exists() and (CONFIGS / value).is_file() else value
