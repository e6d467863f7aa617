"""A command's words as the arguments of its function.

Training files are read, checked and merged by `recipes` and `plain`. jsonargparse reads the words that change what
they say, and writes the help. What comes of both is built by `plain`, which also builds what model folders hold.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import pairwise
from typing import Any, get_args, get_origin, get_type_hints

from upernet.commands import find_command
from upernet.errors import UserError
from upernet.plain import class_paths, from_plain
from upernet.plain.expectations import is_union
from upernet.recipes import Recipe, combine, merge_recipes, read_recipe, shipped_recipes
from upernet.working_folder import allow_modules
from upernet.yaml_files import parse_yaml, write_yaml

INPUTS = {
    "predict": ("INPUT", "Image files, folders or quoted globs."),
    "prepare": ("WORD", "What to prepare (cityscapes or voc_aug), then the folder of the data set."),
    "convert": (
        "PATH",
        "What to read (a file, a folder, the authors' two files, a name, an address), then where to write.",
    ),
}
"""How the words without option are called in a command's help."""


def read_options(name: str, words: Sequence[str]) -> dict[str, Any]:
    """A command's arguments from its words: the keyword arguments of its function.

    Raises:
        UserError: If there is an option, a key or a value that the command does not know.
        SystemExit: After `--help`.
    """
    function = find_command(name)
    parameters = inspect.signature(function).parameters
    kinds = {key: kind for key, kind in get_type_hints(function).items() if key in parameters}
    paths, rest = _sort_words(words, kinds)
    needed = "data" in parameters and parameters["data"].default is inspect.Parameter.empty
    if needed and not paths and not {"-h", "--help"} & set(words):
        raise UserError(f"{name}: give --config mine.yaml; shipped ones: {', '.join(shipped_recipes())}")
    recipes = [recipe for path in paths for recipe in read_recipe(path)]
    allow_modules(_modules_named(recipes, rest, kinds))
    stages = merge_recipes(recipes, kinds)
    values = _read_words(name, function, rest, stages, kinds)
    try:
        return _build(kinds, values)
    except UserError as error:
        raise type(error)(f"{_origin(stages, kinds, str(error)) or name}: {error}") from error


def _build(kinds: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: from_plain(kind, values[key], key) for key, kind in kinds.items() if key in values}


def _origin(stages: Sequence[Recipe], kinds: Mapping[str, Any], said: str) -> str | None:
    """The first of several files with which an error begins; none if the words on the command line are to blame."""
    for path, values in stages:
        try:
            _build(kinds, values)
        except UserError as error:
            if str(error) == said:
                return path
    return None


def _modules_named(recipes: Sequence[Recipe], words: Sequence[str], kinds: Mapping[str, Any]) -> Iterator[str]:
    """Modules from which files and words want classes, and those that the user trusts."""
    blocks: list[Any] = [value for _, said in recipes for key, value in said.items() if key in kinds]
    for option, value in pairwise(words):
        if option.startswith("--") and value.startswith(("[", "{")):
            loaded = parse_yaml(value)
            blocks.append(loaded)
            if option == "--trust" and isinstance(loaded, list):
                yield from map(str, loaded)
        elif option.endswith(".class_path"):
            blocks.append({"class_path": value})
    for block in blocks:
        for _, path in class_paths(block, ""):
            yield path.rpartition(".")[0]


def _read_words(
    name: str,
    function: Callable[..., int],
    words: Sequence[str],
    stages: Sequence[Recipe],
    kinds: Mapping[str, Any],
) -> dict[str, Any]:
    """What the words make of the files and the defaults, as plain values."""
    from jsonargparse import ArgumentError

    parser = _make_parser(name, function)
    files = ["--config", write_yaml(stages[-1][1])] if stages else []
    try:
        return {k: v for k, v in parser.parse_args([*files, *words]).as_dict().items() if k in kinds}
    except (ArgumentError, TypeError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())
        try:
            _explain(said, words, stages[-1][1] if stages else {}, kinds)
        except UserError as ours:
            raise type(ours)(f"{_origin(stages, kinds, str(ours)) or name}: {ours}") from error
        said += _close_options(said, parser.get_defaults().keys())
        raise UserError(f"{name}: {said}; upernet {name} --help lists the options") from error


def _explain(said: str, words: Sequence[str], values: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """Say in our words what jsonargparse refuses: it names neither the task or source that it means nor a valid value.

    Args:
        said: Its error.
        words: The words on the command line.
        values: What the files say.
        kinds: Types of the command's arguments.

    Raises:
        UserError: If it is a key that the files lack, or a word of a wrong type.
    """
    if "required" in said:
        _build(kinds, values)
    refused = re.search(r'Parser key "([\w.]+)"', said)
    for option, word in pairwise(words):
        key = option.removeprefix("--")
        if not (refused and option.startswith("--") and f"{key}.".startswith(f"{refused[1]}.")):
            continue
        first, *inner = key.split(".")
        faults = []
        for value in (word, parse_yaml(word)):  # what is wanted may be a string
            for part in reversed(inner):
                value = {part: value}
            try:
                combine(kinds[first], values.get(first), value, first)
            except UserError as error:
                faults.append(error)
        if len(faults) == 2:
            raise faults[1]


def _close_options(said: str, keys: Iterable[str]) -> str:
    """Options whose names are like the one that jsonargparse does not know, to end its line."""
    unknown = re.search(r"unrecognized arguments: --([\w.-]+)", said)
    near = get_close_matches(unknown[1], list(keys), n=3) if unknown else []
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _make_parser(name: str, function: Callable[..., int]) -> Any:
    from jsonargparse import ArgumentParser, set_parsing_settings

    from upernet.contract import Loss, Task
    from upernet.data.source import Source

    set_parsing_settings(subclasses_enabled=[Task, Source, Loss], docstring_parse_attribute_docstrings=True)
    parameters = inspect.signature(function).parameters
    parser = ArgumentParser(
        prog=f"upernet {name}", description=(inspect.getdoc(function) or "").split("\n\n")[0], exit_on_error=False
    )
    skip: set[str | int] = set()
    if "inputs" in parameters:
        metavar, meaning = INPUTS[name]
        parser.add_argument("inputs", nargs="+", metavar=metavar, help=meaning)
        skip.add("inputs")
    if "data" in parameters:
        parser.add_argument(
            "--config",
            action="config",
            help="YAML file, own or shipped. A later file changes earlier ones. A file also changes the one that its "
            "key `base` names, a path relative to it.",
        )
    parser.add_function_arguments(function, as_positional=False, skip=skip)
    return parser


def _sort_words(words: Sequence[str], kinds: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The training files that are named, and all other words as jsonargparse wants them.

    `--flag` alone means true, and one word where a list is wanted a list of one. A command that takes no words without
    option has lists of all words up to the next option.
    """
    files, rest = [], []
    queue = [part for w in words for part in (w.split("=", 1) if w.startswith("--") and "=" in w else [w])]
    while queue:
        word = queue.pop(0)
        kind = kinds.get(word[2:]) if word.startswith("--") else None
        if word == "--config" and "data" in kinds and queue:
            files.append(queue.pop(0))
        elif kind is bool and (not queue or queue[0].lower() not in ("true", "false")):
            rest += [word, "true"]
        elif _wants_list(kind) and "inputs" not in kinds and not _is_list(queue):
            count = next((i for i, w in enumerate(queue) if w.startswith("--")), len(queue))
            rest += [word, f"[{','.join(queue[:count])}]"]
            queue = queue[count:]
        elif _wants_list(kind) and queue and not _is_list(queue):
            rest += [word, f"[{queue.pop(0)}]"]
        else:
            rest.append(word)
    return files, rest


def _wants_list(kind: Any) -> bool:
    return any(get_origin(one) in (list, tuple) for one in (get_args(kind) if is_union(kind) else (kind,)))


def _is_list(words: Sequence[str]) -> bool:
    """Whether a value comes first that is written as a list already, or as none."""
    return bool(words) and (words[0].startswith("[") or words[0] == "null")
