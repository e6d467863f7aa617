"""The command line: each subcommand is the public function of the module of that name in `upernet.commands`."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from upernet.errors import UserError, WorkError

COMMANDS = ("predict", "train", "evaluate", "benchmark", "prepare", "convert", "models")
CONFIGS = Path(__file__).parent / "configs"
INPUTS = {
    "predict": ("INPUT", "Image files, folders or quoted globs."),
    "prepare": ("WORD", "What to prepare (cityscapes or voc_aug), then the folder of the data set."),
    "convert": (
        "PATH",
        "What to read (a file, a folder, the authors' two files, a name, an address), then where to write.",
    ),
}
"""How the words without option are called in a command's help."""


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
    except BrokenPipeError:
        sys.stdout = None  # nobody reads any more; the interpreter must not flush at exit
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"upernet: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("lightning", "torchmetrics", "tensorboard", "scipy"):
            raise
        print(f"upernet: {words[0]} needs {error.name}; pip install 'upernet[train]'", file=sys.stderr)
        return 2
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
    return getattr(importlib.import_module(f"upernet.commands.{name}"), name)


def read_options(name: str, words: Sequence[str]) -> dict[str, Any]:
    """A command's arguments from its words: the keyword arguments of its function.

    Raises:
        UserError: If there is an option, a key or a value that the command does not know.
        SystemExit: After `--help`.
    """
    from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

    from upernet.contract import Loss, Task
    from upernet.data.source import Source

    set_parsing_settings(
        subclasses_enabled=[Task, Source, Loss],
        docstring_parse_attribute_docstrings=True,
        instantiate_subclass_spec_in_any=False,  # a stranger's file must not choose what is run
    )
    # A module of the user's own, named in YAML, may lie where the command is run; last, so that it shadows nothing.
    sys.path.append(os.getcwd())
    function = _function(name)
    parameters = inspect.signature(function).parameters
    parser = ArgumentParser(
        prog=f"upernet {name}", description=(inspect.getdoc(function) or "").split("\n\n")[0], exit_on_error=False
    )
    skip: set[str | int] = set()
    unread = {"tasks", "optim", "run", "inference"} - parameters.keys() if "data" in parameters else set()
    if "inputs" in parameters:
        metavar, meaning = INPUTS[name]
        parser.add_argument("inputs", nargs="+", metavar=metavar, help=meaning)
        skip.add("inputs")
    if "data" in parameters:
        parser.add_argument(
            "--config", action="config", help="YAML file, own or shipped; later ones change earlier ones."
        )
        parser.add_argument("--base", type=str, help="In a YAML file: another one, relative to it, that it changes.")
        # A training file also serves to evaluate: its other blocks are read and left alone.
        for block in unread:
            parser.add_argument(f"--{block}", type=Any, help="Not used by this command.")
    parser.add_function_arguments(function, as_positional=False, skip=skip)
    needed = "data" in parameters and parameters["data"].default is inspect.Parameter.empty
    if needed and not {"-h", "--help"} & set(words) and not any(w.startswith("--config") for w in words):
        shipped = [name for name in shipped_configs() if not name.startswith("base/")]
        raise UserError(f"{name}: give --config mine.yaml; shipped ones: {', '.join(shipped)}")
    configs, plain = _plain_words(words, parameters)
    try:
        options = parser.instantiate(parser.parse_args(configs + plain))
    except (ArgumentError, TypeError, ValueError) as error:
        where = _culprit(parser, configs, error) or name
        said = _plainly(error, list(parser.get_defaults().keys()))
        raise UserError(f"{where}: {said}; upernet {name} --help lists the options") from error
    return {key: options[key] for key in parameters}


def _plainly(error: Exception, keys: Sequence[str]) -> str:
    """What jsonargparse says of a value or a key, in one line that names valid ones.

    Args:
        error: What it raised.
        keys: All options, such as `optim.lr`.
    """
    text = " ".join(str(error).split())
    text = re.sub(r"<class '([\w.]*)'>", r"\1", re.sub(r"a typing\.Literal\[(.*?)\]", r"one of \1", text))
    union = re.search(r"Does not validate against any of the Union subtypes Subtypes: \[(.*)\] Errors: .*", text)
    if union:
        kinds = re.sub(r"typing\.Literal\[(.*?)\]", r"\1", union[1].replace("NoneType", "null"))
        value = text.rpartition("Given value: ")[2]
        text = f"{text[: union.start()]}{value} is none of {kinds}"
    group = re.search(r"Group '(.*?)' does not accept option '(.*?)'", text)
    if group:
        valid = [key.removeprefix(f"{group[1]}.") for key in keys if key.startswith(f"{group[1]}.")]
        text += f"; valid: {', '.join(valid)}"
    unknown = re.search(r"unrecognized arguments: --([\w.-]+)|Option '([\w.-]+)' is not accepted", text)
    near = get_close_matches(unknown[1] or unknown[2], keys, n=3) if unknown else []
    return text + (f"; did you mean {' or '.join(near)}?" if near else "")


def _culprit(parser: Any, configs: Sequence[str], error: Exception) -> str | None:
    """The file of several with which an error begins; none if it is an option's."""
    from jsonargparse import ArgumentError

    for end in range(2, len(configs) + 1, 2):
        try:
            parser.parse_args(list(configs[:end]))
        except (ArgumentError, TypeError, ValueError) as first:
            if str(first) == str(error):
                return configs[end - 1]
    return None


def _plain_words(words: Sequence[str], parameters: Mapping[str, inspect.Parameter]) -> tuple[list[str], list[str]]:
    """Words as people type them, as jsonargparse wants them: the configurations, and the rest.

    Configurations come first, so that options change them wherever they stand, and those inside the package go by
    their name there; `--flag` alone means true, and one word where a list is wanted a list of one. A command that takes
    no words without option has lists of all words up to the next option.
    """
    configs, rest = [], []
    queue = [part for w in words for part in (w.split("=", 1) if w.startswith("--") and "=" in w else [w])]
    while queue:
        word = queue.pop(0)
        kind = str(parameters[word[2:]].annotation) if word[2:] in parameters and word.startswith("--") else ""
        if word == "--config" and queue:
            configs += [part for path in _with_bases(_shipped_path(queue.pop(0))) for part in (word, path)]
        elif kind == "bool" and (not queue or queue[0].lower() not in ("true", "false")):
            rest += [word, "true"]
        elif kind.startswith(("list[", "tuple[")) and "inputs" not in parameters and not _is_list(queue):
            count = next((i for i, w in enumerate(queue) if w.startswith("--")), len(queue))
            rest += [word, f"[{','.join(queue[:count])}]"]
            queue = queue[count:]
        elif kind.startswith("list[str]") and queue and not queue[0].startswith("["):
            rest += [word, f"[{queue.pop(0)}]"]
        else:
            rest.append(word)
    return configs, rest


def _is_list(words: Sequence[str]) -> bool:
    """Whether a value comes first that is written as a list already, or as none."""
    return bool(words) and (words[0].startswith("[") or words[0] == "null")


def _with_bases(path: str, above: tuple[Path, ...] = ()) -> list[str]:
    """A configuration after the ones that its key `base` names, each relative to the file that names it.

    Raises:
        UserError: If a file does not exist, is no YAML or is its own base.
    """
    file = Path(path)
    if not file.is_file():
        shipped = [name for name in shipped_configs() if not name.startswith("base/")]
        near = get_close_matches(path, shipped, n=3) or shipped
        raise UserError(f"{path}: no such file; shipped are {', '.join(near)}")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        said = " ".join(str(error).replace(' in "<unicode string>",', "").split())
        raise UserError(f"{path}: no YAML ({said})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: no configuration; expected blocks such as model, tasks and data")
    base = content.get("base")
    if base is None:
        return [path]
    found = file.parent / str(base)
    if not found.is_file():
        raise UserError(f"{path}: base {base!r} is no file; name one relative to {file.parent}")
    if found.resolve() in (file.resolve(), *above):
        raise UserError(f"{path}: base {base!r} leads back to it")
    return [*_with_bases(str(found), (*above, file.resolve())), path]


def shipped_configs() -> list[str]:
    """Names of the YAML files in the package; those in `base/` are no recipes but what several share."""
    return sorted(p.relative_to(CONFIGS).as_posix() for p in CONFIGS.rglob("*.yaml"))


def _shipped_path(value: str) -> str:
    return str(CONFIGS / value) if not Path(value).exists() and (CONFIGS / value).is_file() else value
