"""What a hostile pickle may cost is bounded."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from archive_files import named, pushed, refusal, zip_of

from upernet.store.archives import budget, read_checkpoint

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
    monkeypatch.setattr(budget, "PICKLE_STEPS", 15_000)
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
    monkeypatch.setattr(budget, "PICKLE_STEPS", 15_000)
    body = b"".join(b"r" + struct.pack("<I", (i + 1) << 20) for i in range(1000))
    assert "steps" in refusal(zip_of(tmp_path / "a.pth", b"\x80\x02N" + body + b"."))
    body = b"".join(b"r" + struct.pack("<I", i + 1) for i in range(1000))
    assert read_checkpoint(zip_of(tmp_path / "a.pth", b"\x80\x02N" + body + b".")) is None


def test_a_long_key_is_paid_for_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "PICKLE_STEPS", 15_000)
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
