"""Dataclasses as the plain values that YAML holds, and back."""

from __future__ import annotations

import importlib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from upernet.errors import UserError

T = TypeVar("T")


class Configurable:
    """A dataclass that YAML names by class, so that anyone's own class will do: `class_path` and `init_args`."""

    @classmethod
    def class_path(cls) -> str:
        """Where YAML finds this class; of our own, the public room is named rather than the file inside it."""
        room = ".".join(cls.__module__.split(".")[:2])
        return f"{room if room in ('upernet.tasks', 'upernet.data') else cls.__module__}.{cls.__qualname__}"


def to_plain(value: Any) -> Any:
    """Dataclasses, tuples and paths as the dicts, lists and strings that YAML holds."""
    if is_dataclass(value) and not isinstance(value, type):
        values = {f.name: to_plain(getattr(value, f.name)) for f in fields(value) if f.init}
        return {"class_path": value.class_path(), "init_args": values} if isinstance(value, Configurable) else values
    if isinstance(value, dict):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    return value


def from_plain(kind: type[T], values: dict[str, Any], where: str) -> T:
    """Build the dataclass `kind` from a mapping, refusing keys it does not have.

    Args:
        kind: The dataclass.
        values: Field values; lists become tuples where the default is one.
        where: What the mapping was read from, for the error line.

    Raises:
        UserError: If a key is unknown or the mapping is none.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where}: expected a mapping for {kind.__name__}, found {values!r}")
    known = {f.name: f for f in fields(kind) if f.init}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r} for {kind.__name__}; valid keys: {', '.join(known)}")
    tuples = {name for name, f in known.items() if str(f.type).startswith("tuple")}
    return kind(**{k: tuple(v) if k in tuples and isinstance(v, list) else v for k, v in values.items()})


def from_class_path(base: type[T], spec: dict[str, Any], where: str) -> T:
    """Build an object of a subclass of `base` from `class_path` and `init_args`.

    The class must come from a module installed on this machine; no code is ever read from the file itself.

    Raises:
        UserError: If the class cannot be found, is no `base`, or refuses its arguments.
    """
    path = spec.get("class_path") if isinstance(spec, dict) else None
    if not isinstance(path, str) or "." not in path.strip("."):
        raise UserError(f"{where}: expected class_path: package.module.Class, found {spec!r}")
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{where}: cannot import {path!r}: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise UserError(f"{where}: {path!r} is no {base.__name__}")
    try:
        return from_plain(kind, spec.get("init_args") or {}, where)
    except TypeError as error:
        raise UserError(f"{where}: {path} cannot be built: {error}") from error
