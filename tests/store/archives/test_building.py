"""Values are those that torch.load gives, and claims that a file does not hold are refused."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from archive_files import FORMATS, legacy_of, refusal, same, tensor_pickle, various, write, zip_of

from upernet.store.archives import Placeholder, read_checkpoint

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


def test_containers_that_hold_themselves(tmp_path: Path) -> None:
    loop: dict[str, Any] = {"list": []}
    loop["list"].append(loop)
    got = read_checkpoint(write(tmp_path / "a.pth", loop))
    assert got["list"][0] is got


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
    assert text.startswith("tensor 'x' claims 1000000000000 values, but the file holds 4 for it")


def test_one_storage_under_many_tensors_is_bounded(tmp_path: Path) -> None:
    base = torch.zeros(1000)
    read_checkpoint(write(tmp_path / "a.pth", [base.clone(), *[base[:] for _ in range(5)]]))
    assert "claim" in refusal(write(tmp_path / "b.pth", [base[:] for _ in range(200)]))


def test_arrays_that_claim_more_than_they_hold(tmp_path: Path) -> None:
    pickled = pickle.dumps(np.zeros(77, np.int8), 2).replace(b"K\x4d\x85", b"J\x00\x00\x00\x7f\x85")
    assert "claims 2130706432 values, but the file holds 77" in refusal(zip_of(tmp_path / "a.pth", pickled))
