"""A network that PyTorch runs in a precision of choice, on a GPU by CUDA graphs."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from upernet.device import HALF, Precision, arithmetic
from upernet.fused import FusedUPerNet
from upernet.fused.folding import PLAIN_CONVOLUTIONS
from upernet.fused.taps import EnlargedConv
from upernet.model import UPerNet
from upernet.model.constants import holding
from upernet.model.upernet import select_tasks
from upernet.runtimes.engine import in_one_line
from upernet.screen import print_line

CAPTURING = "cuda"
"""Kind of device whose work is captured."""
REPEATS = 3
"""The call with the same size and tasks, among the last ones, that is captured. Those before it choose the algorithms
of convolutions and fill what is kept for that size."""
SIZES = 8
"""How many sizes are remembered, and how many graphs are kept at most."""
LARGEST = 2**21
"""Most pixels of a batch that is captured. A larger one keeps a GPU busy by itself, and its graph much memory."""
_turn = threading.Lock()
"""Held by the thread that runs a network: graphs have one input, and PyTorch's settings are those of all threads."""


class TorchNetwork(nn.Module):
    """A network in a precision; it is called as `upernet.inference.views.Network` describes.

    On a GPU the operations for a size that repeats are captured in a CUDA graph, which is started as a whole: for small
    images, starting them one by one takes longer than they do. All graphs share their memory. They run one after the
    other, also those of several threads, and answers are copied out before the next one runs. Where capturing fails, a
    line tells of it, and operations are started one by one from then on.

    Attributes:
        network: The network.
        precision: Its arithmetic; see `upernet.device.arithmetic`.
        tasks: Its tasks by name.
        upsampling_align_corners: Bilinear convention with which its logits are resized to the size of the answer.
    """

    def __init__(self, network: UPerNet | FusedUPerNet, precision: Precision, graphs: bool = True) -> None:
        """Wrap a network in evaluation mode.

        Args:
            network: The network. Of a fused one, weights that are read in 16 bits are stored in 16 bits.
            precision: The arithmetic.
            graphs: Whether to capture what repeats on a GPU.
        """
        super().__init__()
        if precision in HALF and isinstance(network, FusedUPerNet):
            _store_halved(network, HALF[precision])
        self.network = network
        self.precision: Precision = precision
        self.tasks = network.tasks
        self.upsampling_align_corners = network.upsampling_align_corners
        self._captures = graphs
        self._seen: OrderedDict[tuple[Any, ...], _Seen] = OrderedDict()

    def forward(self, image: Tensor, tasks: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Logits of the tasks asked for.

        Args:
            image: (B, 3, H, W) float32 RGB in [0, 1], sides of at least 32 pixels.
            tasks: Names of tasks; None for all but the auxiliary ones.

        Returns:
            By task, (B, K, h, w) at the stride of its level, or (B, K), float32. They are the caller's own.

        Raises:
            UserError: If a task is unknown.
        """
        names = select_tasks(self.tasks, tasks, auxiliary=False)
        with _turn, arithmetic(image.device, self.precision):
            captured = self._captured(image, names)
            if captured is not None:
                captured.image.copy_(image)
                captured.graph.replay()
                return {name: logits.to(torch.float32, copy=True) for name, logits in captured.logits.items()}
            return {name: logits.float() for name, logits in self.network(image, names).items()}

    def forget_graphs(self) -> None:
        """Let go of all graphs and of the memory that they hold."""
        self._seen.clear()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TorchNetwork:
        """Move or convert the tensors. Graphs would read the old ones."""
        self.forget_graphs()
        return super()._apply(fn, recurse)

    def _captured(self, image: Tensor, names: list[str]) -> _Captured | None:
        """The graph for an image and tasks like these; None if they are to be computed without one."""
        batch, _, height, width = image.shape
        if not self._captures or image.device.type != CAPTURING or batch * height * width > LARGEST:
            return None
        key = (image.device, tuple(image.shape), *names)
        seen = self._seen.pop(key, None) or _Seen()
        self._seen[key] = seen
        if len(self._seen) > SIZES:
            self._seen.popitem(last=False)
        seen.count += 1
        if seen.captured is None and seen.count >= REPEATS:
            try:
                seen.captured = self._capture(image, names)
            except Exception as error:  # whatever CUDA or an operation raises
                self._captures = False
                self.forget_graphs()
                reason = in_one_line(error)
                print_line(f"upernet: CUDA graphs are not used, which may cost time ({reason})", sys.stderr)
        return seen.captured

    def _capture(self, image: Tensor, names: list[str]) -> _Captured:
        with torch.inference_mode(False):  # written to in both modes
            own = torch.empty_like(image, memory_format=torch.channels_last)
        own.copy_(image)
        # A pool lives as long as a graph that uses it.
        pool = next((seen.captured.graph.pool() for seen in self._seen.values() if seen.captured is not None), None)
        graph = torch.cuda.CUDAGraph()
        capture = torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local")  # others may allocate meanwhile
        with torch.inference_mode(), holding() as constants, capture:
            logits = self.network(own, names)
        return _Captured(graph, own, logits, constants)


@dataclass(frozen=True)
class _Captured:
    """A graph, and the memory outside of it that it reads and writes.

    Attributes:
        graph: The graph.
        image: Where it reads the image.
        logits: Where it writes the logits, by task.
        constants: What else it reads, beside the weights.
    """

    graph: torch.cuda.CUDAGraph
    image: Tensor
    logits: dict[str, Tensor]
    constants: list[Tensor]


@dataclass
class _Seen:
    """How often a size came among the last ones, and its graph."""

    count: int = 0
    captured: _Captured | None = None


def _store_halved(network: nn.Module, dtype: torch.dtype) -> None:
    """Store in 16 bits the weights that mixed precision would convert in every call: the same numbers."""
    for module in network.modules():
        if type(module) in (*PLAIN_CONVOLUTIONS, nn.Linear, EnlargedConv):
            module.to(dtype)
