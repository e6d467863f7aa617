"""The classes that plain values name."""

from __future__ import annotations

from typing import Any

from upernet.plain import class_paths


def test_classes_are_found_at_any_depth() -> None:
    loss = {"class_path": "c.D"}
    block = {"x": {"class_path": "a.B", "init_args": {"losses": [loss, {"class_path": 3}], "more": {"y": dict(loss)}}}}
    assert sorted(class_paths(block, "tasks")) == [
        ("tasks.x", "a.B"),
        ("tasks.x.losses.0", "c.D"),
        ("tasks.x.more.y", "c.D"),
    ]
    assert sorted(class_paths([loss, dict(loss)], "k")) == [("k.0", "c.D"), ("k.1", "c.D")]


def test_a_list_inside_itself_ends() -> None:
    endless: list[Any] = [{"class_path": "a.B"}]
    endless.append(endless)
    assert list(class_paths(endless, "k")) == [("k.0", "a.B")]
