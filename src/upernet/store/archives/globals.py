"""Descriptions of the classes and functions that a pickle names, and of calls of them.

No name is ever looked up in a module, and no call is ever made. The names in Python, PyTorch and NumPy that honest
checkpoints need are listed here one by one; all others in them are refused. Names in other software become
`Placeholder`s.
"""

from __future__ import annotations

import re
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

import torch

from upernet.store.archives.budget import Budget
from upernet.store.archives.descriptions import (
    Array,
    Name,
    Placeholder,
    RefusedError,
    TensorView,
    count,
    expect,
    short,
    sizes,
)

COPIED_BYTES = 64
"""How many copied bytes count as one step."""

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
# Two modules of Python 2 come first. `popen2` ran commands, and pickle maps it to no module of Python 3. `exceptions`
# held the built-in errors, most of which pickle maps.
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


def describe_global(budget: Budget, module: Any, name: Any) -> Any:
    """Describe a class or function that a pickle names: a type of numbers as itself, any other as a `Name`.

    Raises:
        RefusedError: If no checkpoint needs it.
    """
    budget.spend(len(expect(module, "a name", str)) + len(expect(name, "a name", str)))
    original = f"{module}.{name}"
    # As in pickle itself, names of Python 2, such as thread.start_new_thread, are mapped to today's.
    place, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    if place == "numpy._core" or place.startswith("numpy._core."):
        place = "numpy.core" + place.removeprefix("numpy._core")
    full = f"{place}.{name}"
    if place == "torch" and name in _DTYPES:
        return _DTYPES[name]
    storage = place in ("torch", "torch.cuda", "torch.storage") and name in _STORAGES
    if storage or full in _CALLS or _NAMES_ONLY.fullmatch(full):
        return Name(full)
    if place.partition(".")[0] not in _GUARDED or _HARMLESS.fullmatch(full):
        return Name(full, foreign=True)
    if _MODULE.fullmatch(full):
        _refuse_module(full)
    _refuse(original)


def describe_call(budget: Budget, target: Any, args: Any, keywords: Any = None) -> Any:
    """Describe the call `target(*args, **keywords)`. All keywords together become the last argument.

    Raises:
        RefusedError: If it is a call that no checkpoint needs.
    """
    budget.spend(len(expect(args, "arguments", tuple)))
    if keywords:
        args = (*args, expect(keywords, "keywords", dict))
    if isinstance(target, Name):
        if target.foreign:
            return Placeholder(target.name, args)
        if target.name not in _CALLS:
            _refuse(f"a call of {target.name}")
        return _CALLS[target.name](budget, *args)
    if isinstance(target, Placeholder):
        return Placeholder(target.name, (target, *args))
    raise RefusedError(f"damaged: calls {short(target)}")


def describe_storage(storage: Any) -> TensorView:
    """Describe a storage that a pickle names, as a tensor of all its values in one dimension.

    Raises:
        RefusedError: If it is of no known kind.
    """
    expect(storage, "a storage", tuple)
    if storage[:1] == ("module",):  # the format before PyTorch 1.6 keeps the source code of a class like this
        _refuse_module(storage[1].name if isinstance(storage[1], Name) else "of no known class")
    # The format before PyTorch 1.6 adds a window, which has been None since PyTorch 0.4.
    kind, storage_class, key, _, numel, *window = storage
    known = isinstance(storage_class, Name) and not storage_class.foreign
    name = storage_class.name.rpartition(".")[2] if known else ""
    if kind != "storage" or name not in _STORAGES or window not in ([], [None]):
        raise RefusedError("damaged: its pickle names a storage of no known kind")
    dtype, key = _STORAGES[name], str(expect(key, "a storage's key", str, int))
    return TensorView(key, count(numel) * dtype.itemsize, dtype, 0, (numel,), (1,))


def _refuse(name: str) -> NoReturn:
    raise RefusedError(f"asks for {name[:200]}, which no checkpoint needs; it may be hostile and was not opened")


def _refuse_module(name: str) -> NoReturn:
    raise RefusedError(f"holds a whole model ({name[:200]}), not its weights; save model.state_dict() and give that")


# One function for each call that honest checkpoints make. Wrong arguments raise an error, which refuses the file.


def _sequence(budget: Budget, items: Any = (), length: Any = None) -> list[Any]:
    budget.spend(len(expect(items, "a list", list, tuple)))
    return list(items)


def _mapping(budget: Budget, items: Any = ()) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    for key, value in _sequence(budget, list(items.items()) if type(items) is dict else items):
        made[budget.key(key, made)] = value
    return made


def _bytes(budget: Budget, value: Any = b"", encoding: Any = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise RefusedError(f"damaged: bytes in the encoding {short(encoding)}")
    budget.spend(len(expect(value, "bytes", bytes, str)) // COPIED_BYTES)
    return value if isinstance(value, bytes) else value.encode("latin1")


def _attribute(budget: Budget, target: Any, name: Any) -> Name:
    # Before protocol 4, a pickle names a method of a class like this; mmengine's checkpoints are full of it.
    if isinstance(target, Name) and target.foreign and type(name) is str and name.isidentifier():
        budget.spend(len(target.name) + len(name))
        # Even a harmless class of Python can have methods with effects, such as pathlib.Path.unlink.
        if target.name.partition(".")[0] in _GUARDED:
            _refuse(f"{target.name}.{name}")
        return Name(f"{target.name}.{name}", foreign=True)
    _refuse("builtins.getattr")


def _device(budget: Budget, kind: Any, index: Any = None) -> str:
    budget.spend(len(expect(kind, "a device", str)))
    return kind if index is None else f"{kind}:{count(index)}"


def _tensor(
    budget: Budget,
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    grad: Any = False,
    hooks: Any = None,
    bits: Any = None,
) -> TensorView:
    expect(storage, "a storage", TensorView)
    made = replace(storage, offset=count(offset), size=sizes(size), stride=sizes(stride))
    if len(made.size) != len(made.stride):
        raise RefusedError(f"damaged: a tensor of {len(made.size)} sizes and {len(made.stride)} strides")
    if bits:
        raise RefusedError("holds a conjugated or negated tensor; save what its resolve_conj() or resolve_neg() gives")
    return made


def _tensor_of_class(budget: Budget, function: Any, kind: Any, args: Any, attributes: Any) -> Any:
    if not isinstance(function, Name) or not function.name.startswith("torch._utils._rebuild_"):
        raise RefusedError(f"damaged: {short(function)} where a tensor was expected")
    return describe_call(budget, function, args)


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": lambda budget, factory=None, items=(): _mapping(budget, items),
    "collections.Counter": _mapping,
    "collections.deque": _sequence,
    "builtins.set": lambda budget, items=(): budget.add_keys(set(), _sequence(budget, items)),
    "builtins.frozenset": lambda budget, items=(): frozenset(budget.add_keys(set(), _sequence(budget, items))),
    "builtins.bytes": _bytes,
    "builtins.bytearray": lambda budget, *args: bytearray(_bytes(budget, *args)),
    "builtins.complex": lambda budget, real, imaginary: complex(real, imaginary),
    "builtins.getattr": _attribute,
    "copyreg._reconstructor": lambda budget, kind, base, value: describe_call(
        budget, kind, () if value is None else (value,)
    ),
    "_codecs.encode": _bytes,
    "torch.Size": lambda budget, items=(): tuple(_sequence(budget, items)),
    "torch.device": _device,
    "torch.torch_version.TorchVersion": lambda budget, text: expect(text, "a version", str),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    # Like `_rebuild_tensor_v2`, with the type as the seventh argument.
    "torch._utils._rebuild_tensor_v3": lambda budget, *args: replace(
        _tensor(budget, *args[:6], *args[7:]), dtype=expect(args[6], "a type of numbers", torch.dtype)
    ),
    "torch._utils._rebuild_parameter": lambda budget, data, *rest: expect(data, "a tensor", TensorView),
    "torch._utils._rebuild_parameter_with_state": lambda budget, data, *rest: expect(data, "a tensor", TensorView),
    "torch._tensor._rebuild_from_type_v2": _tensor_of_class,
    "numpy.core.multiarray._reconstruct": lambda budget, kind, shape, code: Array("numpy.ndarray"),
    "numpy.core.multiarray.scalar": lambda budget, kind, data: Array("numpy.generic", (), (1, (), kind, False, data)),
    "numpy.core.numeric._frombuffer": lambda budget, data, kind, shape, order: Array(
        "numpy.ndarray", (), (1, shape, kind, order == "F", data)
    ),
}
