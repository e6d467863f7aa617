"""Whether an exported graph gives the answers of the network, at many sizes, and where it goes astray if not."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from upernet.contract import Task
from upernet.errors import WorkError
from upernet.inference.answers import order_tasks
from upernet.inference.sizes import MIN_SIDE
from upernet.inference.upsample import resize
from upernet.runtimes.engine import in_one_line
from upernet.runtimes.graph import LogitsOf, MapsOf

Shape = tuple[int, int, int, int]
Run = Callable[[Tensor], Sequence[Tensor]]
"""Runs a graph on images, (B, 3, H, W) as its module takes them, and gives its outputs."""

TOLERANCE = 1e-3
"""Largest difference of a logit from the network's, in units of the deviation of all logits of the task."""
CLOSE = 1e-3
"""Largest difference between the probabilities of two classes of which a graph may choose either."""
LARGEST = 320
"""Largest side of an image that is tried, in pixels."""
_LEVELS = ("c2", "c3", "c4", "c5", "ppm", "p4", "p3", "p2", "fused")
"""The levels in the order in which they are computed."""


def check_shapes(count: int) -> list[Shape]:
    """Shapes (B, 3, H, W) to try, the same every time: the smallest, two very long ones, then random ones."""
    draw = random.Random(0)
    shapes: list[Shape] = [(1, 3, MIN_SIDE, MIN_SIDE), (2, 3, MIN_SIDE + 1, 197), (1, 3, 250, MIN_SIDE)]
    while len(shapes) < count:
        # Small sides are as frequent as large ones.
        height, width = (round(MIN_SIDE * (LARGEST / MIN_SIDE) ** draw.random()) for _ in range(2))
        shapes.append((draw.choice((1, 1, 2, 3)), 3, height, width))
    return shapes[:count]


def check_graph(run: Run, wanted: LogitsOf | MapsOf, tasks: Mapping[str, Task], shapes: Sequence[Shape]) -> float:
    """Compare a graph with the network at every shape.

    Args:
        run: Runs the graph.
        wanted: The network in PyTorch, with the same outputs.
        tasks: Its tasks by name.
        shapes: Shapes of the images to try, which are noise.

    Returns:
        The largest difference that was found: of logits in units of their deviation, or the share of the positions at
        which classes differ.

    Raises:
        Mismatch: At the first shape at which they differ.
    """
    draw, largest = torch.Generator().manual_seed(0), 0.0
    for shape in shapes:
        image = torch.rand(shape, generator=draw)
        if wanted.input_type == torch.uint8:
            image = (image * 255).round().to(torch.uint8)
        try:
            answers = list(run(image))
        except Exception as error:
            raise Mismatch(image, wanted.tasks[0], in_one_line(error)) from error
        with torch.inference_mode():
            if isinstance(wanted, MapsOf):
                largest = max(largest, _check_maps(answers, wanted, tasks, image))
            else:
                for name, answer, logits in zip(wanted.tasks, answers, wanted(image), strict=True):
                    difference = relative_difference(answer, logits)
                    if not difference <= TOLERANCE:
                        raise Mismatch(image, name, f"logits differ by {difference:.1g} of their deviation")
                    largest = max(largest, difference)
    return largest


class Mismatch(Exception):
    """A graph that does not give the network's answers.

    Attributes:
        image: The image, (B, 3, H, W).
        task: The first task that differs.
        reason: How it differs.
    """

    def __init__(self, image: Tensor, task: str, reason: str) -> None:
        super().__init__(image, task, reason)
        self.image, self.task, self.reason = image, task, reason

    def told(self, path: object, where: str | None) -> WorkError:
        """The line for the user; `where` names the first part of the network that differs."""
        batch, _, height, width = self.image.shape
        found = f"; first different: {where}" if where else ""
        return WorkError(
            f"{path}: not written, since it would not give the network's answers: at {height}×{width} px, batch "
            f"{batch}, task {self.task!r}: {self.reason}{found}"
        )


def relative_difference(answer: Tensor, logits: Tensor) -> float:
    """Largest difference in units of the values' deviation; infinite if shapes differ or a value is not finite."""
    if answer.shape != logits.shape or not answer.isfinite().all():
        return float("inf")
    values = logits.double()
    # Few values, or equal ones, hardly deviate: their last digits are no error.
    scale = values.std(correction=0) + 1e-2 * values.abs().max()
    return float((answer.double() - values).abs().max() / scale.clamp(min=1e-12))


def _check_maps(answers: Sequence[Tensor], wanted: MapsOf, tasks: Mapping[str, Task], image: Tensor) -> float:
    """Compare class ids, given those that the graph itself has found for the tasks that a task needs.

    Returns:
        The largest share of the positions at which the class of a task differs.

    Raises:
        Mismatch: If a class is chosen that is clearly not the likeliest.
    """
    own = dict(zip(wanted.tasks, answers, strict=True))
    ordered = order_tasks(tasks, wanted.tasks)
    network: Any = wanted.network
    logits = network(image.float() / 255, list(ordered))
    decoded: dict[str, Tensor] = {}
    largest = 0.0
    for name, task in ordered.items():
        values = logits[name].float()
        if values.ndim == 4:
            values = resize(values, (image.shape[-2], image.shape[-1]), network.upsampling_align_corners)
        p = task.probabilities(values)
        expected = task.decode(p, decoded)
        found = own[name].long() if name in own else expected
        if found.shape != expected.shape:
            raise Mismatch(image, name, f"shape {tuple(found.shape)} instead of {tuple(expected.shape)}")
        wrong = found != expected
        # Either of two classes that are as likely as one another may win, but not one that is impossible here.
        known = (found >= 0) & (found < p.shape[1]) & (expected >= 0)
        chosen, best = (p.gather(1, ids.clamp(0, p.shape[1] - 1)[:, None])[:, 0] for ids in (found, expected))
        if (share := (wrong & ~(known & (best - chosen <= CLOSE))).double().mean().item()) > 0:
            raise Mismatch(image, name, f"the class differs at {share:.2%} of the positions")
        decoded[name], largest = found, max(largest, wrong.double().mean().item())
    return largest


class LevelsOf(LogitsOf):
    """The levels of the network's pyramid in the order in which they are computed, then the logits of a task."""

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) float32 RGB in [0, 1] to `outputs`."""
        network: Any = self.network
        pyramid = network.decoder(network.backbone((image - network.mean) / network.std), set(_LEVELS))
        return *(pyramid[level] for level in _LEVELS), *super().forward(image)

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        return [*_LEVELS, *(f"head of {name}" for name in self.tasks)]


def first_difference(levels: LevelsOf, start: Callable[[LevelsOf], Run], image: Tensor) -> str | None:
    """The first level of the pyramid at which a graph differs from the network, or the head of the task.

    Args:
        levels: The network, in the form that was exported.
        start: Makes and opens a graph.
        image: The image at which answers differ.

    Returns:
        Its name; None if no difference shows, or no graph can be made.
    """
    if not isinstance(levels.network, nn.Module) or not hasattr(levels.network, "decoder"):
        return None
    image = image.float() / 255 if image.dtype == torch.uint8 else image
    try:
        answers = start(levels)(image)
    except Exception:
        return None
    with torch.inference_mode():
        for name, answer, value in zip(levels.outputs, answers, levels(image), strict=True):
            if not relative_difference(answer, value) <= TOLERANCE:
                return name
    return None
