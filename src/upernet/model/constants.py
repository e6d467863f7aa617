"""Small matrices that follow from sizes alone, on the device where they are needed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

import torch
from torch import Tensor

_held: ContextVar[list[Tensor] | None] = ContextVar("held", default=None)


def constant(make: Callable[..., Tensor], *arguments: Hashable, device: torch.device, dtype: torch.dtype) -> Tensor:
    """`make(*arguments)` on a device, which is computed once and then kept for a while.

    A GPU is not waited for: what comes from pageable memory has been read when a non-blocking copy returns. A copy in
    every call would also keep work from being captured in a CUDA graph.

    Args:
        make: A function that gives the same tensor for the same arguments, on the CPU.
        arguments: Its arguments.
        device: Where to put the tensor.
        dtype: Its type.

    Returns:
        The tensor, which must not be written to. It serves callers with and without inference mode.
    """
    tensor = _constant(make, arguments, device, dtype)
    if (held := _held.get()) is not None:
        held.append(tensor)
    return tensor


@contextmanager
def holding() -> Iterator[list[Tensor]]:
    """Collect the constants that are used while the block runs, for what must keep them: a CUDA graph reads them."""
    held: list[Tensor] = []
    token = _held.set(held)
    try:
        yield held
    finally:
        _held.reset(token)


@lru_cache(maxsize=1024)
def _constant(
    make: Callable[..., Tensor], arguments: tuple[Hashable, ...], device: torch.device, dtype: torch.dtype
) -> Tensor:
    with torch.inference_mode(False):
        return make(*arguments).to(device, dtype, non_blocking=True)
