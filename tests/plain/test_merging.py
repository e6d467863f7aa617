"""What a later file changes of an earlier one."""

from __future__ import annotations

from typing import Any

import pytest

from upernet.config import ModelConfig, OptimConfig
from upernet.contract import Task
from upernet.data.config import DataConfig
from upernet.plain import merge

OBJECT = {"class_path": "upernet.tasks.Object", "init_args": {"labels": ["a"], "width": 7, "convs": 3}}


@pytest.mark.parametrize(
    ("kind", "old", "new", "merged"),
    [
        (int, 1, 2, 2),
        (OptimConfig, None, {"lr": 1}, {"lr": 1}),
        (OptimConfig, {"lr": 1, "ema": 0.5}, {"lr": 2}, {"lr": 2, "ema": 0.5}),
        (OptimConfig, {"betas": [1, 2]}, {"betas": [3]}, {"betas": [3]}),
        (str | ModelConfig | None, {"width": 1}, {"backbone": "x"}, {"width": 1, "backbone": "x"}),
        (str | ModelConfig | None, {"width": 1}, "mine", "mine"),
        (dict[str, Any], {"a": 1, "b": 2}, {"b": 3}, {"b": 3}),
        (ModelConfig, {"backbone_args": {"a": 1}}, {"backbone_args": {"b": 2}}, {"backbone_args": {"b": 2}}),
        (
            DataConfig,
            {"sources": {"x": {"weight": 1, "val": None}, "y": {}}, "batch": 2},
            {"sources": {"x": {"weight": 5}}},
            {"sources": {"x": {"weight": 5, "val": None}}, "batch": 2},
        ),
    ],
)
def test_a_later_file_changes_what_it_names(kind: Any, old: Any, new: Any, merged: Any) -> None:
    assert merge(kind, old, new, "here") == merged


@pytest.mark.parametrize(
    ("new", "merged"),
    [
        ({}, OBJECT),
        ({"init_args": {"width": 9}}, OBJECT | {"init_args": {"labels": ["a"], "width": 9, "convs": 3}}),
        (OBJECT | {"init_args": {}}, OBJECT),
        (OBJECT | {"init_args": None}, OBJECT),
        (
            {"class_path": "upernet.tasks.Scene", "init_args": {"weight": 2.0}},
            {"class_path": "upernet.tasks.Scene", "init_args": {"labels": ["a"], "width": 7, "weight": 2.0}},
        ),
    ],
)
def test_an_object_of_another_class_keeps_the_arguments_that_it_knows(new: Any, merged: Any) -> None:
    assert merge(dict[str, Task], {"o": OBJECT, "p": OBJECT}, {"o": new}, "tasks") == {"o": merged}
