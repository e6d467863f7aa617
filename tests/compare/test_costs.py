"""Time and memory: what is measured, in which order, and what happens to contenders that fail."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import processes  # noqa: F401  what the fork server imports
import pytest
import torch
from small_networks import semantic, shown, tiny
from torch import nn

from upernet.compare import costs, runner
from upernet.compare.contender import Contender
from upernet.compare.costs import DISCARDED, is_plain_segmentation, measure, training_peak
from upernet.compare.implementation import Implementation, Trial
from upernet.compare.ours import open_ours, seeded_network
from upernet.config import InferenceConfig, OptimConfig
from upernet.errors import UserError
from upernet.store.native import save_model
from upernet.tasks import Object


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of their own are forked from a server that has imported everything."""
    monkeypatch.setattr(runner, "START", "forkserver")


def contender(name: str, opening: Any) -> Contender:
    return Contender(name, opening, seeded_network(tiny(), semantic()), multiply_adds=1, parameters=1)


def test_contenders_take_turns_and_the_first_five_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "Apart", lambda opening, shown, threads: runner.Runner(opening, shown))
    seen: list[str] = []

    def opening(name: str, trial: Trial) -> Callable[[], Implementation]:
        def run() -> dict[str, torch.Tensor]:
            assert not torch.is_grad_enabled()
            assert not torch.backends.cudnn.benchmark
            seen.append(name)
            return {}

        return lambda: Implementation("1", run, dict)

    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        both = [contender(name, partial(opening, name)) for name in "ab"]
        found, failed = measure(both, shown(), 1, DISCARDED + 3, lambda: seen.append("|"))
        assert torch.backends.cudnn.benchmark
    finally:
        torch.backends.cudnn.benchmark = before
    # Each is used for the first time before turns are taken; the last runs are those whose answers are kept.
    assert "".join(seen) == "ab" + "a|b|" * (DISCARDED + 3) + "ab"
    assert failed == {}
    assert [len(c.seconds) for c in found.values()] == [3, 3]
    assert [len(c.cpu_seconds) for c in found.values()] == [3, 3]


def open_alone(name: str, trial: Trial) -> Callable[[], Implementation]:
    """What tells the process in which it runs and its threads."""
    print("noise")
    told = torch.tensor([[os.getpid(), torch.get_num_threads()]])
    network = nn.Linear(2**18, 40, bias=False) if name == "large" else nn.Linear(1, 1)
    return lambda: Implementation(name, lambda: {"a": told}, lambda: {"a": torch.ones(1, 1)}, network)


def open_wrongly(error: Exception, trial: Trial) -> Callable[[], Implementation]:
    raise error


def open_for_few_runs(trial: Trial) -> Callable[[], Implementation]:
    runs = iter(range(3))

    def run() -> dict[str, torch.Tensor]:
        if next(runs) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return {}

    return lambda: Implementation("1", run, dict)


def test_each_has_a_process_and_memory_of_its_own_and_what_fails_is_left_out(
    forked: None, capfd: pytest.CaptureFixture[str]
) -> None:
    named = {
        "small": partial(open_alone, "small"),
        "refused": partial(open_wrongly, UserError("not here")),
        "broken": partial(open_wrongly, RuntimeError("wrong\nshape")),
        "full": partial(open_wrongly, MemoryError()),
        "killed": open_for_few_runs,
        "large": partial(open_alone, "large"),
    }
    found, failed = measure([contender(*item) for item in named.items()], shown(), 2, DISCARDED + 1)
    assert {name: str(error) for name, error in failed.items()} == {
        "refused": "not here",
        "broken": "RuntimeError: wrong shape",
        "full": "does not fit into the memory; try a smaller --size or --batch",
        "killed": "its process ended with SIGKILL, perhaps for lack of memory",
    }
    assert list(found) == ["small", "large"]
    small, large = found.values()
    pids = {int(cost.ids["a"][0, 0]) for cost in (small, large)}
    assert len(pids | {os.getpid()}) == 3
    assert [int(cost.ids["a"][0, 1]) for cost in (small, large)] == [2, 2]
    assert (small.version, large.version) == ("small", "large")
    assert small.process_memory is not None
    assert large.process_memory is not None
    assert large.process_memory - small.process_memory > 30 * 2**20  # the weights are 40 MiB
    assert multiprocessing.active_children() == []
    assert capfd.readouterr().out == ""


def test_ctrl_c_leaves_no_process_behind(forked: None) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure([contender("small", partial(open_alone, "small"))], shown(), 1, 6, interrupt)
    assert multiprocessing.active_children() == []


def test_our_own_network_in_a_process_of_its_own(forked: None, tmp_path: Path) -> None:
    tasks = semantic()
    network = seeded_network(tiny(), tasks)
    save_model(tmp_path, network, tasks, InferenceConfig())
    ours = Contender("upernet", partial(open_ours, tmp_path, [], "torch", True), network)
    found, failed = measure([ours], shown(), 1, DISCARDED + 1)
    assert failed == {}
    cost = found["upernet torch"]
    assert cost.parameters == sum(p.numel() for p in network.parameters())
    assert cost.tensor_memory is not None
    assert cost.process_memory is not None
    assert cost.process_memory > cost.tensor_memory > 4 * cost.parameters
    assert cost.first_use > 0
    with torch.inference_mode():
        expected = network(shown().trial().image / 255)["semantic"]
    assert torch.allclose(cost.logits["semantic"], expected, atol=1e-4)


def open_with_graph(folder: Path, trial: Trial) -> Callable[[], Implementation]:
    """What keeps a file, 100 MiB in memory while it does so, and tells whether it was there."""

    def prepare() -> Implementation:
        if found := (folder / "graph").exists():
            return Implementation("1", lambda: {"a": torch.tensor([found])}, lambda: {"a": torch.ones(1, 1)})
        torch.ones(100 * 2**18)
        (folder / "graph").touch()
        return Implementation("1", lambda: {"a": torch.tensor([found])}, lambda: {"a": torch.ones(1, 1)})

    return prepare


def test_making_a_graph_is_a_first_use_but_no_memory_of_later_ones(forked: None, tmp_path: Path) -> None:
    network = seeded_network(tiny(), semantic())
    openings = {"openvino": partial(open_with_graph, tmp_path), "torch": partial(open_alone, "small")}
    both = [Contender("upernet", opening, network, engine) for engine, opening in openings.items()]
    found, failed = measure(both, shown(), 1, DISCARDED + 1)
    assert failed == {}
    kept, plain = found["upernet openvino"], found["upernet torch"]
    assert kept.ids["a"].tolist() == [1]
    assert kept.next_use is not None
    assert plain.next_use is None
    assert kept.process_memory is not None
    assert plain.process_memory is not None
    assert kept.process_memory - plain.process_memory < 50 * 2**20


def test_a_training_step_moves_every_weight() -> None:
    network = seeded_network(tiny(), semantic())
    before = {name: value.clone() for name, value in network.named_parameters()}
    assert training_peak(network, OptimConfig(momentum=0.9), 2, (64, 64), "float32") is None  # no GPU's memory
    assert [name for name, value in network.named_parameters() if torch.equal(value, before[name])] == []


def test_only_published_rows_are_plain_segmentation() -> None:
    assert is_plain_segmentation(semantic())
    assert not is_plain_segmentation(semantic() | {"object": Object(labels=["a", "b"])})
