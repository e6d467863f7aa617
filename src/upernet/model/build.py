"""Networks built from a configuration, with fresh weights, without memory, or with weights that were read."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.module import register_module_module_registration_hook

from upernet.config import ModelConfig
from upernet.contract import Task
from upernet.errors import WorkError
from upernet.model.upernet import UPerNet

if TYPE_CHECKING:
    from torch import Tensor

MODULES = 20_000
"""Most modules of a network; the largest backbones have some 2,000."""
DERIVED_BYTES = 2**28
"""Most bytes of what a network computes and does not store, such as a Swin's indices and masks of windows."""


def build_model(config: ModelConfig, tasks: Mapping[str, Task]) -> UPerNet:
    """A network with fresh weights, its tasks introduced to one another.

    Raises:
        UserError: If there is no such network.
        WorkError: If it would have more modules than any.
    """
    for task in tasks.values():
        task.bind(tasks)
    with _few_modules():
        return UPerNet(config, tasks)


@contextmanager
def _few_modules() -> Iterator[None]:
    """Stop at the first module too many: a few bytes can ask for millions, which take memory without any weights."""
    thread, count = threading.get_ident(), 0

    def one_more(*_: Any) -> None:
        nonlocal count
        count += threading.get_ident() == thread  # the hook hears of every module of the process
        if count > MODULES:
            raise WorkError(f"asks for a network of more than {MODULES} modules; it may be hostile")

    hook = register_module_module_registration_hook(one_more)
    try:
        yield
    finally:
        hook.remove()


def plan_model(config: ModelConfig, tasks: Mapping[str, Task], where: str) -> UPerNet:
    """A network without memory, to compare what a file holds with.

    Raises:
        UserError: If there is no such network.
        WorkError: If it would have more modules than any, or derive larger tables: a file pays for the tensors it
            holds, but not for what a network computes from their shapes.
    """
    with torch.device("meta"):
        model = build_model(config, tasks)
    stored = model.state_dict()
    derived = {name: table.nbytes for name, table in model.named_buffers() if name not in stored}
    if sum(derived.values()) > DERIVED_BYTES:
        largest = max(derived, key=derived.__getitem__)
        raise WorkError(
            f"{where}: implies tables of {sum(derived.values())} bytes, the largest {largest!r}; "
            f"no UPerNet has more than {DERIVED_BYTES}"
        )
    return model


def fill(model: UPerNet, state: Mapping[str, Tensor], where: str, *, partial: bool = False) -> None:
    """Give a network its weights; every tensor on either side must have its place.

    Args:
        model: The network.
        state: Tensors in its names. Counts of batches may be missing: old files have none.
        where: What they were read from, for the error line.
        partial: Leave out heads that only one side has, or that differ in shape; everything else must match.

    Raises:
        WorkError: If the tensors are not the network's.
    """
    own = model.state_dict()
    state = _with_counts(own, state)
    if partial:
        fits = {k for k in state if k in own and own[k].shape == state[k].shape}
        heads = {k.split(".")[1] for k in (own.keys() | state.keys()) - fits if k.startswith("heads.")}
        state = {k: v for k, v in state.items() if not (k.startswith("heads.") and k.split(".")[1] in heads)}
        state |= {k: v for k, v in own.items() if k.startswith("heads.") and k.split(".")[1] in heads}
    check_fits(own, state, where)
    model.load_state_dict(state)


def _with_counts(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in own.items() if k.endswith(".num_batches_tracked")} | dict(state)


def check_fits(own: Mapping[str, Tensor], state: Mapping[str, Tensor], where: str) -> None:
    """Compare tensors with those of a network, by name and shape.

    Raises:
        WorkError: If they differ.
    """
    state = _with_counts(own, state)
    wrong = sorted(own.keys() ^ state.keys()) or [k for k in own if own[k].shape != state[k].shape]
    if wrong:
        raise WorkError(f"{where}: {len(wrong)} tensors do not fit the network, first {wrong[0]!r}")


def plain_state(model: UPerNet) -> dict[str, Tensor]:
    """Its tensors by name on the CPU, ready to be written."""
    return {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}


def as_run(network: UPerNet) -> UPerNet:
    """The same network in evaluation mode, channels innermost in memory, as those of `network_input` are.

    In another layout every convolution would copy what it reads, the largest map of all among it.
    """
    return network.eval().to(memory_format=torch.channels_last)
