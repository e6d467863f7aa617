"""Checkpoint files are read as torch.load reads them, and nothing in a hostile or damaged one is ever executed."""

from __future__ import annotations

import argparse
import collections
import copyreg
import datetime
import json
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import tarfile
import types
import warnings
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from upernet.errors import UserError, WorkError
from upernet.model import UPerNet
from upernet.store.archives import archive, pickles
from upernet.store.archives.archive import Placeholder, read_checkpoint, read_index, read_safetensors

INSTRUCTIONS = [v for k, v in sorted(vars(pickle).items()) if k.isupper() and isinstance(v, bytes) and len(v) == 1]
FORMATS = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
    torch.complex128,
]


def write(path: Path, content: Any, legacy: bool = False, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, path, _use_new_zipfile_serialization=not legacy, **options)
    return path


def zip_of(path: Path, pickled: bytes, data: dict[str, bytes] | None = None, **options: Any) -> Path:
    """A zip checkpoint whose pickle is given byte by byte."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("x/data.pkl", pickled)
        archive.writestr("x/byteorder", "little")
        for key, values in (data or {}).items():
            archive.writestr(f"x/data/{key}", values)
    return path


def legacy_of(path: Path, pickled: bytes, tail: bytes = b"") -> Path:
    head = b"".join(pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    path.write_bytes(head + pickled + (tail or pickle.dumps([], 2)))
    return path


def same(a: Any, b: Any) -> None:
    """Equal in kind, structure and every number."""
    if isinstance(b, torch.Tensor):
        assert isinstance(a, torch.Tensor) and a.device.type == "cpu" and not a.requires_grad
        assert a.dtype == b.dtype and a.shape == b.shape and a.stride() == b.stride()
        assert torch.equal(a, b.detach())
    elif isinstance(b, np.ndarray):
        assert isinstance(a, np.ndarray) and a.dtype == b.dtype and a.flags.writeable
        assert np.array_equal(a, b)
    elif isinstance(b, dict):
        assert type(a) is dict and list(a) == list(b)
        for key in b:
            same(a[key], b[key])
    elif isinstance(b, list | tuple):
        assert type(a) is (tuple if isinstance(b, tuple) else list) and len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    else:
        assert type(a) is type(b) and a == b


def refusal(path: Path) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(WorkError) as caught:
        read_checkpoint(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and len(text.splitlines()) == 1
    return text.removeprefix(f"{path}: ")


# Honest files.


def various() -> dict[str, Any]:
    base = torch.arange(24.0)
    shared = [1, 2]
    return {
        "state_dict": torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3)).state_dict(),
        "views": (base, base.view(4, 6).T, base[3:9:2], base.view(2, 3, 4)[1, :, 2]),
        "odd": [torch.tensor(2.5), torch.empty(0), torch.empty(3, 0, 2)],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "size": torch.ones(2, 3).size(),
        "lists": [shared, shared],
        "plain": [None, True, -1, 2**70, 1.5, 2j, "ü\n", b"\x00\xff", (), {1: {2, 3}, (4, "k"): frozenset([5])}],
        "array": np.arange(6, dtype=np.int16).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">i4"),
    }


@FORMATS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_nested_object_reads_as_torch_reads_it(tmp_path: Path, legacy: bool, protocol: int) -> None:
    path = write(tmp_path / "a.pth", various(), legacy, pickle_protocol=protocol)
    got, expected = read_checkpoint(path), torch.load(path, weights_only=False)
    expected["size"] = tuple(expected["size"])
    expected["big"] = expected["big"].astype(np.int32)
    same(got, expected)
    assert got["lists"][0] is got["lists"][1]


@FORMATS
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_type_of_number(tmp_path: Path, legacy: bool, dtype: torch.dtype) -> None:
    value = (torch.arange(7) - 3).to(dtype)
    same(read_checkpoint(write(tmp_path / "a.pth", [value, value[2:5]], legacy)), [value, value[2:5]])


def test_types_that_have_no_storage_class_of_their_own(tmp_path: Path) -> None:
    values = [torch.arange(5).to(torch.uint16), torch.arange(5).to(torch.uint32)[1:], torch.arange(3).untyped_storage()]
    got = read_checkpoint(write(tmp_path / "a.pth", values))
    same(got[:2], values[:2])
    assert got[2].dtype == torch.uint8 and got[2].tolist() == values[2].tolist()


@FORMATS
def test_tensors_share_memory_where_they_did_and_can_be_written(tmp_path: Path, legacy: bool) -> None:
    base = torch.zeros(4)
    got = read_checkpoint(write(tmp_path / "a.pth", {"whole": base, "part": base[2:], "other": torch.zeros(2)}, legacy))
    got["part"][0] = 7
    assert got["whole"].tolist() == [0, 0, 7, 0] and got["other"].tolist() == [0, 0]


def test_conjugated_tensors_are_not_read_as_others(tmp_path: Path) -> None:
    value = torch.tensor([1 + 2j, 3 - 1j]).conj()
    assert "resolve_conj" in refusal(write(tmp_path / "a.pth", value))
    assert torch.equal(read_checkpoint(write(tmp_path / "b.pth", value.resolve_conj())), value)


def test_tensors_with_attributes_are_tensors(tmp_path: Path) -> None:
    value = torch.ones(2)
    value.note = "kept by torch"
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.note = "kept by torch"
    got = read_checkpoint(write(tmp_path / "a.pth", [value, parameter]))
    assert torch.equal(got[0], torch.ones(2)) and torch.equal(got[1], torch.ones(3))


@FORMATS
def test_known_classes_become_plain_values(tmp_path: Path, legacy: bool) -> None:
    content = {
        "default": collections.defaultdict(list, a=[1]),
        "queue": collections.deque([1, 2], 5),
        "counter": collections.Counter("aab"),
        "ordered": collections.OrderedDict(b=1, a=2),
        "bytes": bytearray(b"ab"),
        "device": torch.device("cuda", 1),
        "dtype": torch.bfloat16,
        "scalar": np.float32(1.5),
        "int": np.int64(-3),
        "bool": np.bool_(True),
        "npdtype": np.dtype("f4"),
    }
    got = read_checkpoint(write(tmp_path / "a.pth", content, legacy))
    assert got == {
        "default": {"a": [1]},
        "queue": [1, 2],
        "counter": {"a": 2, "b": 1},
        "ordered": {"b": 1, "a": 2},
        "bytes": bytearray(b"ab"),
        "device": "cuda:1",
        "dtype": torch.bfloat16,
        "scalar": 1.5,
        "int": -3,
        "bool": True,
        "npdtype": np.dtype("f4"),
    }
    assert [type(got[k]) for k in ("default", "scalar", "int", "bool")] == [dict, float, int, bool]


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_arrays_under_the_names_of_both_numpy_versions(tmp_path: Path, module: str) -> None:
    pickled = pickle.dumps([np.arange(4.0), np.float64(0.5)], 2)
    pickled = pickled.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    pickled = pickled.replace(b"numpy.core.multiarray", module.encode())
    got = read_checkpoint(zip_of(tmp_path / "a.pth", pickled))
    assert got[0].tolist() == [0, 1, 2, 3] and got[1] == 0.5


def test_arrays_of_anything_but_numbers_are_placeholders(tmp_path: Path) -> None:
    got = read_checkpoint(write(tmp_path / "a.pth", [np.array([[], {}], dtype=object), np.array(["a"])]))
    assert [type(v) for v in got] == [Placeholder] * 2 and got[0].name == "numpy.ndarray"


@pytest.fixture
def foreign() -> Iterator[types.ModuleType]:
    """A module that exists while a file is written, in the manner of mmengine."""
    source = """
import numpy as np

class HistoryBuffer:
    def __init__(self):
        self.log = np.arange(3.0)
        self.methods = {"mean": HistoryBuffer.mean}
    def mean(self):
        raise AssertionError("called")

class ConfigDict(dict):
    pass

class Names(list):
    pass

class Old:
    def __init__(self, value):
        self.value = value
    def __reduce__(self):
        return function, (self.value,)

class Keyed:
    def __new__(cls, *, key):
        return super().__new__(cls)
    def __getnewargs_ex__(self):
        return (), {"key": 1}

def function(value):
    return Old(value)
"""
    names = ["mmengine", "mmengine.logging", "mmengine.logging.history_buffer"]
    modules = {name: types.ModuleType(name) for name in names}
    module = modules[names[-1]]
    sys.modules.update(modules)
    exec(source, module.__dict__)
    yield module
    for name in names:
        sys.modules.pop(name, None)


@FORMATS
@pytest.mark.parametrize("protocol", [2, 4])
def test_objects_of_foreign_classes_are_placeholders(
    tmp_path: Path, foreign: types.ModuleType, legacy: bool, protocol: int
) -> None:
    config = foreign.ConfigDict(a=1)
    config.attribute = 2
    keyed = foreign.Keyed(key=1)
    content = {
        "buffer": foreign.HistoryBuffer(),
        "config": config,
        "names": foreign.Names([1, 2]),
        "old": foreign.Old(torch.ones(2)),
        "keyed": keyed,
        "class": foreign.Old,
        "w": torch.ones(3),
    }
    path = write(tmp_path / "a.pth", content, legacy, pickle_protocol=protocol)
    for name in [n for n in sys.modules if n.startswith("mmengine")]:
        del sys.modules[name]
    got = read_checkpoint(path)
    assert not [n for n in sys.modules if n.startswith("mmengine")]
    here = "mmengine.logging.history_buffer"
    assert got["buffer"].name == f"{here}.HistoryBuffer" and got["buffer"].args == ()
    assert got["buffer"].state["log"].tolist() == [0, 1, 2]
    assert got["buffer"].state["methods"]["mean"].name == f"{here}.HistoryBuffer.mean"
    assert got["config"].name == f"{here}.ConfigDict" and got["config"].state == {"a": 1}
    assert got["names"].state == [1, 2]
    assert got["old"].name == f"{here}.function" and torch.equal(got["old"].args[0], torch.ones(2))
    if protocol == 2:
        # A call of functools.partial, which holds the arguments.
        assert got["keyed"].name == "functools.partial" and {"key": 1} in got["keyed"].args[0].state
    else:
        assert got["keyed"].name == f"{here}.Keyed" and got["keyed"].args == ({"key": 1},)
    assert got["class"].name == f"{here}.Old" and torch.equal(got["w"], torch.ones(3))


@pytest.mark.parametrize("protocol", [2, 4])
def test_harmless_classes_of_the_standard_library_are_placeholders(tmp_path: Path, protocol: int) -> None:
    content = [
        argparse.Namespace(lr=0.1),
        pathlib.PurePosixPath("/a/b"),
        datetime.datetime(2020, 1, 2),
        types.SimpleNamespace(a=1),
        slice(1, None, 2),
    ]
    got = read_checkpoint(write(tmp_path / "a.pth", content, pickle_protocol=protocol))
    names = ["argparse.Namespace", "pathlib.PurePosixPath", "datetime.datetime", "types.SimpleNamespace"]
    names.append("builtins.slice")
    assert [v.name for v in got] == names
    assert got[0].state == {"lr": 0.1} and got[1].args[-1] == "b" and got[4].args == (1, None, 2)


@FORMATS
def test_hyper_parameters_of_other_software_are_placeholders(tmp_path: Path, legacy: bool) -> None:
    content = [Any, torch.optim.AdamW, torch.optim.lr_scheduler.StepLR, torch.optim.SGD([torch.ones(1)], 0.1)]
    got = read_checkpoint(write(tmp_path / "a.pth", content, legacy))
    names = ["typing.Any", "torch.optim.adamw.AdamW", "torch.optim.lr_scheduler.StepLR", "torch.optim.sgd.SGD"]
    assert [v.name for v in got] == names and "param_groups" in got[3].state


def test_objects_made_in_the_manner_of_the_first_protocols(tmp_path: Path, foreign: types.ModuleType) -> None:
    # What a class gives, in any protocol, whose __reduce__ calls object's.
    for kind in (foreign.HistoryBuffer, foreign.ConfigDict):
        kind.__reduce__ = lambda self: copyreg._reduce_ex(self, 1)  # type: ignore[attr-defined]
    content = [foreign.HistoryBuffer(), foreign.ConfigDict(a=1)]
    got, config = read_checkpoint(zip_of(tmp_path / "a.pth", pickle.dumps(content, 2)))
    assert got.name.endswith(".HistoryBuffer") and got.state["log"].tolist() == [0, 1, 2]
    assert config.name.endswith(".ConfigDict") and config.args == ({"a": 1},)


def test_containers_that_hold_themselves(tmp_path: Path) -> None:
    loop: dict[str, Any] = {"list": []}
    loop["list"].append(loop)
    got = read_checkpoint(write(tmp_path / "a.pth", loop))
    assert got["list"][0] is got


@FORMATS
def test_weights_must_be_finite(tmp_path: Path, legacy: bool) -> None:
    """What is no weight need not be: masks, an optimiser's state."""
    for value, told, dtype in (
        (np.nan, "nan", torch.float32),
        (np.inf, "inf", torch.float16),
        (-np.inf, "inf", torch.float64),
    ):
        bad = torch.tensor([1, value, 2], dtype=dtype)
        honest = {"attn_mask": bad, "momentum_buffer": bad, "a.weight": torch.empty(0), "a.bias": torch.ones(1).int()}
        assert len(read_checkpoint(write(tmp_path / "a.pth", honest, legacy))) == 4
        for name in ("conv_seg.weight", "bn.running_var", "norm1.bias"):
            text = refusal(write(tmp_path / "a.pth", {"state_dict": {name: bad}}, legacy))
            assert text.startswith(f"tensor 'state_dict.{name}' holds {told}; its training went astray")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float8_e5m2], ids=str)
def test_weights_of_safetensors_must_be_finite(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file({"a.weight": torch.ones(2).to(dtype), "attn_mask": torch.full((2,), torch.nan)}, tmp_path / "a.pth")
    assert len(read_safetensors(tmp_path / "a.pth")) == 2
    save_file({"a.weight": torch.tensor([1, torch.nan]).to(dtype)}, tmp_path / "a.pth")
    assert refusal(tmp_path / "a.pth").startswith("tensor 'a.weight' holds nan; ")


def test_strings_of_python_2(tmp_path: Path) -> None:
    pickled = b"\x80\x02}U\x03namT\x05\x00\x00\x00caf\xe9\x00s."
    assert read_checkpoint(zip_of(tmp_path / "a.pth", pickled)) == {"nam": "café\x00"}


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_safetensors_are_known_by_their_content(tmp_path: Path, name: str) -> None:
    content = {"a": torch.arange(3), "b": torch.ones(2, 2, dtype=torch.bfloat16)}
    save_file(content, tmp_path / name)
    same(dict(sorted(read_checkpoint(tmp_path / name).items())), content)


@FORMATS
def test_the_suffix_does_not_matter(tmp_path: Path, legacy: bool) -> None:
    assert read_checkpoint(str(write(tmp_path / "a.safetensors", [1], legacy))) == [1]


@pytest.mark.parametrize("name", ["mmseg_tiny", "mmseg_tiny_11"])
def test_checkpoints_of_the_toolbox(fixtures_dir: Path, name: str) -> None:
    path = fixtures_dir / name / "checkpoint.pth"
    if not path.is_file():
        pytest.skip(f"no {path}")
    got = read_checkpoint(path)
    with torch.serialization.safe_globals([torch.torch_version.TorchVersion]):
        same(got["state_dict"], torch.load(path, weights_only=True)["state_dict"])
    assert isinstance(got["meta"], dict)


# Hostile files.


class Call:
    """Pickled, it asks for a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def named(module: str, name: str, protocol: int = 4) -> bytes:
    if protocol < 4:
        return f"c{module}\n{name}\n".encode()
    return b"".join(b"\x8c" + bytes([len(v)]) + v.encode() for v in (module, name)) + b"\x93"


def calls(marker: Path) -> dict[str, Callable[[], Any]]:
    touch = f"open({str(marker)!r}, 'w')"
    return {
        "system": lambda: Call(os.system, f"touch {marker}"),
        "eval": lambda: Call(eval, touch),
        "exec": lambda: Call(exec, touch),
        "Popen": lambda: Call(subprocess.Popen, ["touch", str(marker)]),
        "open": lambda: Call(open, str(marker), "w"),
        "__import__": lambda: Call(__import__, "os"),
        "getattr": lambda: Call(getattr, dict, "fromkeys"),
        "torch.hub": lambda: Call(torch.hub.load, "a", "b"),
        "torch.serialization.load": lambda: Call(torch.load, str(marker)),
        "numpy.load": lambda: Call(np.load, str(marker)),
    }


@FORMATS
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("which", calls(Path("x")))
def test_no_call_is_ever_made(
    tmp_path: Path, foreign: types.ModuleType, legacy: bool, protocol: int, nested: bool, which: str
) -> None:
    marker = tmp_path / "marker"
    hostile = calls(marker)[which]()
    content = {"w": torch.ones(2), "x": foreign.Old([hostile]) if nested else hostile}
    text = refusal(write(tmp_path / "a.pth", content, legacy, pickle_protocol=protocol))
    assert which in text and "asks for" in text and "not opened" in text
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "nt.system",
        "posix.system",
        "__builtin__.eval",
        "builtins.type",
        "builtins.setattr",
        "builtins.globals",
        "commands.getoutput",
        "popen2.popen3",
        "exceptions.IOError",
        "cPickle.loads",
        "urllib2.urlopen",
        "urllib.urlretrieve",
        "thread.start_new_thread",
        "_winreg.DeleteKey",
        "__builtin__.reduce",
        "runpy.run_path",
        "importlib.import_module",
        "operator.attrgetter",
        "pickle.loads",
        "shutil.rmtree",
        "webbrowser.open",
        "copyreg.add_extension",
        "functools.reduce",
        "torch.load",
        "torch.jit.load",
        "torch.storage._load_from_bytes",
        "torch.optim._functional.adam",
        "torch.nn.modules.module.warnings",
        "typing.ForwardRef",
        "typing.sys",
        "torch._utils.os.system",
        "torch.utils.cpp_extension.load",
        "torchvision.datasets.utils.download_url",
        "upernet.files.write_whole",
        "numpy.fromfile",
        "numpy._core.multiarray.fromfile",
        "collections.OrderedDict.__init__",
        "pathlib.Path.unlink",
        "pathlib.os",
        "datetime.sys",
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_names_that_no_checkpoint_needs(tmp_path: Path, name: str, protocol: int) -> None:
    module, _, last = name.rpartition(".")
    if name in ("torch._utils.os.system", "collections.OrderedDict.__init__", "pathlib.Path.unlink"):
        module = {"t": "torch._utils", "c": "collections", "p": "pathlib"}[name[0]]
        last = name.removeprefix(module + ".")
    pickled = b"\x80\x04" + named(module, last, protocol) + b"."
    for path in (zip_of(tmp_path / "a.pth", pickled), legacy_of(tmp_path / "b.pth", pickled)):
        assert f"asks for {name}, which no checkpoint needs; it may be hostile and was not opened" == refusal(path)
    (tmp_path / "c.pth").write_bytes(pickled)
    assert name in refusal(tmp_path / "c.pth")


@FORMATS
def test_whole_models_are_told(tmp_path: Path, legacy: bool, foreign: types.ModuleType) -> None:
    exec("import torch\nclass Net(torch.nn.Sequential):\n    pass", foreign.__dict__)
    # Only the older format names a model's own class as one; in the other its first layer tells.
    first = f"{foreign.Net.__module__}.Net" if legacy else "torch.nn.modules.activation.ReLU"
    for model, name in (
        (torch.nn.Conv2d(1, 1, 1), "torch.nn.modules.conv.Conv2d"),
        (foreign.Net(torch.nn.ReLU()), first),
        (UPerNet, "upernet.model.upernet.UPerNet"),
    ):
        text = refusal(write(tmp_path / "a.pth", {"model": model}, legacy))
        assert text == f"holds a whole model ({name}), not its weights; save model.state_dict() and give that"


def test_instances_in_the_oldest_manner(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    pickled = b"(X" + struct.pack("<I", len(f"touch {marker}")) + f"touch {marker}".encode() + b"ios\nsystem\n."
    assert "instruction 0x69 at byte" in refusal(zip_of(tmp_path / "a.pth", pickled))
    assert not marker.exists()


def test_attributes_are_only_names_and_only_of_foreign_classes(tmp_path: Path) -> None:
    def attribute(owner: bytes, name: str) -> Path:
        body = b"\x80\x04" + named("builtins", "getattr") + owner + b"\x8c" + bytes([len(name)]) + name.encode()
        return zip_of(tmp_path / "a.pth", body + b"\x86R.")

    assert read_checkpoint(attribute(named("mmengine", "Buffer"), "mean")).name == "mmengine.Buffer.mean"
    for owner in (named("torch._utils", "_rebuild_tensor_v2"), named("collections", "OrderedDict"), b"}", b"K\x01"):
        assert "getattr" in refusal(attribute(owner, "__globals__"))
    assert "asks for pathlib.Path.unlink" in refusal(attribute(named("pathlib", "Path"), "unlink"))


@pytest.mark.parametrize(
    "name",
    [("torch._utils", "_rebuild_tensor_v2"), ("collections", "OrderedDict"), ("torch", "FloatStorage"), ("a", "B")],
)
def test_a_file_changes_nothing_that_outlives_it(tmp_path: Path, name: tuple[str, str]) -> None:
    honest = write(tmp_path / "a.pth", {"w": torch.ones(2)})
    state = b"N}\x8c\x04name\x8c\x02oss\x86"
    hostile = zip_of(tmp_path / "b.pth", b"\x80\x04" + named(*name) + state + b"b.")
    assert "sets the state" in refusal(hostile)
    same(read_checkpoint(honest), {"w": torch.ones(2)})


def test_nothing_but_names_is_called(tmp_path: Path) -> None:
    for target in (b"}", b"K\x01", b"X\x02\x00\x00\x00os", b"]"):
        assert "calls" in refusal(zip_of(tmp_path / "a.pth", b"\x80\x04" + target + b")R."))
    assert "a call of torch.FloatStorage" in refusal(
        zip_of(tmp_path / "a.pth", b"\x80\x04" + named("torch", "FloatStorage") + b")R.")
    )


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x82\x01.",
        b"\x83\x01\x00.",
        b"\x84\x01\x00\x00\x00.",
        b"\x97.",
        b"P1\n.",
        b"K\x01Q.",
        b"(X\x06\x00\x00\x00modulestQ.",
        b"\x8b\xff\xff\xff\x7f.",
        b"\x8e" + b"\xff" * 8 + b".",
        b"X\xff\xff\xff\xff.",
        b"B\xff\xff\xff\xff.",
        b"T\xff\xff\xff\xff.",
        b"\x95" + b"\xff" * 8,
        b"\x8a\xff.",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.",
        b"\x96\x00\x00\x00\x00\x00\x01\x00\x00.",
        b"h\x05.",
        b"t.",
        b"0.",
        b".",
        b"",
        b"(",
        b"}]K\x01s.",
        b"}(K\x01u.",
        b"NK\x01a.",
        b"I1\n.",
        b"L" + b"9" * 5000 + b"\n.",
        b"(l.",
        b"(d.",
        b"(ca\nB\no.",
        b"\x8a",
        b"}(K\x01K\x01.",
    ],
)
def test_malformed_pickles(tmp_path: Path, pickled: bytes) -> None:
    refusal(zip_of(tmp_path / "a.pth", b"\x80\x04" + pickled))
    refusal(legacy_of(tmp_path / "b.pth", b"\x80\x04" + pickled))


def test_a_far_memo_index_takes_no_memory(tmp_path: Path) -> None:
    assert read_checkpoint(zip_of(tmp_path / "a.pth", b"\x80\x02K\x07r\xfe\xff\xff\xff.")) == 7


def test_objects_that_double_at_every_level(tmp_path: Path) -> None:
    # Each level is a pair of the one below: 2^40 leaves, were they visited one by one, as printing them would.
    got = read_checkpoint(zip_of(tmp_path / "a.pth", b"\x80\x02]" + b"2\x86" * 10 + b"."))
    for _ in range(10):
        assert got[0] is got[1]
        got = got[0]
    assert got == []
    assert "values" in refusal(zip_of(tmp_path / "a.pth", b"\x80\x02]" + b"2\x86" * 40 + b"."))
    assert "deeper" in refusal(zip_of(tmp_path / "b.pth", b"\x80\x02]" + b"2\x86" * 200 + b"."))
    assert "deeper" in refusal(zip_of(tmp_path / "c.pth", b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b"."))
    assert "parts" in refusal(zip_of(tmp_path / "d.pth", b"\x80\x02}K\x01" + b"2\x86" * 60 + b"K\x01s."))


def pushed(value: Any) -> bytes:
    """The instructions that push a value."""
    return pickle.dumps(value, 2)[2:-1].removesuffix(b"q\x00")


CONTAINERS = {
    "dict": lambda keys: b"}(" + b"K\x01".join(keys) + b"K\x01u.",
    "item by item": lambda keys: b"}" + b"K\x01s".join(keys) + b"K\x01s.",
    "ordered": lambda keys: named("collections", "OrderedDict") + b"]((" + b"K\x01t(".join(keys) + b"K\x01te\x85R.",
    "copy": lambda keys: named("collections", "OrderedDict") + b"}(" + b"K\x01".join(keys) + b"K\x01u\x85R.",
    "set": lambda keys: b"\x8f(" + b"".join(keys) + b"\x90.",
    "frozenset": lambda keys: b"(" + b"".join(keys) + b"\x91.",
    "called set": lambda keys: named("builtins", "set") + b"](" + b"".join(keys) + b"e\x85R.",
    "called frozenset": lambda keys: named("builtins", "frozenset") + b"](" + b"".join(keys) + b"e\x85R.",
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_keys_that_may_all_collide_are_paid_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, container: str
) -> None:
    """Each is compared with all before it: were they free, a file of megabytes would take hours."""
    monkeypatch.setattr(pickles, "PICKLE_STEPS", 15_000)
    write_keys, count = CONTAINERS[container], 1000
    keys: dict[str, Callable[[int], Any]] = {
        "ints that hash to 0": lambda i: (i + 1) * (2**61 - 1),
        "ints whose low bits agree": lambda i: i << 40,
        "negative": lambda i: -3 - i,
        "floats": lambda i: i + 0.5,
        "tuples": lambda i: (i, -i),
    }
    for name, key in keys.items():
        path = zip_of(tmp_path / "a.pth", b"\x80\x04" + write_keys([pushed(key(i)) for i in range(count)]))
        assert "steps" in refusal(path), name
    for honest in (int, str, lambda i: i + 1):
        path = zip_of(tmp_path / "a.pth", b"\x80\x04" + write_keys([pushed(honest(i)) for i in range(count)]))
        assert len(read_checkpoint(path)) == count


def test_memo_indices_that_may_all_collide_are_paid_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "PICKLE_STEPS", 15_000)
    body = b"".join(b"r" + struct.pack("<I", (i + 1) << 20) for i in range(1000))
    assert "steps" in refusal(zip_of(tmp_path / "a.pth", b"\x80\x02N" + body + b"."))
    body = b"".join(b"r" + struct.pack("<I", i + 1) for i in range(1000))
    assert read_checkpoint(zip_of(tmp_path / "a.pth", b"\x80\x02N" + body + b".")) is None


def test_a_long_key_is_paid_for_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "PICKLE_STEPS", 15_000)
    key = b"}(" + b"K\x01" * 900 + b"tq\x00"
    assert "steps" in refusal(zip_of(tmp_path / "a.pth", b"\x80\x02" + key + b"K\x01s" + b"h\x00K\x01s" * 20 + b"."))


def test_names_longer_than_any(tmp_path: Path) -> None:
    # Each is one name of two million letters, made anew as often as it is asked for.
    text = b"X" + struct.pack("<I", 2 * 10**6) + b"a" * 2 * 10**6
    modules = text + b"q\x00" + b"h\x00h\x00\x930" * 9 + b"."
    methods = named("builtins", "getattr") + b"q\x00" + named("a", "B") + b"q\x01" + text + b"q\x02"
    methods += b"h\x00h\x01h\x02\x86R0" * 9 + b"."
    for pickled in (modules, methods):
        assert "steps" in refusal(zip_of(tmp_path / "a.pth", b"\x80\x04" + pickled))


def tensor_pickle(size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, numel: int = 4) -> bytes:
    """`{"x": a float32 tensor in storage 0}`."""
    numbers = [pickle.dumps(v, 2)[2:-1].replace(b"q\x00", b"") for v in (offset, size, stride, numel)]
    storage = b"(\x8c\x07storage" + named("torch", "FloatStorage") + b"\x8c\x010\x8c\x03cpu" + numbers[3] + b"tQ"
    args = b"(" + storage + numbers[0] + numbers[1] + numbers[2] + b"\x89}t"
    return b"\x80\x04}\x8c\x01x" + named("torch._utils", "_rebuild_tensor_v2") + args + b"Rs."


def test_a_tensor_within_its_data(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.pth", tensor_pickle((2, 1), (1, 9), 1), {"0": struct.pack("<4f", 0, 1, 2, 3)})
    assert read_checkpoint(path)["x"].tolist() == [[1], [2]]


@pytest.mark.parametrize(
    ("size", "stride", "offset", "numel"),
    [
        ((10**13,), (1,), 0, 4),
        ((10**13,), (0,), 0, 4),
        ((10**13,), (1,), 0, 10**13),
        ((5,), (0,), 0, 4),
        ((5,), (1,), 0, 4),
        ((4,), (1,), 1, 4),
        ((1,), (1,), 2**61, 4),
        ((2,), (2**61,), 0, 4),
        ((2,), (2**70,), 0, 4),
        ((-2,), (1,), 0, 4),
        ((2,), (-1,), 2, 4),
        ((2,), (1,), -1, 4),
        ((2, 2), (1,), 0, 4),
        ((0, 2**61), (1, 1), 0, 4),
        ((0, 2**40), (1, 1), 0, 4),
        ((2**40, 0), (1, 1), 0, 4),
        ((2**16, 0, 1, 1), (1, 1, 1, 1), 0, 4),
        ((2**40,) * 8, (0,) * 8, 0, 4),
        ((1,) * 200, (1,) * 200, 0, 4),
        ((2,), (1,), 0, 3),
    ],
)
def test_absurd_sizes_are_refused_before_memory_is_taken(
    tmp_path: Path, size: tuple[int, ...], stride: tuple[int, ...], offset: int, numel: int
) -> None:
    pickled = tensor_pickle(size, stride, offset, numel)
    refusal(zip_of(tmp_path / "a.pth", pickled, {"0": bytes(16)}))
    tail = pickle.dumps(["0"], 2) + struct.pack("<q", numel) + bytes(16)
    refusal(legacy_of(tmp_path / "b.pth", pickled, tail))


def test_the_refusal_names_the_tensor(tmp_path: Path) -> None:
    text = refusal(zip_of(tmp_path / "a.pth", tensor_pickle((10**12,), (1,)), {"0": bytes(16)}))
    assert text.startswith("tensor 'x' claims 1000000000000 values, the file holds 4 for it")


def test_sides_that_no_upernet_has_are_refused(tmp_path: Path) -> None:
    """A classifier of so many classes would take memory for their names that its weights do not take."""
    text = refusal(write(tmp_path / "a.pth", {"state_dict": {"conv_seg.weight": torch.zeros(2**16, 1, 1, 1)}}))
    assert text == "tensor 'state_dict.conv_seg.weight' claims a side of 65536, no UPerNet has one above 32768"
    text = refusal(zip_of(tmp_path / "b.pth", tensor_pickle((0, 2**40), (1, 1)), {"0": bytes(16)}))
    assert text.startswith("tensor 'x' claims a side of 1099511627776, ")
    assert "side" in refusal(write(tmp_path / "c.pth", [np.empty((0, 2**40))]))
    flat = torch.zeros(2**16)  # as optimisers keep
    assert torch.equal(read_checkpoint(write(tmp_path / "d.pth", flat)), flat)


def test_more_tensors_than_any_file_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "TENSORS", 3)
    one = {name: torch.zeros(1) for name in "abcd"}
    assert (
        refusal(write(tmp_path / "a.pth", one)) == "holds more than 3 tensors and arrays, up to 'd'; it may be hostile"
    )
    save_file(one, tmp_path / "a.safetensors")
    assert "holds 4 tensors, more than 3" in refusal(tmp_path / "a.safetensors")
    del one["d"]
    assert len(read_checkpoint(write(tmp_path / "a.pth", one))) == 3


def test_a_list_of_entries_longer_than_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python would take about ten times its bytes to hold it."""
    path = write(tmp_path / "a.pth", {"w": torch.zeros(2**20)})
    monkeypatch.setattr(archive, "LISTING_BYTES", 2**20)
    assert len(read_checkpoint(path)["w"]) == 2**20
    monkeypatch.setattr(archive, "LISTING_BYTES", 200)
    assert "its list of entries claims" in refusal(path)


def test_one_storage_under_many_tensors_is_bounded(tmp_path: Path) -> None:
    base = torch.zeros(1000)
    read_checkpoint(write(tmp_path / "a.pth", [base.clone(), *[base[:] for _ in range(5)]]))
    assert "claim" in refusal(write(tmp_path / "b.pth", [base[:] for _ in range(200)]))


@pytest.mark.parametrize("count", [-1, 5, 10**13, 2**62])
def test_element_counts_of_the_old_format(tmp_path: Path, count: int) -> None:
    tail = pickle.dumps(["0"], 2) + struct.pack("<q", count) + bytes(16)
    assert "claims" in refusal(legacy_of(tmp_path / "a.pth", tensor_pickle((4,), (1,)), tail))


def test_storages_of_the_old_format_that_do_not_fit(tmp_path: Path) -> None:
    pickled = tensor_pickle((4,), (1,))
    data = struct.pack("<q", 4) + bytes(16)
    assert "missing" in refusal(legacy_of(tmp_path / "a.pth", pickled))
    assert "twice" in refusal(legacy_of(tmp_path / "a.pth", pickled, pickle.dumps(["0", "0"], 2) + data + data))
    assert "twice" in refusal(legacy_of(tmp_path / "a.pth", pickled, pickle.dumps(["1"], 2) + data))
    assert read_checkpoint(legacy_of(tmp_path / "a.pth", pickled, pickle.dumps(["0"], 2) + data))["x"].shape == (4,)


def test_arrays_that_claim_more_than_they_hold(tmp_path: Path) -> None:
    pickled = pickle.dumps(np.zeros(77, np.int8), 2).replace(b"K\x4d\x85", b"J\x00\x00\x00\x7f\x85")
    assert "claims 2130706432 values, the file holds 77" in refusal(zip_of(tmp_path / "a.pth", pickled))


def test_zip_bombs(tmp_path: Path) -> None:
    bomb = zip_of(tmp_path / "a.pth", tensor_pickle((4,), (1,)), {"0": bytes(10**6)}, compression=zipfile.ZIP_DEFLATED)
    assert "zip bomb" in refusal(bomb)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(tmp_path / "b.pth", "w") as archive:
            for _ in range(2):
                archive.writestr("x/data.pkl", pickle.dumps([], 2))
    assert "2 times" in refusal(tmp_path / "b.pth")
    # Both entries of the directory point to the first one's bytes.
    path = zip_of(tmp_path / "c.pth", tensor_pickle((4,), (1,)), {"0": bytes(16), "1": bytes(16)})
    with zipfile.ZipFile(path) as archive:
        first, second = (archive.getinfo(f"x/data/{k}").header_offset for k in "01")
    content = bytearray(path.read_bytes())
    at = content.rindex(struct.pack("<I", second) + b"x/data/1")
    content[at : at + 4] = struct.pack("<I", first)
    path.write_bytes(content)
    assert "overlap" in refusal(path)


def test_other_zip_archives(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "data.pkl" in refusal(tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "b.pth", "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps([], 2))
        archive.writestr("x/byteorder", "big")
    assert "byte order" in refusal(tmp_path / "b.pth")
    path = zip_of(tmp_path / "c.pth", pickle.dumps([], 2))
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 8] |= 1
    path.write_bytes(content)
    assert "encrypted" in refusal(path)
    assert "missing" in refusal(zip_of(tmp_path / "d.pth", tensor_pickle((4,), (1,))))


def test_names_of_entries_lead_nowhere(tmp_path: Path) -> None:
    for root in ("", "/", "../x/", "/x/", "C:/x/"):
        with zipfile.ZipFile(tmp_path / "a.pth", "w") as made:
            made.writestr(f"{root}data.pkl", tensor_pickle((4,), (1,)))
            made.writestr(f"{root}data/0", bytes(16))
        assert "data.pkl" in refusal(tmp_path / "a.pth")
    pickled = tensor_pickle((4,), (1,)).replace(b"\x8c\x010", b"\x8c\x0b/etc/passwd")
    assert "'/etc/passwd' of tensor 'x' are missing" in refusal(zip_of(tmp_path / "b.pth", pickled, {"0": bytes(16)}))


def test_the_oldest_format_is_refused(tmp_path: Path) -> None:
    """Before PyTorch 0.1.10 checkpoints were tar archives."""
    with tarfile.open(tmp_path / "a.pth", "w") as made:
        made.addfile(tarfile.TarInfo("../../sys_info"), BytesIO())
    assert "no checkpoint: starts with" in refusal(tmp_path / "a.pth")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.pth")
    with pytest.raises(UserError, match="is a device or pipe"):
        read_checkpoint(tmp_path / "a.pth")


# Hostile safetensors files.

F32 = b'{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'


def safetensors_of(path: Path, header: bytes, data: bytes = bytes(4), length: int | None = None) -> Path:
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
    return path


def claims(shape: str, dtype: str = "F32", end: int = 4) -> bytes:
    return f'{{"x":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{end}]}}}}'.encode()


@pytest.mark.parametrize(
    ("header", "length", "words"),
    [
        (claims("[1]"), 2**63, "header claims 9223372036854775808 bytes"),
        (claims("[1]"), 2**25, "header claims 33554432 bytes"),
        (claims("[1]"), 4000, "no readable safetensors file"),
        (claims("[0,1099511627776]", end=0), None, "tensor 'x' claims a side of 1099511627776"),
        (claims("[65536,0]", end=0), None, "tensor 'x' claims a side of 65536"),
        (claims("[9223372036854775807,9223372036854775807]"), None, "damaged"),
        (claims("[16384,16384,16384,16384,16384]"), None, "no readable safetensors file"),
        (claims("[-1]"), None, "damaged: -1"),
        (claims("[1e300]"), None, "damaged: 1e+300"),
        (claims("[NaN]"), None, "damaged: nan"),
        (claims("[true]"), None, "damaged: True"),
        (claims("4"), None, "damaged: 4"),
        (claims("[" + "1," * 99 + "1]"), None, "100 dimensions"),
        (claims("[" + "9" * 5000 + "]"), None, "no readable safetensors file"),
        (claims("[8]", "F4"), None, "has the type 'F4'"),
        (claims("[1]").replace(b'"F32"', b"[]"), None, "no readable safetensors file"),
        (b'{"x":' + F32 + b',"x":' + F32 + b"}", None, "names 'x' twice"),
        (b'{"x":' + F32 + b',"y":' + F32 + b"}", None, "no readable safetensors file"),
        (b'{"x":' + F32.replace(b"[0,4]", b"[4,0]") + b"}", None, "no readable safetensors file"),
        (b'{"x":' + F32.replace(b"[0,4]", b"[0,4000]") + b"}", None, "no readable safetensors file"),
        (b'{"x":' + b"[" * 10**5 + b"]" * 10**5 + b"}", None, "no readable safetensors file"),
        (b'{"x":{}}', None, "no readable safetensors file"),
    ],
)
def test_hostile_safetensors(tmp_path: Path, header: bytes, length: int | None, words: str) -> None:
    path = safetensors_of(tmp_path / "a.safetensors", header, length=length)
    assert words in refusal(path)
    with pytest.raises(WorkError):
        read_safetensors(path)


def test_an_honest_header_in_the_same_manner(tmp_path: Path) -> None:
    path = safetensors_of(tmp_path / "a.safetensors", b'{"__metadata__":{"format":"pt"},"x":' + F32 + b"}")
    assert read_safetensors(path)["x"].tolist() == [0]


# Weights in several files.


def index_of(folder: Path, *names: Any) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {f"tensor {i}": name for i, name in enumerate(names)}}))
    return path


def test_an_index_names_files_beside_it(tmp_path: Path) -> None:
    files = [tmp_path / "pytorch_model-00001-of-00002.bin", tmp_path / "model-00002-of-00002.fp16.safetensors"]
    for file in files:
        file.touch()
    assert read_index(index_of(tmp_path, files[0].name, files[1].name, files[0].name)) == files


@pytest.mark.parametrize(
    "name",
    [
        "..",
        ".",
        "",
        "/etc/passwd",
        "../a.bin",
        "sub/a.bin",
        "..\\a.bin",
        "C:a.bin",
        "a\nb.bin",
        "a\0.bin",
        ".a",
        7,
        ["a"],
    ],
)
def test_an_index_that_names_anything_else_is_refused(tmp_path: Path, name: Any) -> None:
    folder = tmp_path / "m"
    (folder / "sub").mkdir(parents=True)
    for file in (tmp_path / "a.bin", folder / "sub" / "a.bin", folder / "b.bin", folder / ".a"):
        file.touch()
    with pytest.raises(WorkError) as caught:
        read_index(path := index_of(folder, "b.bin", name))
    assert str(caught.value) == f"{path}: names no weight files beside it but {str(name)!r}; valid: 'model-1-of-2.bin'"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"weight_map": {"x": "a.bin"}}', "names the weight file 'a.bin', which is not beside it"),
        ('{"weight_map": {"x": "folder"}}', "names the weight file 'folder', which is not beside it"),
        ('{"weight_map": {}}', "names no weight files beside it"),
        ('{"weight_map": ["a.bin"]}', "names no weight files beside it"),
        ("[]", "holds a list; expected a mapping"),
        ('{"weight_map": {"x": "a", "x": "b"}}', "names 'x' twice"),
        ("{", "no readable JSON"),
        ("[" * 10**5, "no readable JSON"),
        (" " * 2000, "is longer than 1000 bytes"),
    ],
)
def test_what_is_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str) -> None:
    if words.startswith("is longer"):
        monkeypatch.setattr(archive, "LISTING_BYTES", 1000)
    (tmp_path / "folder").mkdir()
    (path := tmp_path / "pytorch_model.bin.index.json").write_text(text)
    with pytest.raises(WorkError) as caught:
        read_index(path)
    assert words in str(caught.value) and str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


# Damaged files.


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"hello world", "no checkpoint"),
        (b"\n<!DOCTYPE html><html>not found</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (bytes(range(7, 255)) * 9, "no checkpoint"),
        (b"PK\x03\x04 and nothing else", "damaged"),
        (pickle.dumps({"a": 1}, 2), "not a file of torch.save"[4:]),
        (pickle.dumps(list(range(3)), 4), "torch.save"),
        (b"\x80", "truncated"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{not json at all", "safetensors"),
    ],
)
@pytest.mark.parametrize("name", ["a.pth", "b.safetensors"])
def test_what_is_no_checkpoint(tmp_path: Path, content: bytes, words: str, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    text = refusal(tmp_path / name)
    assert words in text or "safetensors" in text


def test_what_is_no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.pth", tmp_path / "a\nb"):
        with pytest.raises(UserError, match=r"folder|No such file") as caught:
            read_checkpoint(path)
        assert not isinstance(caught.value, WorkError)


@pytest.mark.parametrize("part", [0.001, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 0.97, 0.999])
@FORMATS
def test_truncated_files(tmp_path: Path, legacy: bool, part: float) -> None:
    path = write(tmp_path / "a.pth", various(), legacy)
    content = path.read_bytes()
    path.write_bytes(content[: max(1, int(part * len(content)))])
    refusal(path)


def test_flipped_bits_of_the_zip_format_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pth", {"w": torch.arange(50.0), "b": torch.ones(3)})
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        pickled, first, second = (archive.read(f"a/{n}") for n in ("data.pkl", "data/0", "data/1"))
    at = content.index(pickled)
    places = [*range(at, at + len(pickled), 7)]
    for data in (first, second):
        at = content.index(data)
        places += [at, at + 1, at + len(data) - 1]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        refusal(path)


@FORMATS
def test_any_damage_is_one_line_or_harmless(tmp_path_factory: pytest.TempPathFactory, legacy: bool) -> None:
    path = tmp_path_factory.mktemp("flips") / "a.pth"
    content = various() | {"time": datetime.datetime(2020, 1, 2), "scalar": np.float32(1)}
    whole = write(path, content, legacy, pickle_protocol=2).read_bytes()
    # The head is where a flip can do most.
    places = st.integers(0, len(whole) - 1) | st.integers(0, 3000)

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(places, st.integers(1, 255)), min_size=1, max_size=4))
    def check(flips: list[tuple[int, int]]) -> None:
        damaged = bytearray(whole)
        for place, mask in flips:
            damaged[place] ^= mask
        path.write_bytes(damaged)
        try:
            read_checkpoint(path)
        except UserError as error:
            assert len(str(error).splitlines()) == 1 and str(error).startswith(str(path))

    check()


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60) | st.lists(st.sampled_from(INSTRUCTIONS), max_size=60).map(b"".join))
def test_any_pickle_is_one_line_or_harmless(tmp_path_factory: pytest.TempPathFactory, body: bytes) -> None:
    path = zip_of(tmp_path_factory.mktemp("fuzz") / "a.pth", b"\x80\x04" + body)
    try:
        read_checkpoint(path)
    except UserError as error:
        assert len(str(error).splitlines()) == 1


def test_no_warnings(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    buffer = BytesIO()
    torch.save(various(), buffer)
    (tmp_path / "a.pth").write_bytes(buffer.getvalue())
    recwarn.clear()
    read_checkpoint(tmp_path / "a.pth")
    assert not recwarn.list
