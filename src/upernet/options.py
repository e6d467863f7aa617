"""Turning the words of a command line into the arguments of the command's function.

Training files are read, checked and merged by `recipes` and `plain`. jsonargparse reads the options, which change the
values of the files, and writes the help. `plain` then builds the objects, as it does for model folders.
"""

from __future__ import annotations

import inspect
import json
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
    "discover": ("INPUT", "Image files, folders or quoted globs; none if --config names the images."),
    "prepare": ("WORD", "The data set to prepare, broden_plus, cityscapes or voc_aug, then its folder."),
    "labels": ("DATA", "In place of --config: a folder with class names, or a data set such as cityscapes."),
    "convert": (
        "PATH",
        "The model to read (a file, a folder, the authors' two files, a name or an address), then the path to write.",
    ),
    "export": (
        "PATH",
        "The model to read (a name, a folder, a file or an address), then the .onnx or .pt2 file to write.",
    ),
}
"""Names and descriptions, in the help, of a command's words that belong to no option."""


_NAMES_CLASS = re.compile(r"--tasks\.\w+|--data\.sources\.\w+\.dataset|--.+\.class_path")
"""Options whose word may be the import path of a class, such as `my_project.Crack`."""


def read_options(name: str, words: Sequence[str]) -> dict[str, Any]:
    """The keyword arguments of a command's function, from the words of the command line.

    Args:
        name: Name of the command.
        words: The words that follow it.

    Raises:
        UserError: If an option, a key or a value is not valid.
        SystemExit: After `--help`.
    """
    function = find_command(name)
    parameters = inspect.signature(function).parameters
    kinds = {key: kind for key, kind in get_type_hints(function).items() if key in parameters}
    paths, rest = _sort_words(words, kinds)
    needed = "data" in parameters and parameters["data"].default is inspect.Parameter.empty
    if needed and not paths and not {"-h", "--help"} & set(words):
        raise UserError(f"{name}: needs --config mine.yaml; shipped files: {', '.join(shipped_recipes())}")
    recipes = [recipe for path in paths for recipe in read_recipe(path)]
    allow_modules(_named_modules(recipes, rest, kinds))
    stages = merge_recipes(recipes, kinds)
    values = _read_words(name, function, rest, stages, kinds)
    try:
        return _build(kinds, values)
    except UserError as error:
        raise type(error)(f"{_origin(stages, kinds, str(error)) or name}: {error}") from error


def _build(kinds: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: from_plain(kind, values[key], key) for key, kind in kinds.items() if key in values}


def _origin(stages: Sequence[Recipe], kinds: Mapping[str, Any], message: str) -> str | None:
    """The first of several files with which an error appears, or None if the words of the command line cause it."""
    for path, values in stages:
        try:
            _build(kinds, values)
        except UserError as error:
            if str(error) == message:
                return path
    return None


def _named_modules(recipes: Sequence[Recipe], words: Sequence[str], kinds: Mapping[str, Any]) -> Iterator[str]:
    """Yield the modules of the classes that files and words name, and the modules that the user trusts."""
    blocks: list[Any] = [value for _, content in recipes for key, value in content.items() if key in kinds]
    for _, content in recipes:
        if "trust" in kinds and isinstance(content.get("trust"), list):
            yield from map(str, content["trust"])
    for option, value in pairwise(words):
        if option.startswith("--") and value.startswith(("[", "{")):
            loaded = parse_yaml(value)
            blocks.append(loaded)
            if option == "--trust" and isinstance(loaded, list):
                yield from map(str, loaded)
        elif _NAMES_CLASS.fullmatch(option):
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
    """The arguments of a command as plain values: the defaults, changed by the files, changed by the words."""
    from jsonargparse import ArgumentError

    parser = _make_parser(name, function)
    files = ["--config", write_yaml(stages[-1][1])] if stages else []
    try:
        return {k: v for k, v in parser.parse_args([*files, *words]).as_dict().items() if k in kinds}
    except (ArgumentError, TypeError, ValueError, RecursionError) as error:
        message = " ".join(str(error).split())
        try:
            _explain(message, words, stages[-1][1] if stages else {}, kinds)
        except UserError as clearer:
            raise type(clearer)(f"{_origin(stages, kinds, str(clearer)) or name}: {clearer}") from error
        message += _suggest_options(message, parser.get_defaults().keys())
        raise UserError(f"{name}: {message}; upernet {name} --help lists the options") from error


def _explain(message: str, words: Sequence[str], values: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """Raise a clearer error than jsonargparse's, which names neither the task or source nor a valid value.

    Args:
        message: The message of jsonargparse.
        words: The words of the command line.
        values: The merged values of the files.
        kinds: Types of the command's arguments.

    Raises:
        UserError: If the files lack a key, or a word has a wrong type.
    """
    if "required" in message:
        _build(kinds, values)
    refused = re.search(r'Parser key "([\w.]+)"', message)
    for option, word in pairwise(words):
        key = option.removeprefix("--")
        if not (refused and option.startswith("--") and f"{key}.".startswith(f"{refused[1]}.")):
            continue
        first, *inner = key.split(".")
        faults = []
        for value in (word, parse_yaml(word)):  # the valid value may be a string
            for part in reversed(inner):
                value = {part: value}
            try:
                combine(kinds[first], values.get(first), value, first)
            except UserError as error:
                faults.append(error)
        if len(faults) == 2:
            raise faults[1]


def _suggest_options(message: str, keys: Iterable[str]) -> str:
    """A hint at options with similar names, to end the message of jsonargparse about an unknown one."""
    unknown = re.search(r"unrecognized arguments: --([\w.-]+)", message)
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
        metavar, description = INPUTS[name]
        if parameters["inputs"].default is inspect.Parameter.empty:
            parser.add_argument("inputs", nargs="+", metavar=metavar, help=description)
        else:
            parser.add_argument("inputs", nargs="*", metavar=metavar, help=description, default=[])
        skip.add("inputs")
    if "data" in parameters:
        parser.add_argument(
            "--config",
            action="config",
            help="YAML file: a path, or the name of a shipped file. A later file changes earlier ones. A file with a "
            "key `base` changes the file at that path, which is relative to itself.",
        )
    parser.add_function_arguments(function, as_positional=False, skip=skip)
    if parser.groups and name in parser.groups:
        parser.groups[name].title = f"options of {name}"  # not the description once more
    return parser


def _sort_words(words: Sequence[str], kinds: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Separate the training files from all other words, and write the latter as jsonargparse wants them.

    `--flag` alone means true. If an option takes a list, it takes the next word as a list of one; if the command has no
    positional arguments, it takes all words up to the next option. An option that takes a list or one word takes a
    single word as it is.

    Returns:
        The paths after `--config`, and the other words.
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
            one_or_more = is_union(kind) and str in get_args(kind)
            if one_or_more and count == 1:
                rest.append(word)
                continue
            # Names of files may hold characters that have a meaning in YAML.
            rest += [word, json.dumps(queue[:count]) if one_or_more else f"[{','.join(queue[:count])}]"]
            queue = queue[count:]
        elif _wants_list(kind) and queue and not _is_list(queue):
            rest += [word, f"[{queue.pop(0)}]"]
        else:
            rest.append(word)
    return files, rest


def _wants_list(kind: Any) -> bool:
    members = get_args(kind) if is_union(kind) else (kind,)
    return any(get_origin(member) in (list, tuple) for member in members)


def _is_list(words: Sequence[str]) -> bool:
    """Whether the first word is already written as a list, or is null."""
    return bool(words) and (words[0].startswith("[") or words[0] == "null")
