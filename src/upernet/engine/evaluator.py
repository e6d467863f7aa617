"""A model's answers measured on a source, in the source's own label space, by one process or several."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from upernet.config import InferenceConfig
from upernet.contract import Task, TaskMetric
from upernet.data.items import Item
from upernet.data.mixture import LabelledSource, Supervision
from upernet.data.sample import Sample
from upernet.errors import WorkError
from upernet.inference.views import Views, order_tasks
from upernet.labels import IGNORE
from upernet.model import UPerNet

READERS = 2
"""Images that are read ahead, each in a thread; a full-size one of Cityscapes takes 14 MB with its labels."""


@dataclass(frozen=True)
class Result:
    """One task measured on one source.

    Attributes:
        source: Name of the source.
        task: Name of the task.
        images: Images that had a label.
        values: Metric name → fraction, headline first.
        per_class: Class → metric name → fraction.
        further: Figures of other protocols: metric name → fraction.
    """

    source: str
    task: str
    images: int
    values: dict[str, float]
    per_class: dict[str, dict[str, float]]
    further: dict[str, float] = field(default_factory=dict)


@torch.inference_mode()
def evaluate_source(
    model: UPerNet,
    tasks: Mapping[str, Task],
    source: LabelledSource,
    inference: InferenceConfig,
    *,
    advance: Callable[[], None] = lambda: None,
    save: Callable[[str, str, Supervision, Tensor], None] | None = None,
    rank: int = 0,
    world: int = 1,
) -> list[Result]:
    """Run a model over a source's validation split.

    Args:
        model: In evaluation mode, on its device.
        tasks: Its tasks by name.
        source: The data; only targets marked `evaluate` are measured.
        inference: How images reach the network; maps are compared at the labels' own size.
        advance: Called after each image.
        save: Called with the image's id, the task, its supervision and the predicted groups (H, W) for every map that
            the source measures, on images without a label too.
        rank: Number of this process, which takes every `world`-th image.
        world: Processes that measure together. If there are several, all must call, and all get the same results.

    Returns:
        One result per measured task.

    Raises:
        WorkError: If an image cannot be read, or another process has stopped.
    """
    measured = _measured(tasks, source)
    device = next(model.parameters()).device
    metrics = {name: tasks[name].metric(t.sets, t.dense, t.average).to(device) for name, t in measured.items()}
    counts = dict.fromkeys(measured, 0)
    items = source.items(str(source.config.val))[rank::world] if measured else []
    for item, sample in zip(items, _read_ahead(source, items), strict=True):
        for name, supervision, predicted, truth in _answers(
            model, tasks, source, sample, inference, unlabelled=save is not None
        ):
            if save is not None and predicted.ndim == 3:
                save(item.id, name, supervision, predicted[0])
            if truth is not None:
                metrics[name].update(predicted, truth)
                counts[name] += bool((truth != IGNORE).any())
        advance()
    results = []
    with _summed(metrics, counts, world), warnings.catch_warnings():
        # A split without labels, which is run to save its maps, has no figures; torchmetrics would warn of it.
        warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
        for name, metric in metrics.items():
            per_class, further = metric.per_class(), metric.further()
            # Last: torchmetrics takes back the sum over processes once it has computed.
            results.append(Result(source.name, name, counts[name], metric.compute(), per_class, further))
    return results


def _read_ahead(source: LabelledSource, items: Sequence[Item]) -> Iterator[Sample]:
    """Samples in order, the next few read in threads while the network works: decoding needs no interpreter.

    Raises:
        WorkError: If an image cannot be read.
    """
    with ThreadPoolExecutor(READERS) as readers:
        waiting: deque[Future[Sample]] = deque()
        try:
            for item in items:
                waiting.append(readers.submit(source.sample, item))
                if len(waiting) > READERS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()


def source_answers(
    model: UPerNet, tasks: Mapping[str, Task], source: LabelledSource, sample: Sample, inference: InferenceConfig
) -> Iterator[tuple[str, Supervision, Tensor, Tensor]]:
    """What a model says about one sample, in its source's label space.

    Yields:
        Task name, its supervision, and predicted and true groups, (1, H, W) at the sample's own size or (1,), for
        every measured target that the sample has.
    """
    for name, supervision, predicted, truth in _answers(model, tasks, source, sample, inference):
        if truth is not None:
            yield name, supervision, predicted, truth


def _answers(
    model: UPerNet,
    tasks: Mapping[str, Task],
    source: LabelledSource,
    sample: Sample,
    inference: InferenceConfig,
    unlabelled: bool = False,
) -> Iterator[tuple[str, Supervision, Tensor, Tensor | None]]:
    """As `source_answers`; where asked for, maps that the sample has no truth for as well."""
    measured = {
        name: supervision
        for name, supervision in _measured(tasks, source).items()
        if (tasks[name].target or name) in sample.targets or (unlabelled and supervision.dense)
    }
    needed = {need for name in measured for need in tasks[name].needs if need in tasks}
    asked = needed | measured.keys()
    if not measured:
        return
    device = next(model.parameters()).device
    ordered = order_tasks({n: t for n, t in tasks.items() if n in asked})
    views = Views(model, sample.image, inference, ordered, ordered, device=device)
    answers: dict[str, Tensor] = {}
    for name in views.image_level:
        if name in needed:
            answers[name] = tasks[name].decode(views.answer(name), answers)
    maps = {n: torch.empty((1, *views.size), dtype=torch.int64, device=device) for n, t in measured.items() if t.dense}
    for start, stop, tile in views.tiles(needed | maps.keys()):
        decoded = dict(answers)
        for name, probabilities in tile.items():
            if name in needed:
                decoded[name] = tasks[name].decode(probabilities, decoded)
            if name in maps:
                maps[name][:, start:stop] = tasks[name].predict_groups(probabilities, measured[name].sets, decoded)
    for name in ordered:
        if name not in measured:
            continue
        supervision, target = measured[name], sample.targets.get(tasks[name].target or name)
        if supervision.dense:
            predicted = maps[name]
        else:
            predicted = tasks[name].predict_groups(views.image_probabilities(name), supervision.sets, answers)
        yield (
            name,
            supervision,
            predicted,
            target if target is None else supervision.sets.to_groups(target[None].to(device)),
        )


def _measured(tasks: Mapping[str, Task], source: LabelledSource) -> dict[str, Supervision]:
    """Supervision of the tasks that the source measures, by task name."""
    found = {n: source.targets.get(t.target or n) for n, t in tasks.items() if not t.auxiliary}
    return {
        name: supervision for name, supervision in found.items() if supervision is not None and supervision.evaluate
    }


@contextmanager
def _summed(metrics: Mapping[str, TaskMetric], counts: dict[str, int], world: int) -> Iterator[None]:
    """Metrics and counts as those of all processes together, while the block runs."""
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
