"""Classes and functions that a pickle names: none is imported, none is called."""

from __future__ import annotations

import argparse
import collections
import copyreg
import datetime
import os
import pathlib
import pickle
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from archive_files import FORMATS, legacy_of, named, refusal, write, zip_of

from upernet.model import UPerNet
from upernet.store.archives import read_checkpoint


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


class Call:
    """Pickled, it asks for a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


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


def test_attributes_are_only_names_and_only_of_foreign_classes(tmp_path: Path) -> None:
    def attribute(owner: bytes, name: str) -> Path:
        body = b"\x80\x04" + named("builtins", "getattr") + owner + b"\x8c" + bytes([len(name)]) + name.encode()
        return zip_of(tmp_path / "a.pth", body + b"\x86R.")

    assert read_checkpoint(attribute(named("mmengine", "Buffer"), "mean")).name == "mmengine.Buffer.mean"
    for owner in (named("torch._utils", "_rebuild_tensor_v2"), named("collections", "OrderedDict"), b"}", b"K\x01"):
        assert "getattr" in refusal(attribute(owner, "__globals__"))
    assert "asks for pathlib.Path.unlink" in refusal(attribute(named("pathlib", "Path"), "unlink"))


def test_nothing_but_names_is_called(tmp_path: Path) -> None:
    for target in (b"}", b"K\x01", b"X\x02\x00\x00\x00os", b"]"):
        assert "calls" in refusal(zip_of(tmp_path / "a.pth", b"\x80\x04" + target + b")R."))
    assert "a call of torch.FloatStorage" in refusal(
        zip_of(tmp_path / "a.pth", b"\x80\x04" + named("torch", "FloatStorage") + b")R.")
    )
