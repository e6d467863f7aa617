"""Inert descriptions, into which all of a pickle but its plain values is turned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

DIMENSIONS = 64
"""Most dimensions of a tensor."""


class RefusedError(Exception):
    """The reason why a file is refused, without the file's name."""


# Without `eq`: descriptions may be keys, and to compare what a hostile file nests may never end.
@dataclass(eq=False, repr=False, slots=True)
class Placeholder:
    """An inert stand-in for an object, class or function of a module that is not imported.

    Attributes:
        name: Module and name, such as `mmengine.logging.history_buffer.HistoryBuffer`.
        args: The arguments that it was to be made from; if the callee is itself an object, it comes first.
        state: The items of a kind of dict or list; of others, the state that it was to be restored from, or None.
    """

    name: str
    args: tuple[Any, ...] = ()
    state: Any = None

    def __repr__(self) -> str:
        return f"Placeholder({self.name!r})"


@dataclass(eq=False, repr=False, slots=True)
class Name(Placeholder):
    """A class or function itself. Calls of foreign ones become `Placeholder`s; `globals` knows all others."""

    foreign: bool = False


class Array(Placeholder):
    """A numpy array or scalar. Its state should be (version, shape, type, whether in Fortran order, data)."""

    __slots__ = ()


@dataclass(eq=False, frozen=True, slots=True)
class TensorView:
    """A tensor in storage `key`, which must hold `bytes` bytes. Offset and strides count values of `dtype`."""

    key: str
    bytes: int
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def sizes(value: Any) -> tuple[int, ...]:
    """The value as a shape.

    Raises:
        RefusedError: If it is not a list or tuple of counts, or has more than `DIMENSIONS`.
    """
    if len(expect(value, "a shape", tuple, list)) > DIMENSIONS:
        raise RefusedError(f"damaged: a tensor of {len(value)} dimensions")
    return tuple(count(v) for v in value)


def count(value: Any) -> int:
    """The value as a count.

    Raises:
        RefusedError: If it is not a whole number from 0 to 2⁶² - 1.
    """
    if not 0 <= expect(value, "a count", int) < 2**62:
        raise RefusedError(f"damaged: {short(value)} where a count was expected")
    return int(value)


def expect(value: Any, wanted: str, *kinds: type) -> Any:
    """The value, after a check of its type.

    Args:
        value: Any value.
        wanted: What it should be, for the error line.
        kinds: The types that are valid; their subclasses are not.

    Raises:
        RefusedError: If it is of another type.
    """
    if type(value) not in kinds:
        raise RefusedError(f"damaged: {short(value)} where {wanted} was expected")
    return value


def short(value: Any) -> str:
    """The value in a few words, for an error line."""
    if value is None or type(value) in (bool, int, float, str, bytes):
        return repr(value[:40] if isinstance(value, str | bytes) else value)[:60]
    return f"a {type(value).__name__.lstrip('_')}"
