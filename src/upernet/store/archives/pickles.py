"""A pickle's bytes, interpreted into inert descriptions.

Its instructions are carried out here, on data of our own: no name is ever looked up in a module and nothing is ever
called, so a hostile file has nothing to reach. Plain values come out as themselves, tensors and arrays as claims that
are still to be compared with the file, classes and calls of other software as `Placeholder`s. What Python, PyTorch or
NumPy could do but no checkpoint needs is refused by its name.
"""

from __future__ import annotations

import pickle
import re
import struct
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Sized
from dataclasses import dataclass, replace
from typing import IO, Any, NoReturn

import torch

PICKLE_BYTES = 256 * 2**20
"""Largest pickle that is interpreted, without the tensors' data; honest ones stay far below a tenth of it."""
PICKLE_STEPS = 1_000_000
"""Most instructions of one pickle, and elements copied by them: they, not bytes, are what memory grows with. A training
checkpoint with its optimiser takes about a tenth."""
COPIED_BYTES = 64
"""Bytes whose copy counts as one step."""
COLLISIONS = 32
"""Comparisons of two keys that count as one step."""
KEY_PARTS = 1000
"""Most elements of a tuple used as a key: hashing visits each as often as it occurs."""
DIMENSIONS = 64

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "UntypedStorage": torch.uint8,
}
_DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype) and name[0] != "q"}
# The first ran commands in Python 2; pickle has no name of today for it. The next held its errors, most of which have.
_GUARDED = frozenset({"popen2", "exceptions", "torch", "numpy", "torchvision", "upernet"}) | sys.stdlib_module_names
_HARMLESS = re.compile(
    r"argparse\.Namespace|types\.SimpleNamespace|functools\.partial|uuid\.(Safe)?UUID|decimal\.Decimal"
    r"|fractions\.Fraction|builtins\.(object|range|slice)|numpy\.dtype"
    r"|pathlib(\._local)?\.(Pure)?(Posix|Windows)?Path|datetime\.(date|time|datetime|timedelta|timezone)"
    r"|typing\.(Any|Callable|Dict|FrozenSet|Iterable|List|Literal|Mapping|Optional|Sequence|Set|Tuple|Type|Union)"
    r"|torch\.optim\.(\w+\.)?[A-Z]\w*"
)
_NAMES_ONLY = re.compile(
    r"torch\.Tensor|torch\.nn\.(parameter\.)?Parameter|numpy\.ndarray"
    r"|builtins\.(bool|int|float|str|list|tuple|dict)"
)
_MODULE = re.compile(r"(torch\.nn\.(modules|parallel)|torchvision\.(models|ops)|upernet\.model)\.(\w+\.)+_?[A-Z]\w*")


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
class _Name(Placeholder):
    """A class or function itself. A call of a foreign one is a `Placeholder`, of any other what `_CALLS` says."""

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
    if len(_expect(value, "a shape", tuple, list)) > DIMENSIONS:
        raise RefusedError(f"damaged: a tensor of {len(value)} dimensions")
    return tuple(_count(v) for v in value)


def _count(value: Any) -> int:
    if not 0 <= _expect(value, "a count", int) < 2**62:
        raise RefusedError(f"damaged: {_short(value)} where a count was expected")
    return int(value)


def _expect(value: Any, wanted: str, *kinds: type) -> Any:
    if type(value) not in kinds:
        raise RefusedError(f"damaged: {_short(value)} where {wanted} was expected")
    return value


def _short(value: Any) -> str:
    if value is None or type(value) in (bool, int, float, str, bytes):
        return repr(value[:40] if isinstance(value, str | bytes) else value)[:60]
    return f"a {type(value).__name__.lstrip('_')}"


def _refuse(name: str) -> NoReturn:
    raise RefusedError(f"asks for {name[:200]}, which no checkpoint needs; it may be hostile and was not opened")


def _refuse_module(name: str) -> NoReturn:
    raise RefusedError(f"holds a whole model ({name[:200]}), not its weights; save model.state_dict() and give that")


class Pickle:
    """One pickle, that begins where the file stands.

    Attributes:
        item_bytes: For the key of every storage it names, bytes per value of the type that names it first.
    """

    def __init__(self, file: IO[bytes]) -> None:
        start = file.tell()
        self.file, self.left, self.steps = file, min(PICKLE_BYTES, file.seek(0, 2) - start), PICKLE_STEPS
        file.seek(start)
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.item_bytes: dict[str, int] = {}

    def load(self) -> Any:
        """The object that it describes; the file then stands behind it.

        Raises:
            RefusedError: If it is damaged, too large, or asks for what no checkpoint needs.
        """
        try:
            while (code := self.take(1)) != pickle.STOP:
                self.spend(1)
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
        return f"at byte {self.file.tell() - 1}"

    def spend(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise RefusedError(f"its pickle takes more than {PICKLE_STEPS} steps; it may be hostile")

    def take(self, count: int) -> bytes:
        if not 0 <= count <= self.left:
            raise RefusedError(
                f"ends early: {count} bytes expected {self.place()} of its pickle, {self.left} left; "
                f"the file is truncated, or the pickle longer than {PICKLE_BYTES} bytes"
            )
        self.left -= count
        return self.file.read(count)

    def number(self, count: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(count), "little", signed=signed)

    def sized(self, count: int) -> bytes:
        return self.take(self.number(count))

    def text_line(self) -> str:
        line = self.file.readline(min(self.left, 4096))
        self.left -= len(line)
        if not line.endswith(b"\n"):
            raise RefusedError(f"damaged: a line {self.place()} of its pickle does not end")
        return line[:-1].decode()

    # The stack. A mark sets the present one aside.

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> list[Any]:
        return [self.stack.pop() for _ in range(count)][::-1]

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    # Containers.

    def items_of_top(self, kind: type) -> Any:
        """The list or dict on top, or the items of an object there that is a kind of one."""
        target = self.stack[-1]
        if type(target) in (Placeholder, Array):
            if target.state is None:
                target.state = kind()
            target = target.state
        return _expect(target, f"a {kind.__name__}", kind)

    def append(self, values: list[Any]) -> None:
        self.items_of_top(list).extend(values)

    def set_items(self, values: list[Any]) -> None:
        target = self.items_of_top(dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[self.key(key, target)] = value

    def add(self, values: list[Any]) -> None:
        self.join(_expect(self.stack[-1], "a set", set), values)

    def join(self, target: set[Any], values: list[Any]) -> set[Any]:
        for value in values:
            target.add(self.key(value, target))
        return target

    def key(self, value: Any, others: Sized) -> Any:
        """The value, once the steps are spent that hashing it and comparing it with the other keys may take.

        Text is hashed with a secret and numbers that count up all differ in their hash; any other key may have been
        chosen to collide with each one before it. Nested tuples are hashed anew each time, without a limit.
        """
        if type(value) in (str, bytes) or (type(value) is int and 0 <= value <= len(others) + 1):
            return value
        waiting, parts = [value], 1
        while waiting:
            item = waiting.pop()
            if type(item) in (tuple, frozenset):
                parts += 1 + len(item)
                if parts > KEY_PARTS:
                    raise RefusedError(f"holds a key of more than {KEY_PARTS} parts; it may be hostile")
                waiting.extend(item)
        self.spend(parts * (1 + len(others) // COLLISIONS))
        return value

    def keep(self, index: int) -> None:
        self.memo[self.key(index, self.memo)] = self.stack[-1]

    # Names and calls, none of which is followed.

    def name(self, module: Any, name: Any) -> Any:
        """What stands for a global."""
        self.spend(len(_expect(module, "a name", str)) + len(_expect(name, "a name", str)))
        given = f"{module}.{name}"
        # As pickle itself does: what Python 2 called thread.start_new_thread acts under today's name.
        place, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        if place == "numpy._core" or place.startswith("numpy._core."):
            place = "numpy.core" + place.removeprefix("numpy._core")
        full = f"{place}.{name}"
        if place == "torch" and name in _DTYPES:
            return _DTYPES[name]
        storage = place in ("torch", "torch.cuda", "torch.storage") and name in _STORAGES
        if storage or full in _CALLS or _NAMES_ONLY.fullmatch(full):
            return _Name(full)
        if place.partition(".")[0] not in _GUARDED or _HARMLESS.fullmatch(full):
            return _Name(full, foreign=True)
        if _MODULE.fullmatch(full):
            _refuse_module(full)
        _refuse(given)

    def call(self, target: Any, args: Any, keywords: Any = None) -> Any:
        """What stands for `target(*args, **keywords)`. Keywords become one last argument."""
        self.spend(len(_expect(args, "arguments", tuple)))
        if keywords:
            args = (*args, _expect(keywords, "keywords", dict))
        if isinstance(target, _Name):
            if target.foreign:
                return Placeholder(target.name, args)
            if target.name not in _CALLS:
                _refuse(f"a call of {target.name}")
            return _CALLS[target.name](self, *args)
        if isinstance(target, Placeholder):
            return Placeholder(target.name, (target, *args))
        raise RefusedError(f"damaged: calls {_short(target)}")

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) in (Placeholder, Array):
            # A kind of dict or list has its items by now; they say more than its attributes.
            if target.state is None:
                target.state = state
        elif not isinstance(target, dict | list | str | TensorView):
            # State of those four is decoration: a state dict's version notes, attributes of a parameter.
            raise RefusedError(f"damaged: sets the state of {_short(target)}; it may be hostile")

    def storage(self) -> None:
        given = _expect(self.stack.pop(), "a storage", tuple)
        if given[:1] == ("module",):  # so the format before PyTorch 1.6 keeps the source code of a class
            _refuse_module(given[1].name if isinstance(given[1], _Name) else "of no known class")
        # The format before PyTorch 1.6 adds a window, which has been None since PyTorch 0.4.
        kind, of, key, _, numel, *window = given
        name = of.name.rpartition(".")[2] if isinstance(of, _Name) and not of.foreign else ""
        if kind != "storage" or name not in _STORAGES or window not in ([], [None]):
            raise RefusedError("damaged: its pickle names a storage of no known kind")
        dtype, key = _STORAGES[name], str(_expect(key, "a storage's key", str, int))
        self.item_bytes.setdefault(key, dtype.itemsize)
        self.push(TensorView(key, _count(numel) * dtype.itemsize, dtype, 0, (numel,), (1,)))


# All that picklers have written since protocol 2; any other instruction is refused.
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
    # Text and bytes were one type in Python 2: latin1 is the only encoding that loses neither.
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
    pickle.FROZENSET: lambda p: p.push(frozenset(p.join(set(), p.pop_mark()))),
    pickle.BINPUT: lambda p: p.keep(p.number(1)),
    pickle.LONG_BINPUT: lambda p: p.keep(p.number(4)),
    pickle.MEMOIZE: lambda p: p.keep(len(p.memo)),
    pickle.BINGET: lambda p: p.push(p.memo[p.number(1)]),
    pickle.LONG_BINGET: lambda p: p.push(p.memo[p.number(4)]),
    pickle.GLOBAL: lambda p: p.push(p.name(p.text_line(), p.text_line())),
    pickle.STACK_GLOBAL: lambda p: p.push(p.name(*p.pop(2))),
    pickle.REDUCE: lambda p: p.push(p.call(*p.pop(2))),
    pickle.NEWOBJ: lambda p: p.push(p.call(*p.pop(2))),
    pickle.NEWOBJ_EX: lambda p: p.push(p.call(*p.pop(3))),
    pickle.BUILD: Pickle.build,
    pickle.BINPERSID: Pickle.storage,
}


# What stands for a call of each function that honest checkpoints name. Wrong arguments fail, and so refuse the file.


def _sequence(p: Pickle, items: Any = (), length: Any = None) -> list[Any]:
    p.spend(len(_expect(items, "a list", list, tuple)))
    return list(items)


def _mapping(p: Pickle, items: Any = ()) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    for key, value in _sequence(p, list(items.items()) if type(items) is dict else items):
        made[p.key(key, made)] = value
    return made


def _bytes(p: Pickle, value: Any = b"", encoding: Any = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise RefusedError(f"damaged: bytes in the encoding {_short(encoding)}")
    p.spend(len(_expect(value, "bytes", bytes, str)) // COPIED_BYTES)
    return value if isinstance(value, bytes) else value.encode("latin1")


def _attribute(p: Pickle, target: Any, name: Any) -> _Name:
    # Before protocol 4, a pickle names a method of a class like this; mmengine's checkpoints are full of it.
    if isinstance(target, _Name) and target.foreign and type(name) is str and name.isidentifier():
        p.spend(len(target.name) + len(name))
        # A harmless class of Python's own can have methods that act, such as pathlib.Path.unlink.
        if target.name.partition(".")[0] in _GUARDED:
            _refuse(f"{target.name}.{name}")
        return _Name(f"{target.name}.{name}", foreign=True)
    _refuse("builtins.getattr")


def _device(p: Pickle, kind: Any, index: Any = None) -> str:
    p.spend(len(_expect(kind, "a device", str)))
    return kind if index is None else f"{kind}:{_count(index)}"


def _tensor(
    p: Pickle, storage: Any, offset: Any, size: Any, stride: Any, grad: Any = False, hooks: Any = None, bits: Any = None
) -> TensorView:
    _expect(storage, "a storage", TensorView)
    made = replace(storage, offset=_count(offset), size=sizes(size), stride=sizes(stride))
    if len(made.size) != len(made.stride):
        raise RefusedError(f"damaged: a tensor of {len(made.size)} sizes and {len(made.stride)} strides")
    if bits:
        raise RefusedError("holds a conjugated or negated tensor; save what its resolve_conj() or resolve_neg() gives")
    return made


def _tensor_of_class(p: Pickle, function: Any, kind: Any, args: Any, attributes: Any) -> Any:
    if not isinstance(function, _Name) or not function.name.startswith("torch._utils._rebuild_"):
        raise RefusedError(f"damaged: {_short(function)} where a tensor was expected")
    return p.call(function, args)


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": lambda p, factory=None, items=(): _mapping(p, items),
    "collections.Counter": _mapping,
    "collections.deque": _sequence,
    "builtins.set": lambda p, items=(): p.join(set(), _sequence(p, items)),
    "builtins.frozenset": lambda p, items=(): frozenset(p.join(set(), _sequence(p, items))),
    "builtins.bytes": _bytes,
    "builtins.bytearray": lambda p, *args: bytearray(_bytes(p, *args)),
    "builtins.complex": lambda p, real, imaginary: complex(real, imaginary),
    "builtins.getattr": _attribute,
    "copyreg._reconstructor": lambda p, kind, base, value: p.call(kind, () if value is None else (value,)),
    "_codecs.encode": _bytes,
    "torch.Size": lambda p, items=(): tuple(_sequence(p, items)),
    "torch.device": _device,
    "torch.torch_version.TorchVersion": lambda p, text: _expect(text, "a version", str),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    # Like the second, with the type as its seventh argument.
    "torch._utils._rebuild_tensor_v3": lambda p, *args: replace(
        _tensor(p, *args[:6], *args[7:]), dtype=_expect(args[6], "a type of numbers", torch.dtype)
    ),
    "torch._utils._rebuild_parameter": lambda p, data, *rest: _expect(data, "a tensor", TensorView),
    "torch._utils._rebuild_parameter_with_state": lambda p, data, *rest: _expect(data, "a tensor", TensorView),
    "torch._tensor._rebuild_from_type_v2": _tensor_of_class,
    "numpy.core.multiarray._reconstruct": lambda p, kind, shape, code: Array("numpy.ndarray"),
    "numpy.core.multiarray.scalar": lambda p, kind, data: Array("numpy.generic", (), (1, (), kind, False, data)),
    "numpy.core.numeric._frombuffer": lambda p, data, kind, shape, order: Array(
        "numpy.ndarray", (), (1, shape, kind, order == "F", data)
    ),
}
