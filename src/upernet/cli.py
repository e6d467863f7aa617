"""The command line: runs a command, tells its errors in one line each, and returns an exit code."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Sequence

from upernet.commands import COMMANDS, find_command
from upernet.errors import UserError, WorkError
from upernet.options import read_options
from upernet.screen import print_line

EXTRAS = dict.fromkeys(("lightning", "torchmetrics", "tensorboard", "scipy"), "train")
EXTRAS |= dict.fromkeys(("plotly", "pyarrow"), "discover")
"""Package that may be missing → the extra that installs it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0, 1 if work failed, 2 if the command was used wrongly, 130 after Ctrl-C."""
    if arguments is None:
        # Processes that this program starts would put the working folder before all other places of modules.
        os.environ.setdefault("PYTHONSAFEPATH", "1")
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in ("--version", "-V"):
        from importlib.metadata import version

        print(f"upernet {version('upernet')}")
        return 0
    if not words or words[0] in ("--help", "-h", "help"):
        print(_overview())
        return 0 if words else 2
    if words[0] not in COMMANDS:
        print_line(f"upernet: no command {words[0]!r}; commands: {', '.join(COMMANDS)}", sys.stderr)
        return 2
    try:
        return find_command(words[0])(**read_options(words[0], words[1:]))
    except UserError as error:
        print_line(f"upernet: {error}", sys.stderr)
        return 1 if isinstance(error, WorkError) else 2
    except BrokenPipeError:
        sys.stdout = None  # nobody reads any more; the interpreter must not flush at exit
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print_line(f"upernet: {where}{error.strerror or error}", sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in EXTRAS:
            raise
        extra = "discover" if words[0] == "discover" else EXTRAS[missing]
        print_line(f"upernet: {words[0]} needs {error.name}; pip install 'upernet[{extra}]'", sys.stderr)
        return 2
    except KeyboardInterrupt:
        print_line("upernet: stopped", sys.stderr)
        return 130


def _overview() -> str:
    lines = ["usage: upernet COMMAND …", "", "Unified Perceptual Parsing with UPerNet.", ""]
    for name in COMMANDS:
        summary = (inspect.getdoc(find_command(name)) or "").splitlines()[0]
        lines.append(f"  {name:<10} {summary}")
    return "\n".join(
        [*lines, "", "upernet COMMAND --help tells each command's options; upernet --version the version."]
    )
