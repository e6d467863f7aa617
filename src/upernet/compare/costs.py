"""Measuring the time and memory that implementations need in inference and in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from upernet.compare.contender import Contender
from upernet.compare.implementation import Shown
from upernet.compare.runner import Apart, Runner, in_one_line
from upernet.config import OptimConfig
from upernet.contract import Task
from upernet.device import Precision, arithmetic
from upernet.engine.optim import build_optimizer
from upernet.errors import UserError
from upernet.labels import ClassSets
from upernet.model import UPerNet
from upernet.resize import Size
from upernet.tasks import Semantic

DISCARDED = 5
"""Number of runs at the beginning that are not counted (SPEC D3)."""


@dataclass
class Costs:
    """Time and memory of one implementation. The discarded runs are not among the times.

    Attributes:
        version: Version of the software.
        first_use: Seconds from the network in memory to the first answer, with everything that is written or compiled.
        next_use: The same in another process afterwards, which finds on disk what was kept there; None if nothing was.
        seconds: Wall time of each run.
        cpu_seconds: CPU time of each run, of all threads of the process.
        tensor_memory: Peak memory that PyTorch held in one run, weights included, in bytes; None if PyTorch does not
            report it.
        process_memory: Peak memory of its process, in bytes; None if it had none of its own.
        parameters: Number of parameters; None if they cannot be counted.
        multiply_adds: Number of multiply-adds for one image, all its windows included; None if they cannot be counted.
        logits: Logits of the trial's first window by task.
        ids: Label maps by task.
    """

    version: str = ""
    first_use: float = 0.0
    next_use: float | None = None
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    tensor_memory: int | None = None
    process_memory: int | None = None
    parameters: int | None = None
    multiply_adds: int | None = None
    logits: dict[str, Tensor] = field(default_factory=dict)
    ids: dict[str, Tensor] = field(default_factory=dict)


def measure(
    contenders: Sequence[Contender],
    shown: Shown,
    threads: int,
    images: int,
    advance: Callable[[], object] = lambda: None,
    *,
    apart: bool | None = None,
) -> tuple[dict[str, Costs], dict[str, UserError]]:
    """Run all contenders in turns, image by image, so that other work on the machine slows all of them alike.

    On a CPU each of them lives in a fresh process of its own, all at the same time, so that its peak memory is its own.
    On a GPU they share this process: a process of its own would hold a context of the GPU, and PyTorch's allocator
    tells there what each of them needs.

    Args:
        contenders: The contenders. One that fails is left out from then on.
        shown: The trial. Its device is waited for before and after each run.
        threads: Number of threads with which each of them computes on the CPU.
        images: Number of runs of each; the first five are not counted.
        advance: Called after each run.
        apart: Whether each lives in a process of its own; None for that on a CPU alone.

    Returns:
        The costs by label, and why others failed, in one line.
    """
    costs: dict[str, Costs] = {}
    failed: dict[str, UserError] = {}
    open_now: dict[str, Apart | Runner] = {}
    apart = shown.device == "cpu" if apart is None else apart

    def attempt(work: Callable[..., None], contender: Contender, *more: Any) -> None:
        if contender.label in failed:
            return
        try:
            work(contender, *more)
        except Exception as error:  # a failure of one must not stop the rest
            failed[contender.label] = in_one_line(error)
            costs.pop(contender.label, None)
            if runner := open_now.pop(contender.label, None):
                runner.end()

    def start(contender: Contender) -> None:
        first_use = None
        if contender.keeps_graph:  # making the graph must not count as memory of those that find it
            before = open_one(contender)
            first_use = before.first_use
            before.end()
        runner = open_now[contender.label] = open_one(contender)
        cost = costs[contender.label] = Costs(runner.version, runner.first_use)
        if first_use is not None:
            cost.first_use, cost.next_use = first_use, runner.first_use

    def open_one(contender: Contender) -> Apart | Runner:
        return Apart(contender.opening, shown, threads) if apart else Runner(contender.opening, shown)

    def run(contender: Contender, counts: bool) -> None:
        wall, cpu = open_now[contender.label].run()
        if counts:
            costs[contender.label].seconds.append(wall)
            costs[contender.label].cpu_seconds.append(cpu)

    def finish(contender: Contender) -> None:
        runner, cost = open_now[contender.label], costs[contender.label]
        # This comes first: everything else takes memory that running does not.
        cost.process_memory = runner.process_memory() if apart else None
        cost.tensor_memory = runner.tensor_memory()
        cost.logits, cost.ids = runner.answers()
        parameters, multiply_adds = runner.counts()
        cost.parameters = parameters if contender.parameters is None else contender.parameters
        cost.multiply_adds = multiply_adds if contender.multiply_adds is None else contender.multiply_adds

    try:
        for contender in contenders:
            attempt(start, contender)
        for image in range(images):
            for contender in contenders:
                attempt(run, contender, image >= DISCARDED)
                advance()
        for contender in contenders:
            attempt(finish, contender)
    finally:
        for runner in open_now.values():
            with suppress(OSError):
                runner.end()
    return costs, failed


def is_plain_segmentation(tasks: Mapping[str, Task]) -> bool:
    """Whether all tasks are plain segmentation, as in the published rows, the auxiliary head included."""
    return all(isinstance(task, Semantic) for task in tasks.values())


def training_peak(network: UPerNet, optim: OptimConfig, batch: int, crop: Size, precision: Precision) -> int | None:
    """Peak memory of a training step (SPEC D3), the optimiser's included, in bytes; None on a CPU.

    Args:
        network: The network, on its device. Its tasks are plain segmentation. Two steps on noise change its weights.
        optim: Settings of the optimiser.
        batch: Number of images in the batch.
        crop: Height and width of the crops, in pixels.
        precision: Arithmetic.
    """
    network.train()
    optimizer = build_optimizer(network, optim)
    device = network.mean.device
    image = torch.rand(batch, 3, *crop, device=device).contiguous(memory_format=torch.channels_last)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    # Momentum is allocated by the first step and held by the second.
    for _ in range(2):
        optimizer.zero_grad(set_to_none=True)
        losses = []
        with arithmetic(device, precision):
            for name, logits in network(image).items():
                task = network.tasks[name]
                target = torch.randint(len(task.classes), (batch, *crop), device=device)
                sets, align_corners = ClassSets.of(task.classes.names, task.classes), network.upsampling_align_corners
                losses.append(task.weight * task.resized_loss(logits.float(), target, sets, align_corners))
        torch.stack(losses).sum().backward()
        optimizer.step()
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else None
