"""Descriptions become values, once all they claim is compared with what the file holds and a UPerNet could need."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import prod
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from upernet.store.archives.budget import PICKLE_STEPS
from upernet.store.archives.descriptions import Array, Placeholder, RefusedError, TensorView, sizes
from upernet.store.archives.limits import TENSORS, check_finite, check_sides

DEPTH = 64
"""Deepest nesting of containers."""
EXPANSION = 8
"""Bytes of all tensors and arrays together, as a multiple of the file's size; above 1 for weights that are shared."""

_PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray, torch.dtype)
_OPEN = object()
_NUMERIC = re.compile(r"[biufc]\d{1,2}|\?")


def build(described: Any, held: dict[str, int], size: int, load: Callable[[str], Tensor]) -> Any:
    """The value that is described; nothing is loaded before everything is checked.

    Args:
        described: What a pickle gave.
        held: Bytes of each storage in the file, by key.
        size: Bytes of the file.
        load: Reads a storage, by key, as uint8.

    Raises:
        RefusedError: If the description and the file differ, or it claims what no UPerNet has.
    """
    _Builder(held, size).value(described)
    return _Builder(held, size, load).value(described)


def take(part: IO[bytes], count: int) -> Tensor:
    """The next bytes, as uint8. Of a zip entry it must be all, for its checksum is compared at its end."""
    made = torch.empty(count, dtype=torch.uint8)
    array: Any = made.numpy()
    left = memoryview(array)
    while left:
        read = part.readinto(left[: 2**20])  # type: ignore[attr-defined]
        if not read:
            raise RefusedError("the data of a tensor end early; the file is truncated")
        left = left[read:]
    return made


class _Builder:
    """Turns descriptions into values: once without a loader, to check everything, then with it.

    Values are kept by the identity of their descriptions, so only what outlives the builder may be passed to `value`.
    """

    def __init__(self, held: dict[str, int], size: int, load: Callable[[str], Tensor] | None = None) -> None:
        """As in `build`; without `load` nothing is made."""
        self.held, self.limit, self.load = held, EXPANSION * size, load
        self.done: dict[int, Any] = {}
        self.parts: dict[int, int] = {}
        self.bytes = self.tensors = self.visited = 0
        self.storages: dict[tuple[str, torch.dtype], Tensor] = {}

    def value(self, given: Any, where: str = "", depth: int = 0) -> Any:
        # What is shared counts wherever it occurs: whoever prints or copies a value visits it that often.
        before, self.visited = self.visited, self.visited + self.parts.get(id(given), 1)
        if self.visited > PICKLE_STEPS:
            raise RefusedError(f"holds more than {PICKLE_STEPS} values, counting shared ones anew; it may be hostile")
        if type(given) in _PLAIN:
            return given
        if id(given) not in self.done:
            if depth > DEPTH:
                raise RefusedError(f"nests its containers deeper than {DEPTH}; it may be hostile")
            self.done[id(given)] = _OPEN
            self.done[id(given)] = self.new(given, where, depth + 1)
            self.parts[id(given)] = self.visited - before
        if self.done[id(given)] is _OPEN:
            raise RefusedError("damaged: a tuple that holds itself")
        return self.done[id(given)]

    def new(self, given: Any, where: str, depth: int) -> Any:
        # What can hold itself is known before it is filled.
        if isinstance(given, dict):
            made: Any = {}
            self.done[id(given)] = made
            for key, value in given.items():
                name = str(key)[:100] if isinstance(key, str | int) else "?"
                made[self.value(key, where, depth)] = self.value(value, f"{where}.{name}" if where else name, depth)
            return made
        if isinstance(given, list):
            made = self.done[id(given)] = []
            made.extend(self.value(v, f"{where}[{i}]", depth) for i, v in enumerate(given))
            return made
        if isinstance(given, tuple | set | frozenset):
            return type(given)([self.value(v, f"{where}[{i}]", depth) for i, v in enumerate(given)])
        if isinstance(given, TensorView):
            return self.tensor(given, where or "tensor")
        if isinstance(given, Array):
            if (dtype := _number_type(given.state[2])) is not None:
                return self.array(given, dtype, where)
        elif given.name == "numpy.dtype" and given.args and (dtype := _number_type(given)) is not None:
            return dtype
        made = self.done[id(given)] = Placeholder(given.name)
        made.args, made.state = self.value(given.args, where, depth), self.value(given.state, where, depth)
        return made

    def claim(self, count: int, where: str) -> None:
        self.bytes, self.tensors = self.bytes + count, self.tensors + 1
        if self.tensors > TENSORS:
            raise RefusedError(f"holds more than {TENSORS} tensors and arrays, up to {where!r}; it may be hostile")
        if self.bytes > self.limit:
            raise RefusedError(
                f"its tensors, up to {where!r}, claim {self.bytes} bytes, the file holds "
                f"{self.limit // EXPANSION}; it may be hostile"
            )

    def tensor(self, given: TensorView, where: str) -> Tensor | None:
        held = self.held.get(given.key)
        if held is None:
            raise RefusedError(f"the data {given.key!r} of tensor {where!r} are missing; the file is truncated")
        if given.bytes != held:
            raise RefusedError(
                f"the data of tensor {where!r} should be {given.bytes} bytes, the file holds {held}; it is damaged"
            )
        values, have = prod(given.size), held // given.dtype.itemsize
        reach = given.offset + sum((n - 1) * step for n, step in zip(given.size, given.stride, strict=True)) + 1
        if values and max(values, reach) > have:
            raise RefusedError(
                f"tensor {where!r} claims {max(values, reach)} values, the file holds {have} for it; "
                "it is damaged or hostile"
            )
        check_sides(given.size, where)
        self.claim(values * given.dtype.itemsize, where)
        if self.load is None:
            return None
        if not values:
            return torch.empty(given.size, dtype=given.dtype)
        made = self.storage(given.key, given.dtype, self.load).as_strided(given.size, given.stride, given.offset)
        check_finite(made, where)
        return made

    def storage(self, key: str, dtype: torch.dtype, load: Callable[[str], Tensor]) -> Tensor:
        if (key, dtype) not in self.storages:
            if dtype is torch.uint8:
                made = load(key)
            else:
                raw = self.storage(key, torch.uint8, load)
                # A byte that is neither 0 nor 1 is no bool.
                made = raw.ne(0) if dtype is torch.bool else raw.view(dtype)
            self.storages[key, dtype] = made
        return self.storages[key, dtype]

    def array(self, given: Array, dtype: np.dtype[Any], where: str) -> Any:
        _, shape, _, fortran, data = given.state
        data = data.encode("latin1") if isinstance(data, str) else data
        if not isinstance(data, bytes | bytearray):
            raise RefusedError(f"damaged: the numpy array {where!r} holds no bytes")
        values, have = prod(sizes(shape)), len(data) // dtype.itemsize
        if not values:
            check_sides(shape, where)
        if values * dtype.itemsize != len(data):
            raise RefusedError(
                f"the numpy array {where!r} claims {values} values, the file holds {have} for it; "
                "it is damaged or hostile"
            )
        self.claim(len(data), where)
        if self.load is None:
            return None
        made = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="))
        if given.name == "numpy.generic":
            return made[0].item()
        return made.reshape(shape, order="F" if fortran is True else "C")


def _number_type(given: Any) -> np.dtype[Any] | None:
    """The numpy type that is described, or None if it is not one of numbers."""
    if not isinstance(given, Placeholder) or given.name != "numpy.dtype" or not given.args:
        raise RefusedError("damaged: a numpy array has no type")
    # The state is (version, byte order, ...); what follows describes structures, which are no numbers.
    order = "<" if given.state is None else given.state[1]
    if order not in ("<", ">", "|", "="):
        raise RefusedError("damaged: a numpy type with a wrong state")
    return np.dtype(given.args[0]).newbyteorder(order) if _NUMERIC.fullmatch(given.args[0]) else None
