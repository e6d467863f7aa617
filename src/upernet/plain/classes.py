"""Finding the classes that YAML names, and the types of their fields."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import Field, fields
from functools import lru_cache
from typing import Any, get_type_hints

from upernet.errors import UserError
from upernet.plain.expectations import shown


def find_class(base: type, path: Any, key: str) -> type:
    """Import the class that a `class_path` names.

    Args:
        base: The class must be a subclass of this one.
        path: The import path, such as `upernet.tasks.Object`, or the name alone of a class in `base.module`.
        key: Dotted key of the place that names the class, for the error line.

    Raises:
        UserError: If the class cannot be imported, or is not a subclass of `base`.
    """
    if isinstance(path, str) and path.isidentifier() and (own := getattr(base, "module", "")):
        path = f"{own}.{path}"
    if not isinstance(path, str) or "." not in path.strip("."):
        raise UserError(f"{key}: expected class_path: package.module.Class, found {shown(path)}")
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UserError(f"{key}: cannot import {path!r}: {' '.join(str(error).split())}") from error
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise UserError(f"{key}: {path!r} is not a subclass of {base.__name__}")
    return kind


def settable_fields(kind: type) -> dict[str, Field[Any]]:
    """The fields of a dataclass that its constructor takes, by name."""
    return {f.name: f for f in fields(kind) if f.init}


def field_types(kind: type, key: str) -> dict[str, Any]:
    """The type of each field of a dataclass, by name.

    Raises:
        UserError: If an annotation uses a name that its module does not have.
    """
    try:
        return _type_hints(kind)
    except Exception as error:  # an annotation is an expression of whoever wrote the class
        raise UserError(
            f"{key}: the types of {kind.__name__} cannot be resolved ({' '.join(str(error).split())}); "
            "import them at the top of its module, not for type checkers only"
        ) from error


@lru_cache(maxsize=256)
def _type_hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def class_paths(block: Any, key: str) -> Iterator[tuple[str, str]]:
    """Find every class that plain values name, at any depth, such as those of a task's losses.

    Args:
        block: The plain values.
        key: Dotted key of their place.

    Yields:
        The dotted key of each place that names a class, and its `class_path`.
    """
    waiting, seen = [(key, block)], set()
    while waiting:
        key, value = waiting.pop()
        if id(value) in seen or not isinstance(value, (dict, list)):
            continue
        seen.add(id(value))  # YAML can hold a list inside itself
        if isinstance(value, dict) and isinstance(value.get("class_path"), str):
            yield key, value["class_path"]
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        waiting += [(key if name == "init_args" else f"{key}.{name}", value) for name, value in inner]
