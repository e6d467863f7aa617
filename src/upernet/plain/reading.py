"""Building objects from plain values, each value checked against the type of its field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin

from upernet.errors import UserError
from upernet.plain.classes import field_types, find_class, settable_fields
from upernet.plain.configurable import Configurable
from upernet.plain.expectations import expectation, is_union, shown

T = TypeVar("T")


def from_plain(kind: type[T], value: Any, key: str) -> T:
    """Build an object of a type from plain values.

    Mappings become dataclasses. If the type is a `Configurable`, a mapping with `class_path` and `init_args` becomes an
    object of that class. Lists become tuples, whole numbers floats, and strings paths, if the type says so.

    Args:
        kind: bool, int, float, str, Path, None, Any, a Literal, a dataclass, a `Configurable`, or lists, tuples, dicts
            and unions of these at any depth. For any other class, the value must be an instance of it.
        value: Plain values, as YAML holds them.
        key: Dotted key of the values, such as `model`. The error line begins with the key inside it that is wrong.

    Raises:
        UserError: In one line with key, value and a valid one: if a value is of a wrong type, a key is unknown or
            missing, a class cannot be imported, or a class refuses its values.
    """
    built: T = _Reader(build=True).read(kind, value, key)
    return built


def check_types(kind: Any, value: Any, key: str) -> None:
    """Check the types of plain values as `from_plain` does, but build nothing. Keys may be missing.

    Raises:
        UserError: If a value is of a wrong type, a key is unknown, or a class cannot be imported.
    """
    _Reader(build=False).read(kind, value, key)


class _Reader:
    """Walks through a type and a value side by side, to check the value and, if wanted, to build the object."""

    def __init__(self, build: bool) -> None:
        self.build = build

    def read(self, kind: Any, value: Any, key: str) -> Any:
        """Check a value and convert it to its type."""
        origin = get_origin(kind) or kind
        if kind is Any:
            return value
        if is_union(kind):
            return self._union(kind, value, key)
        if origin is Literal:
            return _literal(kind, value, key)
        if origin in (list, tuple, Sequence):
            return self._list(kind, value, key)
        if origin in (dict, Mapping):
            return self._dict(kind, value, key)
        if isinstance(kind, type) and issubclass(kind, Configurable):
            return self._configurable(kind, value, key)
        if isinstance(kind, type) and is_dataclass(kind):
            return self._dataclass(kind, value, key)
        return _scalar(kind, value, key)

    def _union(self, kind: Any, value: Any, key: str) -> Any:
        members = get_args(kind)
        if Any in members:
            return value
        # If only one member takes mappings, or lists, its own error says more than that no member fits.
        possible = [member for member in members if _takes_mappings(member) == isinstance(value, dict)]
        possible = [member for member in possible if _takes_lists(member) == isinstance(value, (list, tuple))]
        if isinstance(value, (dict, list, tuple)) and len(possible) == 1:
            return self.read(possible[0], value, key)
        for member in possible:
            try:
                return self.read(member, value, key)
            except UserError:
                continue
        return _refuse(kind, value, key)

    def _list(self, kind: Any, value: Any, key: str) -> Any:
        if not isinstance(value, (list, tuple)):
            _refuse(kind, value, key)
        args = get_args(kind) or (Any, ...)
        fixed = (get_origin(kind) or kind) is tuple and Ellipsis not in args
        if fixed and len(value) != len(args):
            _refuse(kind, value, key)
        kinds = args if fixed else [args[0]] * len(value)
        read = [self.read(inner, v, f"{key}.{i}") for i, (inner, v) in enumerate(zip(kinds, value, strict=True))]
        return tuple(read) if (get_origin(kind) or kind) is tuple else read

    def _dict(self, kind: Any, value: Any, key: str) -> dict[Any, Any]:
        if not isinstance(value, dict):
            _refuse(kind, value, key)
        of_key, of_value = get_args(kind) or (Any, Any)
        for name in value:
            try:
                self.read(of_key, name, key)
            except UserError:
                raise UserError(f"{key}: expected {expectation(of_key)}, as a key, found {shown(name)}") from None
        return {name: self.read(of_value, v, f"{key}.{name}") for name, v in value.items()}

    def _configurable(self, base: type, value: Any, key: str) -> Any:
        if isinstance(value, dict):
            _check_keys(value, ("class_path", "init_args"), base.__name__, key)
            if "class_path" not in value and not self.build:
                return value  # an earlier file names the class
        if not (isinstance(value, dict) and "class_path" in value):
            raise UserError(f"{key}: expected class_path: package.module.Class, found {shown(value)}")
        kind, init_args = find_class(base, value["class_path"], key), value.get("init_args")
        return self._dataclass(kind, {} if init_args is None else init_args, key)

    def _dataclass(self, kind: type, values: Any, key: str) -> Any:
        if not isinstance(values, dict):
            raise UserError(f"{key}: expected a mapping for {kind.__name__}, found {shown(values)}")
        known = settable_fields(kind)
        _check_keys(values, known, kind.__name__, key)
        kinds = field_types(kind, key)
        read = {name: self.read(kinds[name], value, f"{key}.{name}") for name, value in values.items()}
        if not self.build:
            return read
        for name, field in known.items():
            if name not in read and field.default is MISSING and field.default_factory is MISSING:
                raise UserError(f"{key}: {kind.__name__} needs the key {name!r}: {expectation(kinds[name])}")
        try:
            return kind(**read)
        except UserError as error:
            raise type(error)(_with_key(str(error), known, key)) from error
        except (TypeError, ValueError, AttributeError, LookupError) as error:  # a user's own class may raise any
            message = " ".join(str(error).split())
            raise UserError(f"{key}: {kind.__name__} cannot be built: {message}") from error


def _scalar(kind: Any, value: Any, key: str) -> Any:
    if kind is float and type(value) in (int, float):
        try:
            return float(value)
        except OverflowError:  # a whole number of more than 308 digits
            _refuse(kind, value, key)
    if kind is Path and isinstance(value, (str, Path)):
        return Path(value)
    if kind in (bool, int, str, NoneType, None):
        return value if type(value) is (NoneType if kind is None else kind) else _refuse(kind, value, key)
    try:  # a user's own class may have fields of other types that YAML holds, such as a date
        fits = isinstance(value, get_origin(kind) or kind)
    except TypeError:  # not a class, such as a NewType: values cannot be checked
        return value
    return value if fits else _refuse(kind, value, key)


def _literal(kind: Any, value: Any, key: str) -> Any:
    # Python calls 1, true and 1.0 equal, but YAML does not.
    fits = any(value == valid and type(value) is type(valid) for valid in get_args(kind))
    return value if fits else _refuse(kind, value, key)


def _takes_mappings(kind: Any) -> bool:
    return (get_origin(kind) or kind) in (dict, Mapping) or is_dataclass(kind)


def _takes_lists(kind: Any) -> bool:
    return (get_origin(kind) or kind) in (list, tuple, Sequence)


def _check_keys(values: dict[Any, Any], known: Mapping[str, Any] | Sequence[str], name: str, key: str) -> None:
    for given in values:
        if given not in known:
            near = get_close_matches(str(given), known, n=2)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise UserError(f"{key}: unknown key {shown(given)} for {name}; valid keys: {', '.join(known)}{hint}")


def _refuse(kind: Any, value: Any, key: str) -> NoReturn:
    raise UserError(f"{key}: expected {expectation(kind)}, found {shown(value)}")


def _with_key(message: str, known: Mapping[str, Any], key: str) -> str:
    """Put the dotted key in front of a class's message about a field: `width: 0 is …` becomes `model.width: 0 is …`.

    Some messages begin with the name of their block already, such as `model.width: 0 is …`. It is not repeated.
    """
    block = key.rpartition(".")[2]
    if message.startswith(f"{block}."):
        return f"{key}.{message.removeprefix(f'{block}.')}"
    return f"{key}.{message}" if message.split(":")[0] in known else f"{key}: {message}"
