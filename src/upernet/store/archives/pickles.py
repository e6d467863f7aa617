"""A pickle's bytes, interpreted into inert descriptions.

Its instructions are carried out here, on data of our own. No name is ever looked up in a module and nothing is ever
called, so a hostile file can reach nothing. Plain values become themselves, tensors and arrays become claims that are
still to be compared with the file, and classes and calls of other software become `Placeholder`s. Functions of Python,
PyTorch and NumPy that no checkpoint needs are refused by name.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from typing import IO, Any

from upernet.store.archives.budget import Budget
from upernet.store.archives.descriptions import Array, Placeholder, RefusedError, TensorView, expect, short
from upernet.store.archives.globals import describe_call, describe_global, describe_storage

PICKLE_BYTES = 256 * 2**20
"""Most bytes of a pickle, without the tensors' data; honest ones stay far below a tenth of it."""


class Pickle:
    """One pickle, which begins at the present position of the file.

    Attributes:
        item_bytes: Key of a storage that it names → bytes per value, of the type with which it is named first.
    """

    def __init__(self, file: IO[bytes]) -> None:
        start = file.tell()
        self.file, self.left = file, min(PICKLE_BYTES, file.seek(0, 2) - start)
        file.seek(start)
        self.budget = Budget()
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.item_bytes: dict[str, int] = {}

    def load(self) -> Any:
        """Interpret the pickle up to its end, where the file is then positioned.

        Returns:
            The described object: plain values, and descriptions of all else.

        Raises:
            RefusedError: If it is damaged, too large, or asks for what no checkpoint needs.
        """
        try:
            while (code := self.take(1)) != pickle.STOP:
                self.budget.spend(1)
                if code not in _STEPS:
                    raise RefusedError(f"damaged: pickle instruction 0x{code.hex()} {self.place()} is not allowed")
                _STEPS[code](self)
            if self.below or len(self.stack) != 1:
                raise RefusedError(f"damaged: its pickle ends {self.place()} in the middle of an object")
            return self.stack.pop()
        except RefusedError:
            raise
        # An empty stack, an unknown index, a list as a key, undecodable text, wrong arguments of a known function.
        except Exception as error:
            raise RefusedError(f"damaged: its pickle fails {self.place()} ({type(error).__name__}: {error})") from error

    def place(self) -> str:
        """The position of the last byte read, for error lines."""
        return f"at byte {self.file.tell() - 1}"

    def take(self, count: int) -> bytes:
        """Read the next `count` bytes of the file.

        Raises:
            RefusedError: If fewer are left of the file, or of `PICKLE_BYTES`.
        """
        if not 0 <= count <= self.left:
            raise RefusedError(
                f"ends early: {count} bytes expected {self.place()} of its pickle, {self.left} left; "
                f"the file is truncated, or the pickle longer than {PICKLE_BYTES} bytes"
            )
        self.left -= count
        return self.file.read(count)

    def number(self, count: int, signed: bool = False) -> int:
        """Read a little-endian integer of `count` bytes, in two's complement if signed."""
        return int.from_bytes(self.take(count), "little", signed=signed)

    def sized(self, count: int) -> bytes:
        """Read bytes that follow their own length, which is an integer of `count` bytes."""
        return self.take(self.number(count))

    def text_line(self) -> str:
        """Read a line of at most 4096 bytes, and return it without its line break.

        Raises:
            RefusedError: If it does not end there.
        """
        line = self.file.readline(min(self.left, 4096))
        self.left -= len(line)
        if not line.endswith(b"\n"):
            raise RefusedError(f"damaged: a line {self.place()} of its pickle does not end")
        return line[:-1].decode()

    # The stack.

    def push(self, value: Any) -> None:
        """Put a value on top of the stack."""
        self.stack.append(value)

    def pop(self, count: int) -> list[Any]:
        """Take the top `count` values off the stack, in the order in which they were put there."""
        return [self.stack.pop() for _ in range(count)][::-1]

    def mark(self) -> None:
        """Set the stack aside and begin a new one."""
        self.below.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        """Return all values since the last mark, and go back to the stack that was set aside there."""
        items, self.stack = self.stack, self.below.pop()
        return items

    # Containers.

    def items_of_top(self, kind: type) -> Any:
        """The list or dict on top of the stack, or the items of an object there that is a kind of list or dict."""
        target = self.stack[-1]
        if type(target) in (Placeholder, Array):
            if target.state is None:
                target.state = kind()
            target = target.state
        return expect(target, f"a {kind.__name__}", kind)

    def append(self, values: list[Any]) -> None:
        """Append values to the list on top of the stack."""
        self.items_of_top(list).extend(values)

    def set_items(self, values: list[Any]) -> None:
        """Set items of the dict on top of the stack, from keys and values in turn."""
        target = self.items_of_top(dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[self.budget.key(key, target)] = value

    def add(self, values: list[Any]) -> None:
        """Add values to the set on top of the stack."""
        self.budget.add_keys(expect(self.stack[-1], "a set", set), values)

    def keep(self, index: int) -> None:
        """Record the top of the stack in the memo, from which later instructions fetch it by its index."""
        self.memo[self.budget.key(index, self.memo)] = self.stack[-1]

    def build(self) -> None:
        """Take a state off the stack and give it to the object that is then on top.

        Raises:
            RefusedError: If that is an object which no checkpoint gives a state.
        """
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) in (Placeholder, Array):
            # A kind of dict or list has its items by now, which matter more than its attributes.
            if target.state is None:
                target.state = state
        elif not isinstance(target, dict | list | str | TensorView):
            # The state of these four types is not needed: a state dict's versions, a parameter's attributes.
            raise RefusedError(f"damaged: sets the state of {short(target)}; it may be hostile")

    def storage(self) -> None:
        """Replace the storage that is named on top of the stack by its description."""
        described = describe_storage(self.stack.pop())
        self.item_bytes.setdefault(described.key, described.dtype.itemsize)
        self.push(described)


# The instructions that picklers have written since protocol 2. Any other is refused.
_STEPS: dict[bytes, Callable[[Pickle], Any]] = {
    pickle.PROTO: lambda p: p.take(1),
    pickle.FRAME: lambda p: p.take(8),
    pickle.MARK: Pickle.mark,
    pickle.POP: lambda p: p.pop(1) if p.stack else p.pop_mark(),
    pickle.POP_MARK: Pickle.pop_mark,
    pickle.DUP: lambda p: p.push(p.stack[-1]),
    pickle.NONE: lambda p: p.push(None),
    pickle.NEWTRUE: lambda p: p.push(True),
    pickle.NEWFALSE: lambda p: p.push(False),
    pickle.BININT: lambda p: p.push(p.number(4, signed=True)),
    pickle.BININT1: lambda p: p.push(p.number(1)),
    pickle.BININT2: lambda p: p.push(p.number(2)),
    pickle.LONG: lambda p: p.push(int(p.text_line().removesuffix("L"))),
    pickle.LONG1: lambda p: p.push(p.number(p.number(1), signed=True)),
    pickle.BINFLOAT: lambda p: p.push(struct.unpack(">d", p.take(8))[0]),
    pickle.BINUNICODE: lambda p: p.push(p.sized(4).decode("utf-8", "surrogatepass")),
    pickle.SHORT_BINUNICODE: lambda p: p.push(p.sized(1).decode("utf-8", "surrogatepass")),
    # Text and bytes were one type in Python 2. Only latin1 keeps both without loss.
    pickle.BINSTRING: lambda p: p.push(p.sized(4).decode("latin1")),
    pickle.SHORT_BINSTRING: lambda p: p.push(p.sized(1).decode("latin1")),
    pickle.BINBYTES: lambda p: p.push(p.sized(4)),
    pickle.SHORT_BINBYTES: lambda p: p.push(p.sized(1)),
    pickle.BYTEARRAY8: lambda p: p.push(bytearray(p.sized(8))),
    pickle.EMPTY_TUPLE: lambda p: p.push(()),
    pickle.TUPLE1: lambda p: p.push(tuple(p.pop(1))),
    pickle.TUPLE2: lambda p: p.push(tuple(p.pop(2))),
    pickle.TUPLE3: lambda p: p.push(tuple(p.pop(3))),
    pickle.TUPLE: lambda p: p.push(tuple(p.pop_mark())),
    pickle.EMPTY_LIST: lambda p: p.push([]),
    pickle.APPEND: lambda p: p.append(p.pop(1)),
    pickle.APPENDS: lambda p: p.append(p.pop_mark()),
    pickle.EMPTY_DICT: lambda p: p.push({}),
    pickle.SETITEM: lambda p: p.set_items(p.pop(2)),
    pickle.SETITEMS: lambda p: p.set_items(p.pop_mark()),
    pickle.EMPTY_SET: lambda p: p.push(set()),
    pickle.ADDITEMS: lambda p: p.add(p.pop_mark()),
    pickle.FROZENSET: lambda p: p.push(frozenset(p.budget.add_keys(set(), p.pop_mark()))),
    pickle.BINPUT: lambda p: p.keep(p.number(1)),
    pickle.LONG_BINPUT: lambda p: p.keep(p.number(4)),
    pickle.MEMOIZE: lambda p: p.keep(len(p.memo)),
    pickle.BINGET: lambda p: p.push(p.memo[p.number(1)]),
    pickle.LONG_BINGET: lambda p: p.push(p.memo[p.number(4)]),
    pickle.GLOBAL: lambda p: p.push(describe_global(p.budget, p.text_line(), p.text_line())),
    pickle.STACK_GLOBAL: lambda p: p.push(describe_global(p.budget, *p.pop(2))),
    pickle.REDUCE: lambda p: p.push(describe_call(p.budget, *p.pop(2))),
    pickle.NEWOBJ: lambda p: p.push(describe_call(p.budget, *p.pop(2))),
    pickle.NEWOBJ_EX: lambda p: p.push(describe_call(p.budget, *p.pop(3))),
    pickle.BUILD: Pickle.build,
    pickle.BINPERSID: Pickle.storage,
}
