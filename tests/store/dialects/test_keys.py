"""Tables of names."""

from __future__ import annotations

import pytest
import torch

from upernet.errors import WorkError
from upernet.store.dialects.keys import KeyTable


def test_key_tables_go_both_ways() -> None:
    table = KeyTable([("a.{i}.x.*", "b.{i}.*"), ("c.{x}", "d.{x}")], dropped=["*.index"])
    there = {"a.3.x.conv.weight": torch.zeros(1), "c.bias": torch.ones(1), "a.index": torch.zeros(1)}
    ours = table.to_ours(there, "file")
    assert set(ours) == {"b.3.conv.weight", "d.bias"}
    assert set(table.to_theirs(ours, "file")) == {"a.3.x.conv.weight", "c.bias"}
    with pytest.raises(WorkError, match=r"file: 1 tensors have no place in this network: c\.x\.y"):
        table.to_ours({"c.x.y": torch.zeros(1)}, "file")
