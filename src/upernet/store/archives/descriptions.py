"""What a pickle is turned into: plain values, and inert descriptions of everything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

DIMENSIONS = 64
"""Most dimensions of a tensor."""


class RefusedError(Exception):
    """Why a file is not opened, without its name."""


# Without `eq`: descriptions may be keys, and comparing what a hostile file nests has no end.
@dataclass(eq=False, repr=False, slots=True)
class Placeholder:
    """An inert stand-in for an object, class or function of a module that is not imported.

    Attributes:
        name: Where it comes from, such as `mmengine.logging.history_buffer.HistoryBuffer`.
        args: What it was to be made from; the callee comes first where that is itself an object.
        state: The items where it is a kind of dict or list, otherwise what it was to restore itself from, or None.
    """

    name: str
    args: tuple[Any, ...] = ()
    state: Any = None

    def __repr__(self) -> str:
        return f"Placeholder({self.name!r})"


@dataclass(eq=False, repr=False, slots=True)
class Name(Placeholder):
    """A class or function itself. A call of a foreign one is a `Placeholder`; `globals` knows all others."""

    foreign: bool = False


class Array(Placeholder):
    """A numpy array or scalar, whose state is to be (version, shape, type, whether in Fortran's order, data)."""

    __slots__ = ()


@dataclass(eq=False, frozen=True, slots=True)
class TensorView:
    """A tensor in storage `key`, which has to hold `bytes`; offset and strides count values of `dtype`."""

    key: str
    bytes: int
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def sizes(value: Any) -> tuple[int, ...]:
    """The value, if it is a shape: not too many counts, none below zero."""
    if len(expect(value, "a shape", tuple, list)) > DIMENSIONS:
        raise RefusedError(f"damaged: a tensor of {len(value)} dimensions")
    return tuple(count(v) for v in value)


def count(value: Any) -> int:
    """The value, if it is a count that memory could ever hold."""
    if not 0 <= expect(value, "a count", int) < 2**62:
        raise RefusedError(f"damaged: {short(value)} where a count was expected")
    return int(value)


def expect(value: Any, wanted: str, *kinds: type) -> Any:
    """The value, if it is of one of these types itself; `wanted` says in the error what it should be."""
    if type(value) not in kinds:
        raise RefusedError(f"damaged: {short(value)} where {wanted} was expected")
    return value


def short(value: Any) -> str:
    """The value in a few words, for an error line."""
    if value is None or type(value) in (bool, int, float, str, bytes):
        return repr(value[:40] if isinstance(value, str | bytes) else value)[:60]
    return f"a {type(value).__name__.lstrip('_')}"
