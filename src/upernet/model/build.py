"""Networks built from a configuration: with fresh weights, or on the meta device, without memory."""

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

MAX_MODULES = 20_000
"""Most modules of a network; the largest backbones have some 2,000."""
MAX_DERIVED_BYTES = 2**28
"""Most bytes of what a network computes and does not store, such as a Swin's indices and masks of windows."""


def build_model(config: ModelConfig, tasks: Mapping[str, Task]) -> UPerNet:
    """A network with fresh weights, its tasks introduced to one another.

    Raises:
        UserError: If there is no such network.
        WorkError: If it would have more modules than any.
    """
    for task in tasks.values():
        task.bind(tasks)
    with _limited_modules():
        return UPerNet(config, tasks)


@contextmanager
def _limited_modules() -> Iterator[None]:
    """Stop at the first module too many: a few bytes can ask for millions, which take memory without any weights."""
    thread, count = threading.get_ident(), 0

    def count_module(*_: Any) -> None:
        nonlocal count
        count += threading.get_ident() == thread  # the hook hears of every module of the process
        if count > MAX_MODULES:
            raise WorkError(f"asks for a network of more than {MAX_MODULES} modules; it may be hostile")

    hook = register_module_module_registration_hook(count_module)
    try:
        yield
    finally:
        hook.remove()


def build_on_meta(config: ModelConfig, tasks: Mapping[str, Task], where: str) -> UPerNet:
    """A network on the meta device, which takes no memory, to compare the tensors of a file with.

    Raises:
        UserError: If there is no such network.
        WorkError: If it would have more modules than any, or derive larger tables: a file pays for the tensors it
            holds, but not for what a network computes from their shapes.
    """
    with torch.device("meta"):
        model = build_model(config, tasks)
    stored = model.state_dict()
    derived = {name: table.nbytes for name, table in model.named_buffers() if name not in stored}
    if sum(derived.values()) > MAX_DERIVED_BYTES:
        largest = max(derived, key=derived.__getitem__)
        raise WorkError(
            f"{where}: implies tables of {sum(derived.values())} bytes, the largest {largest!r}; "
            f"no UPerNet has more than {MAX_DERIVED_BYTES}"
        )
    return model


def cpu_state_dict(model: UPerNet) -> dict[str, Tensor]:
    """A network's tensors by name, on the CPU and contiguous, ready to be written."""
    return {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}


def for_inference(network: UPerNet) -> UPerNet:
    """The same network in evaluation mode and channels-last memory format, that of `network_input`.

    In another layout every convolution would copy what it reads, the largest map of all among it.
    """
    return network.eval().to(memory_format=torch.channels_last)
