"""Figures of a report, by hand."""

from __future__ import annotations

import platform

import pytest
import torch
from torch import nn

from upernet.compare.costs import Costs
from upernet.compare.implementation import Implementation
from upernet.compare.report import describe_costs, describe_machine


def implementation(name: str) -> Implementation:
    return Implementation(name, "1.2", nn.Linear(3, 4), lambda: None, 12, ("no scene head",), 0.5)


COSTS = {
    "upernet": Costs([0.1, 0.2, 0.4], [0.2, 0.2, 0.2], 2**30),
    "smp": Costs([0.3, 0.2, 0.8], [0.1, 0.4, 0.2], None),
}


def test_figures_by_hand() -> None:
    """Image by image smp took 3, 1 and 2 times as long; batches of 4 images took 1.3 seconds in all."""
    told = describe_costs(implementation("smp"), COSTS, 4, torch.device("cpu"))
    assert told["fps"] == pytest.approx(12 / 1.3)
    assert told["latency_ms"] == {k: pytest.approx(v) for k, v in (("median", 300), ("5 %", 200), ("95 %", 800))}
    assert told["time_ratio"] == pytest.approx(2)
    assert (told["cpu_ms"], told["cpu_time_ratio"]) == (pytest.approx(200), pytest.approx(1))
    assert (told["memory_gib"], told["parameters"], told["multiply_adds"]) == (None, 16, 12)
    assert (told["name"], told["version"]) == ("smp", "1.2")
    assert (told["differs"], told["disagreement"]) == (["no scene head"], 0.5)


def test_ours_is_once_as_slow_as_ours_and_a_gpu_s_processor_is_not_told_of() -> None:
    told = describe_costs(implementation("upernet"), COSTS, 1, torch.device("cuda"))
    assert (told["time_ratio"], told["memory_gib"]) == (1, 1)
    assert "cpu_ms" not in told
    assert "cpu_time_ratio" not in told


def test_the_machine_is_told_even_where_the_system_says_little(monkeypatch: pytest.MonkeyPatch) -> None:
    told = describe_machine(torch.device("cpu"))
    assert (told["threads"], told["torch"]) == (torch.get_num_threads(), torch.__version__)
    assert told["cpu"]
    assert "gpu" not in told

    def refuse(self: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr("pathlib.Path.read_text", refuse)
    assert describe_machine(torch.device("cpu"))["cpu"] == (platform.processor() or platform.machine())
