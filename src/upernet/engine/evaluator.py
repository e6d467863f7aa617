"""A model's answers measured on a source, in the source's own label space."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from upernet.config import InferenceConfig
from upernet.data.labels import IGNORE
from upernet.data.mixture import LabelledSource, Supervision
from upernet.data.sample import Sample
from upernet.inference import network_input, order_tasks, resize
from upernet.model import UPerNet
from upernet.tasks.base import Task


@dataclass(frozen=True)
class Result:
    """One task measured on one source.

    Attributes:
        source: Name of the source.
        task: Name of the task.
        images: Images that had a label.
        values: Metric name → fraction, headline first.
        per_class: Class → metric name → fraction.
    """

    source: str
    task: str
    images: int
    values: dict[str, float]
    per_class: dict[str, dict[str, float]]


@torch.inference_mode()
def evaluate_source(
    model: UPerNet,
    tasks: Mapping[str, Task],
    source: LabelledSource,
    inference: InferenceConfig,
    *,
    advance: Callable[[], None] = lambda: None,
) -> list[Result]:
    """Run a model over a source's validation split.

    Args:
        model: In evaluation mode, on its device.
        tasks: Its tasks by name.
        source: The data; only targets marked `evaluate` are measured.
        inference: How images reach the network; maps are compared at the labels' own size.
        advance: Called after each image.

    Returns:
        One result per measured task.
    """
    measured = _measured(tasks, source)
    device = next(model.parameters()).device
    metrics = {name: tasks[name].metric(t.sets, t.dense, t.average).to(device) for name, t in measured.items()}
    counts = dict.fromkeys(measured, 0)
    for item in source.items(str(source.config.val)) if measured else []:
        for name, _, predicted, truth in source_answers(model, tasks, source, source.sample(item), inference):
            metrics[name].update(predicted, truth)
            counts[name] += bool((truth != IGNORE).any())
        advance()
    return [Result(source.name, n, counts[n], m.compute(), m.per_class()) for n, m in metrics.items()]


def source_answers(
    model: UPerNet, tasks: Mapping[str, Task], source: LabelledSource, sample: Sample, inference: InferenceConfig
) -> Iterator[tuple[str, Supervision, Tensor, Tensor]]:
    """What a model says about one sample, in its source's label space.

    Yields:
        Task name, its supervision, and predicted and true groups, (1, H, W) at the sample's own size or (1,), for
        every measured target that the sample has.
    """
    measured = _measured(tasks, source)
    needed = {need for name in measured for need in tasks[name].needs}
    device = next(model.parameters()).device
    logits = model(network_input(sample.image.to(device), inference), needed | measured.keys())
    size, align_corners = (sample.image.shape[-2], sample.image.shape[-1]), model.logits_align_corners
    decoded: dict[str, Tensor] = {}
    for name in order_tasks({n: tasks[n] for n in logits}):
        task, supervision = tasks[name], measured.get(name)
        target = sample.targets.get(task.target or name) if supervision else None
        dense = target is not None and target.ndim == 2
        if dense or name in needed:
            probabilities = task.probabilities(resize(logits[name].float(), size, align_corners))
            if name in needed:
                decoded[name] = task.decode(probabilities, decoded)
        if target is None or supervision is None:
            continue
        if not dense:
            probabilities = task.image_probabilities(task.probabilities(logits[name]))
        truth = supervision.sets.to_groups(target[None].to(device))
        yield name, supervision, task.predict_groups(probabilities, supervision.sets, decoded), truth


def _measured(tasks: Mapping[str, Task], source: LabelledSource) -> dict[str, Supervision]:
    """Supervision of the tasks that the source measures, by task name."""
    found = {n: source.targets.get(t.target or n) for n, t in tasks.items() if not t.auxiliary}
    return {
        name: supervision for name, supervision in found.items() if supervision is not None and supervision.evaluate
    }
