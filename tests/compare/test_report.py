"""Figures of a report, by hand."""

from __future__ import annotations

import platform
from typing import Any

import pytest
import torch
from small_networks import semantic, tiny

from upernet.compare.agreement import Agreement
from upernet.compare.contender import Contender
from upernet.compare.costs import Costs
from upernet.compare.ours import seeded_network
from upernet.compare.report import describe_costs, describe_machine

EXACT = seeded_network(tiny(), semantic())
COSTS = {
    "upernet torch": Costs("1.2", 3.5, None, [0.1, 0.2, 0.4], [0.2, 0.2, 0.2], 2**30, 2**31),
    "upernet openvino": Costs("1.2", 3.5, 0.5, [0.1, 0.1, 0.1], [0.1, 0.1, 0.1]),
    "smp": Costs("9.9", 0.5, None, [0.3, 0.2, 0.8], [0.1, 0.4, 0.2], None, None, 16, 12),
}


def describe(name: str, engine: str = "torch", batch: int = 1, device: str = "cpu") -> Any:
    contender = Contender(name, lambda trial: None, EXACT, engine, differences=("no scene head",))  # type: ignore[arg-type, return-value]
    ours = ["upernet torch", "upernet openvino"]
    return describe_costs(contender, COSTS, ours, batch, 2, torch.device(device), Agreement(0.5, 0.75))


def test_figures_by_hand() -> None:
    """Image by image smp took 3, 1 and 2 times as long; batches of 4 images took 1.3 seconds in all."""
    told = describe("smp", batch=4)
    assert told["fps"] == pytest.approx(12 / 1.3)
    assert told["latency_ms"] == {k: pytest.approx(v) for k, v in (("median", 300), ("5 %", 200), ("95 %", 800))}
    assert told["time_ratio"] == pytest.approx(2)
    assert (told["cpu_ms"], told["cpu_time_ratio"]) == (pytest.approx(200), pytest.approx(1))
    assert (told["memory_gib"], told["parameters"], told["multiply_adds"]) == (None, 16, 12)
    assert (told["name"], told["version"], told["threads"]) == ("smp", "9.9", 2)
    assert (told["first_use_s"], told["equal_classes"]) == (0.5, 0.75)
    assert "relative_times" not in told
    assert (told["differs"], told["disagreement"]) == (["no scene head"], 0.5)


def test_ours_is_once_as_slow_as_ours_and_a_gpu_s_processor_is_not_told_of() -> None:
    told = describe("upernet", device="cuda")
    assert (told["time_ratio"], told["memory_gib"], told["process_gib"]) == (1, 1, 2)
    assert told["relative_times"] == {"smp": {"time": pytest.approx(2)}}
    assert "cpu_ms" not in told
    assert "cpu_time_ratio" not in told


def test_others_are_told_relative_to_each_of_ours() -> None:
    told = describe("upernet", "openvino")
    assert (told["first_use_s"], told["next_use_s"]) == (3.5, 0.5)
    assert told["cpu_time_ratio"] == pytest.approx(0.5)
    assert told["relative_times"] == {"smp": {"time": pytest.approx(3), "cpu": pytest.approx(2)}}


def test_the_machine_is_told_even_where_the_system_says_little(monkeypatch: pytest.MonkeyPatch) -> None:
    told = describe_machine(torch.device("cpu"))
    assert (told["threads"], told["torch"]) == (torch.get_num_threads(), torch.__version__)
    assert told["cpu"]
    assert "gpu" not in told

    def refuse(self: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr("pathlib.Path.read_text", refuse)
    assert describe_machine(torch.device("cpu"))["cpu"] == (platform.processor() or platform.machine())
