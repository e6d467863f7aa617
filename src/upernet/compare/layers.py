"""Multiply-adds and time of the network layer by layer."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from upernet.compare.implementation import Trial
from upernet.compare.ours import first_logits, label_maps
from upernet.contract import Task
from upernet.model.counts import counted_multiply_adds

OPENED = ("", "backbone", "backbone.body", "decoder", "heads")
"""The modules of which each part is a layer of its own. So is each module of a list among these parts, or of a sequence
that is not called as one."""
REST, TAIL = "rest of the network", "tail"
RUNS, DISCARDED = 7, 2
"""Number of runs of each form, and of those at the beginning that are not counted."""


@dataclass(frozen=True)
class LayerCosts:
    """What a layer costs.

    Attributes:
        multiply_adds: Number of multiply-adds for the trial's images.
        cpu_seconds: Median CPU time of all threads.
    """

    multiply_adds: int
    cpu_seconds: float


def layer_names(network: nn.Module) -> list[str]:
    """The modules of a network that may be its layers, in their order. One within another that is called is none."""
    opened = set(OPENED)
    names = []
    for name, module in network.named_modules():
        if name in opened or name.rpartition(".")[0] not in opened:
            continue
        if isinstance(module, (nn.ModuleList, nn.ModuleDict, nn.Sequential)):
            opened.add(name)
        if not isinstance(module, (nn.ModuleList, nn.ModuleDict, nn.Identity)):
            names.append(name)
    return names


@torch.inference_mode()
def measure_layers(
    networks: Sequence[nn.Module], tasks: Mapping[str, Task], trial: Trial
) -> list[dict[str, LayerCosts]]:
    """Measure networks in turns, layer by layer, on the CPU.

    Args:
        networks: The network in one form or several, each called as a `UPerNet` is.
        tasks: Their tasks by name.
        trial: The input.

    Returns:
        For each network, the costs by layer. `REST` is what the network does outside of the named layers, such as
        normalising the image. `TAIL` resizes the logits and finds the class of each pixel. Layers that never run are
        left out.
    """
    taken: list[list[dict[str, float]]] = [[] for _ in networks]
    for _ in range(RUNS):
        for network, runs in zip(networks, taken, strict=True):
            runs.append(_times(network, lambda n=network: label_maps(n, tasks, trial)))  # type: ignore[misc]
    told = []
    for network, runs in zip(networks, taken, strict=True):
        counts = counted_multiply_adds(network, lambda n=network: first_logits(n, tasks, trial))  # type: ignore[misc]
        scale = trial.window_count * len(trial.image)
        seconds = {name: statistics.median(run.get(name, 0.0) for run in runs[DISCARDED:]) for name in runs[-1]}
        by_layer = {name: counts.get(name, 0) for name in seconds}
        by_layer[REST] = counts[""] - sum(by_layer.values())
        told.append({name: LayerCosts(by_layer[name] * scale, spent) for name, spent in seconds.items()})
    return told


def _times(network: nn.Module, run: Callable[[], object]) -> dict[str, float]:
    """CPU time of each layer in one run, in seconds."""
    spent: dict[str, float] = defaultdict(float)
    with _timed(network, spent):
        begin = time.process_time()
        run()
        whole = time.process_time() - begin
    inside = spent.pop("")
    rest = inside - sum(spent.values())
    return {**spent, REST: rest, TAIL: whole - inside}


@contextmanager
def _timed(network: nn.Module, spent: dict[str, float]) -> Iterator[None]:
    """Add the CPU time of every call of a layer to `spent` while the block runs. The network has the empty name."""
    begun: list[float] = []

    def begin(module: nn.Module, given: Any) -> None:
        begun.append(time.process_time())

    def end(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: Any, answer: Any) -> None:
            taken = time.process_time() - begun.pop()
            if len(begun) <= 1:  # only the network itself is around it
                spent[name] += taken

        return hook

    handles = []
    for name in ["", *layer_names(network)]:
        module = network.get_submodule(name)
        handles += [module.register_forward_pre_hook(begin), module.register_forward_hook(end(name))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
