"""Activation checkpointing of a part of the network: its activations are computed again for the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from upernet.model.weight_gradients import QuickWeightGradients


def recomputed(module: nn.Module, *inputs: Any) -> Any:
    """Run a module whose activations are not kept. Results and gradients are those of `module(*inputs)`.

    Dropout takes the same decisions in both passes, and running statistics move in the first alone.
    """
    again = QuickWeightGradients.again()
    return checkpoint(
        module, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _second_pass(module, again))
    )


@contextmanager
def _second_pass(module: nn.Module, again: AbstractContextManager[object]) -> Iterator[None]:
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        with again:
            yield
    finally:  # the pass is cut short by an exception once the last activation that is needed is there
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
