"""Conversion of dataclasses to the plain values that YAML holds."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar


class Configurable:
    """Base of the dataclasses that YAML gives by `class_path` and `init_args`, so that users can give their own."""

    module: ClassVar[str] = ""
    """Public module of this package's own classes of a kind, such as `upernet.tasks`. In YAML their names suffice."""

    @classmethod
    def class_path(cls) -> str:
        """The import path of this class for YAML. Classes of this package are named by their public module."""
        own = cls.module and cls.__module__.startswith(f"{cls.module}.")
        return f"{cls.module if own else cls.__module__}.{cls.__qualname__}"


def to_plain(value: Any) -> Any:
    """Convert dataclasses, tuples and paths, at any depth, to the dicts, lists and strings that YAML holds."""
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
