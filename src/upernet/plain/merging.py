"""Plain values of several files as one, a later file changing earlier ones."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import Any, get_args, get_origin

from upernet.plain.classes import field_types, find_class, settable_fields
from upernet.plain.configurable import Configurable
from upernet.plain.expectations import is_union


def merge(kind: Any, old: Any, new: Any, key: str) -> Any:
    """What two files say of one place, both of them checked by `check_types`.

    Of a dataclass, the later file changes the keys it names. A mapping of names, such as tasks or sources, has the
    names of the later file alone, each changed as it says. An object of another class keeps the earlier arguments
    that its class knows. Everything else is replaced.

    Args:
        kind: Type of the place.
        old: Plain values of the earlier file, none if it says nothing.
        new: Those of the later one.
        key: Where they stand, for error lines.

    Raises:
        UserError: If a class cannot be imported.
    """
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    if is_union(kind):
        kind = next((one for one in get_args(kind) if is_dataclass(one) or get_origin(one) is dict), Any)
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
