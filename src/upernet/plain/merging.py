"""Merging the plain values of several files, of which later ones change earlier ones."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import Any, get_args, get_origin

from upernet.plain.classes import field_types, find_class, settable_fields
from upernet.plain.configurable import Configurable
from upernet.plain.expectations import is_union


def merge(kind: Any, old: Any, new: Any, key: str) -> Any:
    """Merge the values that two files give for one key. Both have passed `check_types`.

    In a dataclass, the later file changes the keys that it gives. A mapping by name, such as tasks or sources, keeps
    only the names in the later file, and merges the values of each. An object whose class changes keeps those earlier
    arguments that its new class has. Everything else is replaced.

    Args:
        kind: Type of the value.
        old: Value in the earlier file, or None if it gives none.
        new: Value in the later file.
        key: Dotted key of the value, for error lines.

    Raises:
        UserError: If a class cannot be imported.
    """
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    if is_union(kind):
        kind = next((m for m in get_args(kind) if is_dataclass(m) or get_origin(m) is dict), Any)
    if isinstance(kind, type) and issubclass(kind, Configurable):
        return _merge_objects(kind, old, new, key)
    if isinstance(kind, type) and is_dataclass(kind):
        kinds = field_types(kind, key)
        return old | {name: merge(kinds[name], old.get(name), v, f"{key}.{name}") for name, v in new.items()}
    if get_origin(kind) is dict:
        of_value = get_args(kind)[1]
        return {name: merge(of_value, old.get(name), v, f"{key}.{name}") for name, v in new.items()}
    return new


def _merge_objects(base: type, old: dict[str, Any], new: dict[str, Any], key: str) -> dict[str, Any]:
    kept = old.get("init_args") or {}
    path = new.get("class_path", old.get("class_path"))
    if path != old.get("class_path"):
        known = settable_fields(find_class(base, path, key))
        kept = {name: value for name, value in kept.items() if name in known}
    return old | new | {"init_args": kept | (new.get("init_args") or {})}
