"""What an engine is, and the network that it runs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from upernet.contract import Task
from upernet.errors import WorkError
from upernet.model.upernet import select_tasks

EngineName = Literal["auto", "torch", "openvino", "onnxruntime"]
"""What a user may choose."""

Run = Callable[[np.ndarray], list[np.ndarray]]
"""Images (B, 3, H, W) float32 RGB in [0, 1] of any size → the logits of each output that the graph was opened for."""

GRAPH = "graph.onnx"
"""File of the graph in its folder."""

OPEN = 2
"""Most parts of a graph that are open at once. Each has a copy of the weights in the engine's own layout."""


class Engine(Protocol):
    """Other software that runs the network's graph.

    Attributes:
        name: Name of the engine, and of the extra that installs it.
        packages: Modules that it needs.
        devices: Kinds of devices on which it computes.
    """

    name: EngineName
    packages: tuple[str, ...]
    devices: tuple[str, ...]

    def open(self, folder: Path, outputs: Sequence[int], threads: int, device: torch.device) -> Run:
        """Open a graph.

        Args:
            folder: Holds the graph, in `GRAPH`. The engine may keep files of its own there.
            outputs: Numbers of the graph's outputs that are wanted.
            threads: Number of CPU threads.
            device: The device to compute on.

        Raises:
            Exception: Whatever the library raises if it cannot, because it lacks an operation for instance.
        """
        ...


class EngineNetwork:
    """A network that an engine runs; it is called as `upernet.inference.views.Network` describes.

    The graph is opened for the tasks that are asked for and the number of threads that PyTorch has at that time, so
    that branches which no task needs are not computed. The engine takes every size as it comes: it compiles nothing for
    a new size, and keeps nothing of an old one.

    Attributes:
        engine: The engine.
        tasks: The graph's tasks by name, in its order.
        upsampling_align_corners: Bilinear convention with which its logits are resized to the size of the answer.
        device: Where it computes.
    """

    def __init__(
        self, engine: Engine, folder: Path, tasks: Mapping[str, Task], align_corners: bool, device: torch.device
    ) -> None:
        """Open the graph.

        Args:
            engine: The engine.
            folder: The graph.
            tasks: Its tasks by name, in its order.
            align_corners: See `upsampling_align_corners`.
            device: Where to compute.

        Raises:
            Exception: Whatever the engine raises if it cannot open the graph.
        """
        self.engine, self.tasks, self.device = engine, dict(tasks), device
        self.upsampling_align_corners = align_corners
        self._folder = folder
        self._open: OrderedDict[tuple[tuple[int, ...], int], Run] = OrderedDict()
        self._opened(list(self.tasks))

    def __call__(self, image: Tensor, tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Logits of the tasks asked for.

        Args:
            image: (B, 3, H, W) float32 RGB in [0, 1], sides of at least 32 pixels.
            tasks: Names of tasks; None for all.

        Returns:
            By task, (B, K, h, w) at the stride of its level, or (B, K), float32 on the device of the image.

        Raises:
            UserError: If a task is unknown.
            MemoryError: If the engine ran out of memory.
            WorkError: If the engine failed.
        """
        names = select_tasks(self.tasks, tasks, auxiliary=False)
        if not names:
            return {}
        try:
            answers = self._opened(names)(np.ascontiguousarray(image.detach().cpu().numpy()))
        except Exception as error:
            reason = in_one_line(error)
            if isinstance(error, MemoryError) or "alloc" in reason:  # bad_alloc, "Failed to allocate memory"
                raise MemoryError(reason) from error
            shown = f"engine {self.engine.name} failed on images of shape {tuple(image.shape)} ({reason})"
            raise WorkError(f"{shown}; try --engine torch") from error
        return {name: torch.from_numpy(a).to(image.device) for name, a in zip(names, answers, strict=True)}

    def _opened(self, names: Sequence[str]) -> Run:
        """The graph, opened for these tasks and PyTorch's number of threads."""
        numbers = list(self.tasks)
        key = tuple(numbers.index(name) for name in names), torch.get_num_threads()
        run = self._open.pop(key, None)
        if run is None:
            run = self.engine.open(self._folder, key[0], key[1], self.device)
        self._open[key] = run
        if len(self._open) > OPEN:
            self._open.popitem(last=False)
        return run


def in_one_line(error: Exception) -> str:
    """The beginning of what an error tells, on one line: those of engines can be pages long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:199]}…"
