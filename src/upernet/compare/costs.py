"""What implementations cost when they run: time and memory, in inference and in training."""

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
from upernet.inference.upsample import resize
from upernet.labels import ClassSets
from upernet.model import UPerNet
from upernet.resize import Size
from upernet.tasks import Semantic

DISCARDED = 5
"""First images, which are run but not counted (SPEC D3)."""

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Costs:
    """What the runs of one implementation cost, the discarded ones left out.

    Attributes:
        seconds: Wall time of each.
        cpu_seconds: Time of all threads of the process in each.
        memory: Bytes that PyTorch held at most, weights among them; none where it does not tell.
    """

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    memory: int | None = None


def arithmetic(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision while the block runs, if `precision`, a key of `DTYPES`, asks for it."""
    return torch.autocast(device.type, DTYPES[precision], enabled=precision != "float32")


def measure(
    implementations: Sequence[Implementation],
    device: torch.device,
    precision: str,
    images: int,
    advance: Callable[[], object] = lambda: None,
) -> dict[str, Costs]:
    """Run all implementations in turns, image by image, so that the machine's other work meets all of them alike.

    Args:
        implementations: On the device.
        device: Waited for before and after each run.
        precision: A key of `DTYPES`; other than float32, arithmetic is mixed (autocast).
        images: Runs of each; the first five are not counted.
        advance: Called after each run.

    Returns:
        By name.
    """
    costs = {one.name: Costs() for one in implementations}
    tuning, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    try:
        with torch.inference_mode(), arithmetic(device, precision), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other software warns of sizes in every run
            for image in range(images):
                for one in implementations:
                    cost = costs[one.name]
                    if image == 1:  # not the first, which also holds what is made once
                        weights = sum(t.nbytes for t in (*one.network.parameters(), *one.network.buffers()))
                        peak = _peak_memory(one.run, device)
                        cost.memory = None if peak is None else weights + peak
                    else:
                        wall, cpu = _time(one.run, device)
                        if image >= DISCARDED:
                            cost.seconds.append(wall)
                            cost.cpu_seconds.append(cpu)
                    advance()
    finally:
        torch.backends.cudnn.benchmark = tuning
    return costs


def _time(run: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds on the wall and of the processor."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    begin, begin_cpu = time.perf_counter(), time.process_time()
    run()
    wait()
    return time.perf_counter() - begin, time.process_time() - begin_cpu


def _peak_memory(run: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that PyTorch's allocator held at most during a run, beyond what it held before; none if it cannot tell.

    On a CPU the profiler tells of every allocation: resident memory would count the whole process, other
    implementations and what the system library keeps for later.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # its notes would get between ours
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
    """Whether these are the tasks of a published row: segmentation, and its auxiliary head."""
    return all(isinstance(task, Semantic) for task in tasks.values())


def training_peak(network: UPerNet, optim: OptimConfig, batch: int, crop: Size, precision: str) -> int | None:
    """Bytes held at most in a training step (SPEC D3), those of the optimiser among them; none on a CPU.

    Args:
        network: On its device; two steps on noise change it. Its tasks are plain segmentation.
        optim: The optimiser.
        batch: Images of this process.
        crop: Height and width of what the network sees.
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
                full = resize(logits.float(), crop, network.upsampling_align_corners)
                losses.append(task.weight * task.loss(full, target, ClassSets.of(task.classes.names, task.classes)))
        torch.stack(losses).sum().backward()
        optimizer.step()
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else None
