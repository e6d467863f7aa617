"""Measurements as plain values for a report: figures of each implementation, and the machine."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from upernet.compare.costs import Costs
from upernet.compare.implementation import Implementation


def describe_costs(
    implementation: Implementation, costs: Mapping[str, Costs], batch: int, device: torch.device
) -> dict[str, Any]:
    """The part of the report about one implementation. Seconds become milliseconds, bytes become GiB.

    Args:
        implementation: The implementation.
        costs: Costs of all implementations by name. Ratios are relative to those of `upernet`.
        batch: Number of images in each run.
        device: Where they ran. CPU time is reported for a CPU only.
    """
    cost, reference = costs[implementation.name], costs["upernet"]
    wall = sorted(cost.seconds)
    low, high = (wall[round(share * (len(wall) - 1))] for share in (0.05, 0.95))
    described = {
        "name": implementation.name,
        "version": implementation.version,
        "fps": batch * len(wall) / sum(cost.seconds),
        "latency_ms": {"median": statistics.median(wall) * 1e3, "5 %": low * 1e3, "95 %": high * 1e3},
        "time_ratio": _median_ratio(cost.seconds, reference.seconds),
        "memory_gib": None if cost.memory is None else cost.memory / 2**30,
        "parameters": sum(p.numel() for p in implementation.network.parameters()),
        "multiply_adds": implementation.multiply_adds,
        "differs": list(implementation.differences),
        "disagreement": implementation.disagreement,
    }
    if device.type == "cpu":
        described |= {
            "cpu_ms": statistics.median(cost.cpu_seconds) * 1e3,
            "cpu_time_ratio": _median_ratio(cost.cpu_seconds, reference.cpu_seconds),
        }
    return described


def _median_ratio(seconds: Sequence[float], reference: Sequence[float]) -> float:
    """Median of the ratios of the times of each image, which were measured one right after the other."""
    return statistics.median(a / b for a, b in zip(seconds, reference, strict=True))


def describe_machine(device: torch.device) -> dict[str, Any]:
    """The parts of the machine that decide the speed: processor, PyTorch and, if it computes, the GPU."""
    machine = {"cpu": _processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    if device.type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(device)
        # This decides the speed of "float32" convolutions.
        machine["tf32"] = torch.backends.cudnn.allow_tf32
    return machine


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
