"""Memory that the convolutions of a network use one after the other.

The system hands out large pieces of memory page by page, which would take a tenth of the time of the whole network.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

MOST_BYTES = 2**28
"""Most bytes that a workspace keeps. Convolutions of larger maps take theirs from the system on every call."""
ALIGNED = 64
"""Pieces begin at multiples of this number of bytes, as those of PyTorch do."""


class Workspace:
    """Memory that grows to what the largest convolution needs, and is kept."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)

    def __reduce__(self) -> tuple[type[Workspace], tuple[()]]:
        """Copies begin empty."""
        return Workspace, ()

    def pieces(self, like: Tensor, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        """Tensors with any values. Those of the call before become invalid.

        Args:
            like: Gives their dtype and their device.
            shapes: Their shapes.
        """
        sizes = [math.prod(shape) * like.itemsize for shape in shapes]
        rooms = [-(-size // ALIGNED) * ALIGNED for size in sizes]
        if sum(rooms) > MOST_BYTES or like.device != self._memory.device:
            return [like.new_empty(tuple(shape)) for shape in shapes]
        if sum(rooms) > len(self._memory):
            del self._memory  # it goes before the larger one comes
            with torch.inference_mode(False):  # kept for callers with and without inference mode
                self._memory = torch.empty(sum(rooms), dtype=torch.uint8)
        pieces = self._memory[: sum(rooms)].split(rooms)
        return [p[:n].view(like.dtype).view(tuple(s)) for p, n, s in zip(pieces, sizes, shapes, strict=True)]


class _Used(threading.local):
    workspace: Workspace | None = None


_used = _Used()


@contextmanager
def using(workspace: Workspace | None) -> Iterator[None]:
    """Have the convolutions of this thread work in a workspace; with None, each has memory of its own."""
    before, _used.workspace = _used.workspace, workspace
    try:
        yield
    finally:
        _used.workspace = before


def pieces(like: Tensor, *shapes: Sequence[int]) -> list[Tensor]:
    """`Workspace.pieces` of the workspace in use, for one convolution; of a new one if there is none."""
    return (_used.workspace or Workspace()).pieces(like, shapes)
