"""Checkpoints from before PyTorch 1.6, and what is wrong with them."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import pytest
from archive_files import legacy_of, refusal, tensor_pickle

from upernet.store.archives import read_checkpoint


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
