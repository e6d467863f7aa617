"""Measurements as plain values for a report: figures of each implementation, and the machine."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from upernet.compare.agreement import Agreement
from upernet.compare.contender import Contender
from upernet.compare.costs import Costs


def describe_costs(
    contender: Contender,
    costs: Mapping[str, Costs],
    ours: Sequence[str],
    batch: int,
    threads: int,
    device: torch.device,
    agreement: Agreement | None,
) -> dict[str, Any]:
    """The part of the report about one contender. Seconds become milliseconds, bytes become GiB.

    Args:
        contender: The contender.
        costs: Costs of all contenders by label.
        ours: The labels of those that are ours. Ratios are relative to the first of them. Each of them also gets the
            times of all others relative to its own, in `relative_times`.
        batch: Number of images in each run.
        threads: Number of threads.
        device: Where they ran. CPU time is reported for a CPU only.
        agreement: How exact its answers are; None if that is unknown.
    """
    cost, reference = costs[contender.label], costs[ours[0]]
    wall = sorted(cost.seconds)
    low, high = (wall[round(share * (len(wall) - 1))] for share in (0.05, 0.95))
    described = {
        "name": contender.name,
        "engine": contender.engine,
        "form": contender.form,
        "threads": threads,
        "version": cost.version,
        "fps": batch * len(wall) / sum(cost.seconds),
        "latency_ms": {"median": statistics.median(wall) * 1e3, "5 %": low * 1e3, "95 %": high * 1e3},
        "time_ratio": _median_ratio(cost.seconds, reference.seconds),
        "first_use_s": cost.first_use,
        "next_use_s": cost.next_use,
        "memory_gib": _gib(cost.tensor_memory),
        "process_gib": _gib(cost.process_memory),
        "parameters": cost.parameters,
        "multiply_adds": cost.multiply_adds,
        "differs": list(contender.differences),
        "disagreement": None if agreement is None else agreement.disagreement,
        "equal_classes": None if agreement is None else agreement.equal_classes,
    }
    if device.type == "cpu":
        described |= {
            "cpu_ms": statistics.median(cost.cpu_seconds) * 1e3,
            "cpu_time_ratio": _median_ratio(cost.cpu_seconds, reference.cpu_seconds),
        }
    if contender.label in ours:
        described["relative_times"] = {
            label: {"time": _median_ratio(other.seconds, cost.seconds)}
            | ({"cpu": _median_ratio(other.cpu_seconds, cost.cpu_seconds)} if device.type == "cpu" else {})
            for label, other in costs.items()
            if label not in ours
        }
    return described


def _gib(size: int | None) -> float | None:
    return None if size is None else size / 2**30


def _median_ratio(seconds: Sequence[float], reference: Sequence[float]) -> float:
    """Median of the ratios of the times of each image, which were measured one right after the other."""
    return statistics.median(a / b for a, b in zip(seconds, reference, strict=True))


def describe_machine(device: torch.device) -> dict[str, Any]:
    """The parts of the machine that decide the speed: processor, PyTorch and, if it computes, the GPU."""
    machine = {"cpu": _processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    if device.type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(device)
    return machine


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
