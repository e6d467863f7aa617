"""A model's answers measured on a source, in the source's own label space, by one process or several."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from upernet.config import InferenceConfig
from upernet.contract import Task, TaskMetric
from upernet.data.faults import Skipped
from upernet.data.mixture import LabelledSource, Supervision
from upernet.data.sample import Sample
from upernet.errors import WorkError
from upernet.inference.answers import Answers, order_tasks
from upernet.inference.views import Network, run_network
from upernet.labels import IGNORE, MetricProtocol

T = TypeVar("T")
S = TypeVar("S")

READERS = 2
"""Number of images that are read ahead, each in a thread; one of Cityscapes takes 14 MB with its labels."""

_SKIPPED = ""
"""Key of the number of images left out among the counts by task, which have names."""


@dataclass(frozen=True)
class Result:
    """One task measured on one source.

    Attributes:
        source: Name of the source.
        task: Name of the task.
        images: Number of images with a label.
        values: Metric name → fraction, headline first.
        per_class: Class → metric name → fraction.
        further: Figures of other protocols: metric name → fraction.
        protocol: How the answers were measured.
        skipped: Number of the source's images left out because of a fault (`SourceConfig.faults`).
    """

    source: str
    task: str
    images: int
    values: dict[str, float]
    per_class: dict[str, dict[str, float]]
    further: dict[str, float] = field(default_factory=dict)
    protocol: MetricProtocol = "mmseg"
    skipped: int = 0


@torch.inference_mode()
def evaluate_source(
    network: Network,
    tasks: Mapping[str, Task],
    source: LabelledSource,
    inference: InferenceConfig,
    *,
    device: torch.device,
    advance: Callable[[], None] = lambda: None,
    save: Callable[[str, str, Supervision, Tensor], None] | None = None,
    skip: Callable[[Skipped], None] = lambda skipped: None,
    rank: int = 0,
    world: int = 1,
) -> list[Result]:
    """Run a network over a source's validation split.

    Args:
        network: The network, in evaluation mode.
        tasks: Its tasks by name.
        source: The data; only targets marked `evaluate` are measured.
        inference: How images are resized for the network; maps are compared at the labels' own size.
        device: The device on which the network computes.
        advance: Called after each image.
        save: Called with the image's id, the task, its supervision and the predicted groups (H, W) for every map that
            the source measures, on images without a label too.
        skip: Called with every image that this process leaves out because of a fault.
        rank: Number of this process, which takes every `world`-th image.
        world: Processes that measure together. If there are several, all must call, and all get the same results.

    Returns:
        One result per measured task.

    Raises:
        WorkError: If an image cannot be read and faults are not to be skipped, every image has a fault, or another
            process has stopped.
    """
    measured = measured_targets(tasks, source)
    metrics = {name: tasks[name].metric(t.sets, t.dense, t.average).to(device) for name, t in measured.items()}
    counts = dict.fromkeys(measured, 0)
    usable, faulty = source.usable(str(source.config.val)) if measured else ([], [])
    items, left_out = usable[rank::world], list(faulty) if rank == 0 else []
    for one in left_out:
        skip(one)
    for item, sample in zip(items, read_ahead(source.read, items), strict=True):
        if isinstance(sample, Skipped):
            left_out.append(sample)
            skip(sample)
            advance()
            continue
        truth = true_groups(tasks, measured, sample, device)
        wanted = {n: t for n, t in measured.items() if n in truth or (save is not None and t.dense)}
        for name, predicted in predict_groups(network, tasks, wanted, sample.image, inference, device).items():
            if save is not None and wanted[name].dense:
                save(item.id, name, wanted[name], predicted[0])
            if name in truth:
                metrics[name].update(predicted, truth[name])
                counts[name] += bool((truth[name] != IGNORE).any())
        advance()
    counts[_SKIPPED] = len(left_out)
    results = []
    with _summed(metrics, counts, world), warnings.catch_warnings():
        # A split without labels, which is run to save its maps, has no figures; torchmetrics would warn of it.
        warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
        skipped = counts[_SKIPPED]
        if measured and skipped == len(usable) + len(faulty):
            example = f", such as {left_out[0].problem}" if left_out else ""
            raise WorkError(f"source {source.name!r}: every image of split {source.config.val!r} has a fault{example}")
        for name, metric in metrics.items():
            per_class, further = metric.per_class(), metric.further()
            # `compute` comes last: after it, torchmetrics undoes the sum over processes.
            protocol = measured[name].sets.protocol
            values = metric.compute()
            results.append(Result(source.name, name, counts[name], values, per_class, further, protocol, skipped))
    return results


def read_ahead(read: Callable[[T], S], items: Sequence[T]) -> Iterator[S]:
    """Images in order. Threads read the next few while the network works, since decoding releases the interpreter.

    Args:
        read: Reads one image; what it raises is raised here.
        items: The images.
    """
    with ThreadPoolExecutor(READERS) as readers:
        waiting: deque[Future[S]] = deque()
        try:
            for item in items:
                waiting.append(readers.submit(read, item))
                if len(waiting) > READERS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def measured_targets(tasks: Mapping[str, Task], source: LabelledSource) -> dict[str, Supervision]:
    """Task → how the source supervises it, for the tasks that are measured on the source."""
    found = {name: source.supervision.get(task.target or name) for name, task in tasks.items() if not task.auxiliary}
    return {name: target for name, target in found.items() if target is not None and target.evaluate}


def true_groups(
    tasks: Mapping[str, Task], measured: Mapping[str, Supervision], sample: Sample, device: torch.device
) -> dict[str, Tensor]:
    """Task → true groups, int64 (1, H, W) or (1,), for the measured tasks of which the sample has an annotation."""
    keys = {name: tasks[name].target or name for name in measured}
    return {
        name: measured[name].sets.to_groups(sample.targets[key][None].to(device))
        for name, key in keys.items()
        if key in sample.targets
    }


def predict_groups(
    network: Network,
    tasks: Mapping[str, Task],
    wanted: Mapping[str, Supervision],
    image: Tensor,
    inference: InferenceConfig,
    device: torch.device,
) -> dict[str, Tensor]:
    """Predict the labels of one image, in its source's label space.

    Args:
        network: The network, in evaluation mode.
        tasks: Its tasks by name, among them those that the tasks to answer need.
        wanted: Task to answer → how the source supervises it.
        image: (3, H, W) RGB, uint8.
        inference: How the image is resized for the network.
        device: The device on which the network computes.

    Returns:
        Task → groups, int64 (1, H, W), or (1,) where the source has one label per image; each after those it needs.
    """
    if not wanted:
        return {}
    ordered = order_tasks(tasks, wanted)
    answers = Answers(run_network(network, image[None], inference, list(ordered), device), ordered)
    sets = {name: wanted[name].sets for name in ordered if name in wanted and wanted[name].dense}
    size = image.shape[-2], image.shape[-1]
    groups = {name: torch.empty((1, *size), dtype=torch.int64, device=device) for name in sets}
    for band in answers.bands(size, ids=(), sets=sets):
        for name, rows in band.groups.items():
            groups[name][:, band.start : band.stop] = rows
    image_ids = answers.image_ids({need for task in ordered.values() for need in task.needs})
    for name in wanted.keys() - sets.keys():
        p = answers.image_probabilities(name)
        groups[name] = tasks[name].predict_groups(p, wanted[name].sets, image_ids)
    return {name: groups[name] for name in ordered if name in groups}


@contextmanager
def _summed(metrics: Mapping[str, TaskMetric], counts: dict[str, int], world: int) -> Iterator[None]:
    """Sum metrics and counts over all processes while the block runs."""
    if world == 1 or not metrics:
        yield
        return
    on_cpu = dist.get_backend() == "gloo"
    try:
        total = torch.tensor(list(counts.values()))
        total = total if on_cpu else total.cuda()
        dist.all_reduce(total)
        counts.update(zip(counts, total.tolist(), strict=True))
        for metric in metrics.values():
            if on_cpu:
                metric.cpu()
            metric.sync()
    except RuntimeError as error:
        raise WorkError("another process of this evaluation has stopped; its own line says why") from error
    yield
