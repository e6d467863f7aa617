"""Time and memory: what is measured, and in which order."""

from __future__ import annotations

import torch
from small_networks import semantic, tiny
from torch import nn

from upernet.compare.costs import DISCARDED, _peak_memory, is_plain_segmentation, measure, training_peak
from upernet.compare.implementation import Implementation
from upernet.compare.ours import seeded_network
from upernet.config import OptimConfig
from upernet.tasks import Object

CPU = torch.device("cpu")


def test_implementations_take_turns_and_the_first_five_do_not_count() -> None:
    seen: list[str] = []

    def implementation(name: str) -> Implementation:
        def run() -> None:
            assert not torch.is_grad_enabled()
            assert not torch.backends.cudnn.benchmark
            seen.append(name)

        return Implementation(name, "1", nn.Linear(1, 1), run, 0)

    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        costs = measure(
            [implementation("a"), implementation("b")], CPU, "float32", DISCARDED + 3, lambda: seen.append("|")
        )
        assert torch.backends.cudnn.benchmark
    finally:
        torch.backends.cudnn.benchmark = before
    assert "".join(seen) == "a|b|" * (DISCARDED + 3)
    assert [len(c.seconds) for c in costs.values()] == [3, 3]
    assert [len(c.cpu_seconds) for c in costs.values()] == [3, 3]


def test_precision_is_that_of_the_arithmetic() -> None:
    line, x = nn.Linear(2, 2), torch.ones(1, 2)
    kinds: dict[str, set[torch.dtype]] = {}
    for precision in ("float32", "bf16"):
        seen = kinds.setdefault(precision, set())
        measure([Implementation("a", "1", line, lambda seen=seen: seen.add(line(x).dtype), 0)], CPU, precision, 2)
    assert kinds == {"float32": {torch.float32}, "bf16": {torch.bfloat16}}


def test_peak_memory_is_what_is_held_at_once() -> None:
    mega = 2**18  # float32 values of a MiB

    def run() -> None:
        a = torch.ones(4 * mega)
        b = a + 1
        del a
        _ = b.sum(), torch.ones(2 * mega)

    peak = _peak_memory(run, CPU)
    assert peak is not None
    assert 8 * 2**20 <= peak < 8.1 * 2**20
    costs = measure([Implementation("a", "1", nn.Linear(mega, 3, bias=False), run, 0)], CPU, "float32", 2)
    assert costs["a"].memory is not None
    assert 11 * 2**20 <= costs["a"].memory < 11.1 * 2**20


def test_a_training_step_moves_every_weight() -> None:
    network = seeded_network(tiny(), semantic())
    before = {name: value.clone() for name, value in network.named_parameters()}
    assert training_peak(network, OptimConfig(momentum=0.9), 2, (64, 64), "float32") is None  # no GPU's memory
    assert [name for name, value in network.named_parameters() if torch.equal(value, before[name])] == []


def test_only_published_rows_are_plain_segmentation() -> None:
    assert is_plain_segmentation(semantic())
    assert not is_plain_segmentation(semantic() | {"object": Object(labels=["a", "b"])})
