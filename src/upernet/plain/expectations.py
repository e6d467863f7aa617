"""Descriptions of the values that a type accepts, in words and with an example, for error lines."""

from __future__ import annotations

import reprlib
from dataclasses import is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from upernet.plain.configurable import Configurable

_WORDS: dict[Any, tuple[str, str, Any]] = {
    bool: ("true or false", "booleans", None),
    int: ("a whole number", "whole numbers", 512),
    float: ("a number", "numbers", 0.5),
    str: ("a string", "strings", "car"),
    Path: ("a path", "paths", "runs/mine"),
    NoneType: ("null", "null", None),
    Any: ("anything", "anything", None),
}
"""For each type, its name in the singular and in the plural, and an example."""


def expectation(kind: Any) -> str:
    """Describe the values that a type accepts, such as `a whole number, such as 512`."""
    if is_union(kind):
        *most, last = [expectation(member) for member in get_args(kind)]
        return f"{', '.join(most)}{',' if any(', ' in text for text in most) else ''} or {last}"
    example = _example(kind)
    return _singular(kind) + (f", such as {example!r}" if example is not None else "")


def shown(value: Any) -> str:
    """Write a value for an error line, as YAML would, and shortened if it is long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return reprlib.repr(value)


def is_union(kind: Any) -> bool:
    """Whether a type is `A | B` or `Optional[A]`."""
    return get_origin(kind) in (Union, UnionType)


def _singular(kind: Any) -> str:
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(map(repr, args))}"
    if origin is tuple and Ellipsis not in args:
        same = len(set(args)) == 1
        return f"a list of {len(args)} {_plural(args[0]) if same else 'values'}"
    if origin in (list, tuple):
        return f"a list of {_plural(args[0])}"
    if origin is dict:
        return f"a mapping of {_plural(args[0])} to {_plural(args[1])}"
    if kind in (dict, list, tuple):
        return "a mapping" if kind is dict else "a list"
    if _is_configurable(kind):
        return f"a {kind.__name__}, given by class_path and init_args"
    name = getattr(kind, "__name__", kind)
    if is_dataclass(kind):
        return f"a mapping for {name}"
    return _WORDS[kind][0] if kind in _WORDS else f"a value of type {name}"


def _plural(kind: Any) -> str:
    origin, args = get_origin(kind), get_args(kind)
    if is_union(kind):
        return " or ".join(_plural(member) for member in args)
    if origin is Literal:
        return f"values from {', '.join(map(repr, args))}"
    if origin in (list, tuple):
        return f"lists of {_plural(args[0])}"
    if origin is dict or is_dataclass(kind):
        return "mappings with class_path and init_args" if _is_configurable(kind) else "mappings"
    return _WORDS[kind][1] if kind in _WORDS else f"values of type {getattr(kind, '__name__', kind)}"


def _example(kind: Any) -> Any:
    """An example of a value of the type, or None for types that need no example or have none."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (list, tuple):
        inner = [_example(member) for member in args if member is not Ellipsis]
        return None if None in inner else inner
    return _WORDS[kind][2] if kind in _WORDS else None


def _is_configurable(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Configurable)
