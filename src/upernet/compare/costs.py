"""Measuring the time and memory that implementations need in inference and in training."""

from __future__ import annotations

import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from upernet.compare.implementation import Implementation
from upernet.config import OptimConfig
from upernet.contract import Task
from upernet.engine.optim import build_optimizer
from upernet.labels import ClassSets
from upernet.model import UPerNet
from upernet.resize import Size
from upernet.tasks import Semantic

DISCARDED = 5
"""Number of runs at the beginning that are not counted (SPEC D3)."""

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Costs:
    """Time and memory of the runs of one implementation, without the discarded runs.

    Attributes:
        seconds: Wall time of each run.
        cpu_seconds: CPU time of each run, of all threads of the process.
        memory: Peak memory that PyTorch held in one run, weights included, in bytes; None if PyTorch does not report
            it.
    """

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    memory: int | None = None


def arithmetic(device: torch.device, precision: str) -> torch.autocast:
    """A context of mixed precision, unless `precision`, a key of `DTYPES`, is float32."""
    return torch.autocast(device.type, DTYPES[precision], enabled=precision != "float32")


def measure(
    implementations: Sequence[Implementation],
    device: torch.device,
    precision: str,
    images: int,
    advance: Callable[[], object] = lambda: None,
) -> dict[str, Costs]:
    """Run all implementations in turns, image by image, so that other work on the machine slows all of them alike.

    Args:
        implementations: The implementations, on the device.
        device: The device. It is waited for before and after each run.
        precision: A key of `DTYPES`. Except with float32, arithmetic is mixed (autocast).
        images: Number of runs of each implementation; the first five are not counted.
        advance: Called after each run.

    Returns:
        The costs by implementation's name.
    """
    costs = {implementation.name: Costs() for implementation in implementations}
    tuning, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    try:
        with torch.inference_mode(), arithmetic(device, precision), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other software warns of sizes in every run
            for image in range(images):
                for implementation in implementations:
                    cost = costs[implementation.name]
                    if image == 1:  # the first also allocates what later runs keep
                        network = implementation.network
                        weights = sum(t.nbytes for t in (*network.parameters(), *network.buffers()))
                        peak = _peak_memory(implementation.run, device)
                        cost.memory = None if peak is None else weights + peak
                    else:
                        wall, cpu = _time(implementation.run, device)
                        if image >= DISCARDED:
                            cost.seconds.append(wall)
                            cost.cpu_seconds.append(cpu)
                    advance()
    finally:
        torch.backends.cudnn.benchmark = tuning
    return costs


def _time(run: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Wall time and CPU time of a run, in seconds."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    begin, begin_cpu = time.perf_counter(), time.process_time()
    run()
    wait()
    return time.perf_counter() - begin, time.process_time() - begin_cpu


def _peak_memory(run: Callable[[], object], device: torch.device) -> int | None:
    """Peak memory of PyTorch's allocator during a run, beyond what it held before, in bytes; None if it is not known.

    On a CPU the profiler reports every allocation. Resident memory would count the whole process, other implementations
    included, and memory that the system library keeps for later.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # its messages would disturb the progress bar
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = [e for e in json.loads(trace.read_text())["traceEvents"] if e["name"] == "[memory]"]
    allocated = peak = 0
    for event in sorted(events, key=lambda e: e["ts"]):
        allocated += event["args"]["Bytes"]
        peak = max(peak, allocated)
    return peak or None


def is_plain_segmentation(tasks: Mapping[str, Task]) -> bool:
    """Whether all tasks are plain segmentation, as in the published rows, the auxiliary head included."""
    return all(isinstance(task, Semantic) for task in tasks.values())


def training_peak(network: UPerNet, optim: OptimConfig, batch: int, crop: Size, precision: str) -> int | None:
    """Peak memory of a training step (SPEC D3), the optimiser's included, in bytes; None on a CPU.

    Args:
        network: The network, on its device. Its tasks are plain segmentation. Two steps on noise change its weights.
        optim: Settings of the optimiser.
        batch: Number of images in the batch.
        crop: Height and width of the crops, in pixels.
        precision: A key of `DTYPES`.
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
