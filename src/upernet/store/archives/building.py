"""Making values from descriptions, after a check of all that they claim against the file and a UPerNet's needs."""

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
"""Most bytes of all tensors and arrays together, as a multiple of the file's size; above 1 for shared weights."""

_PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray, torch.dtype)
_OPEN = object()
_NUMERIC = re.compile(r"[biufc]\d{1,2}|\?")


def build(described: Any, storage_bytes: dict[str, int], size: int, load: Callable[[str], Tensor]) -> Any:
    """Make the value that is described. Nothing is loaded before everything is checked.

    Args:
        described: The result of `Pickle.load`.
        storage_bytes: Key of a storage → its bytes in the file.
        size: Bytes of the file.
        load: Reads the storage of a key as uint8.

    Raises:
        RefusedError: If the description does not match the file, or claims what no UPerNet has.
    """
    _Builder(storage_bytes, size).value(described)
    return _Builder(storage_bytes, size, load).value(described)


def take(part: IO[bytes], count: int) -> Tensor:
    """The next `count` bytes as uint8. A zip entry must be read to its end, where its checksum is compared."""
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
    """Turns descriptions into values: first without a loader, to check everything, then with it.

    Values are kept by the identity of their descriptions, so a description passed to `value` must outlive the builder.
    """

    def __init__(self, storage_bytes: dict[str, int], size: int, load: Callable[[str], Tensor] | None = None) -> None:
        """See `build`; without `load`, everything is checked and no tensor is made."""
        self.storage_bytes, self.limit, self.load = storage_bytes, EXPANSION * size, load
        self.done: dict[int, Any] = {}
        self.parts: dict[int, int] = {}
        self.bytes = self.tensors = self.visited = 0
        self.storages: dict[tuple[str, torch.dtype], Tensor] = {}

    def value(self, described: Any, where: str = "", depth: int = 0) -> Any:
        # A shared value counts wherever it occurs: to print or copy the result visits it that often.
        before, self.visited = self.visited, self.visited + self.parts.get(id(described), 1)
        if self.visited > PICKLE_STEPS:
            raise RefusedError(f"holds more than {PICKLE_STEPS} values, counting shared ones anew; it may be hostile")
        if type(described) in _PLAIN:
            return described
        if id(described) not in self.done:
            if depth > DEPTH:
                raise RefusedError(f"nests its containers deeper than {DEPTH}; it may be hostile")
            self.done[id(described)] = _OPEN
            self.done[id(described)] = self.new(described, where, depth + 1)
            self.parts[id(described)] = self.visited - before
        if self.done[id(described)] is _OPEN:
            raise RefusedError("damaged: a tuple that holds itself")
        return self.done[id(described)]

    def new(self, described: Any, where: str, depth: int) -> Any:
        # A container that can hold itself is recorded before it is filled.
        if isinstance(described, dict):
            made: Any = {}
            self.done[id(described)] = made
            for key, value in described.items():
                name = str(key)[:100] if isinstance(key, str | int) else "?"
                made[self.value(key, where, depth)] = self.value(value, f"{where}.{name}" if where else name, depth)
            return made
        if isinstance(described, list):
            made = self.done[id(described)] = []
            made.extend(self.value(v, f"{where}[{i}]", depth) for i, v in enumerate(described))
            return made
        if isinstance(described, tuple | set | frozenset):
            return type(described)([self.value(v, f"{where}[{i}]", depth) for i, v in enumerate(described)])
        if isinstance(described, TensorView):
            return self.tensor(described, where or "tensor")
        if isinstance(described, Array):
            if (dtype := _number_type(described.state[2])) is not None:
                return self.array(described, dtype, where)
        elif described.name == "numpy.dtype" and described.args and (dtype := _number_type(described)) is not None:
            return dtype
        made = self.done[id(described)] = Placeholder(described.name)
        made.args, made.state = self.value(described.args, where, depth), self.value(described.state, where, depth)
        return made

    def claim(self, count: int, where: str) -> None:
        self.bytes, self.tensors = self.bytes + count, self.tensors + 1
        if self.tensors > TENSORS:
            raise RefusedError(f"holds more than {TENSORS} tensors and arrays, up to {where!r}; it may be hostile")
        if self.bytes > self.limit:
            raise RefusedError(
                f"its tensors, up to {where!r}, claim {self.bytes} bytes, but the file holds "
                f"{self.limit // EXPANSION}; it may be hostile"
            )

    def tensor(self, view: TensorView, where: str) -> Tensor | None:
        stored = self.storage_bytes.get(view.key)
        if stored is None:
            raise RefusedError(f"the data {view.key!r} of tensor {where!r} are missing; the file is truncated")
        if view.bytes != stored:
            raise RefusedError(
                f"the data of tensor {where!r} should be {view.bytes} bytes, but the file holds {stored}; it is damaged"
            )
        values, have = prod(view.size), stored // view.dtype.itemsize
        reach = view.offset + sum((n - 1) * step for n, step in zip(view.size, view.stride, strict=True)) + 1
        if values and max(values, reach) > have:
            raise RefusedError(
                f"tensor {where!r} claims {max(values, reach)} values, but the file holds {have} for it; "
                "it is damaged or hostile"
            )
        check_sides(view.size, where)
        self.claim(values * view.dtype.itemsize, where)
        if self.load is None:
            return None
        if not values:
            return torch.empty(view.size, dtype=view.dtype)
        made = self.storage(view.key, view.dtype, self.load).as_strided(view.size, view.stride, view.offset)
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

    def array(self, described: Array, dtype: np.dtype[Any], where: str) -> Any:
        _, shape, _, fortran, data = described.state
        data = data.encode("latin1") if isinstance(data, str) else data
        if not isinstance(data, bytes | bytearray):
            raise RefusedError(f"damaged: the numpy array {where!r} holds no bytes")
        values, have = prod(sizes(shape)), len(data) // dtype.itemsize
        if not values:
            check_sides(shape, where)
        if values * dtype.itemsize != len(data):
            raise RefusedError(
                f"the numpy array {where!r} claims {values} values, but the file holds {have} for it; "
                "it is damaged or hostile"
            )
        self.claim(len(data), where)
        if self.load is None:
            return None
        made = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="))
        if described.name == "numpy.generic":
            return made[0].item()
        return made.reshape(shape, order="F" if fortran is True else "C")


def _number_type(described: Any) -> np.dtype[Any] | None:
    """The numpy type that is described, or None if it is not a type of numbers."""
    if not isinstance(described, Placeholder) or described.name != "numpy.dtype" or not described.args:
        raise RefusedError("damaged: a numpy array has no type")
    # The state is (version, byte order, ...); the rest describes structures, which are no numbers.
    order = "<" if described.state is None else described.state[1]
    if order not in ("<", ">", "|", "="):
        raise RefusedError("damaged: a numpy type with a wrong state")
    return np.dtype(described.args[0]).newbyteorder(order) if _NUMERIC.fullmatch(described.args[0]) else None
