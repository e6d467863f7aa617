"""What a type asks for, in words and with an example, for error lines."""

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
"""Singular, plural and an example."""


def expectation(kind: Any) -> str:
    """What a type asks for: `a whole number, such as 512`."""
    if is_union(kind):
        *most, last = [expectation(one) for one in get_args(kind)]
        return f"{', '.join(most)}{',' if any(', ' in one for one in most) else ''} or {last}"
    example = _example(kind)
    return _singular(kind) + (f", such as {example!r}" if example is not None else "")


def shown(value: Any) -> str:
    """A value for an error line, shortened where it is long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]  # as YAML has them
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
        return " or ".join(_plural(one) for one in args)
    if origin is Literal:
        return f"values out of {', '.join(map(repr, args))}"
    if origin in (list, tuple):
        return f"lists of {_plural(args[0])}"
    if origin is dict or is_dataclass(kind):
        return "mappings with class_path and init_args" if _is_configurable(kind) else "mappings"
    return _WORDS[kind][1] if kind in _WORDS else f"values of type {getattr(kind, '__name__', kind)}"


def _example(kind: Any) -> Any:
    """A value of the type, none for types that need no example or have none."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (list, tuple):
        inner = [_example(one) for one in args if one is not Ellipsis]
        return None if None in inner else inner
    return _WORDS[kind][2] if kind in _WORDS else None


def _is_configurable(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Configurable)
