"""Networks built from a configuration, with random weights or without memory on the meta device."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.module import register_module_module_registration_hook
from torch.overrides import TorchFunctionMode

from upernet.config import ModelConfig
from upernet.contract import Task
from upernet.errors import WorkError
from upernet.model.upernet import UPerNet

if TYPE_CHECKING:
    from torch import Tensor, nn

MAX_MODULES = 20_000
"""Most modules of a network; the largest backbones have some 2,000."""
MAX_DERIVED_BYTES = 2**28
"""Most bytes of the tables that a network computes instead of storing, such as a Swin's window indices and masks."""


def build_model(config: ModelConfig, tasks: Mapping[str, Task]) -> UPerNet:
    """Build a network with random weights, after binding its tasks to one another.

    Raises:
        UserError: If there is no such network.
        WorkError: If it would have more than `MAX_MODULES` modules.
    """
    for task in tasks.values():
        task.bind(tasks)
    with _limited_modules():
        return UPerNet(config, tasks)


@contextmanager
def _limited_modules() -> Iterator[None]:
    """Stop at the first module too many: a short file can ask for millions, which take memory even without weights."""
    thread, count = threading.get_ident(), 0

    def count_module(*_: Any) -> None:
        nonlocal count
        count += threading.get_ident() == thread  # the hook is called for modules of other threads too
        if count > MAX_MODULES:
            raise WorkError(f"asks for a network of more than {MAX_MODULES} modules; it may be hostile")

    hook = register_module_module_registration_hook(count_module)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def without_random_values() -> Iterator[None]:
    """Build networks whose random weights have any values, and take no memory until others are loaded."""
    with _NoRandomValues():
        yield


class _NoRandomValues(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func in (torch.Tensor.normal_, torch.Tensor.uniform_) else func(*args, **(kwargs or {}))


def build_on_meta(config: ModelConfig, tasks: Mapping[str, Task], where: str) -> UPerNet:
    """Build a network on the meta device, where it takes no memory, to compare it with the tensors of a file.

    Args:
        config: The network's configuration.
        tasks: Its tasks by name.
        where: The file that describes it, for the error line.

    Raises:
        UserError: If there is no such network.
        WorkError: If it would have more than `MAX_MODULES` modules, or compute tables of more than `MAX_DERIVED_BYTES`.
            The size of a file limits the tensors it holds, but not what a network computes from their shapes.
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


def hash_weights(network: nn.Module) -> str:
    """Hash of the names, shapes and values of all tensors of a network."""
    content = sha256()
    for name, value in network.state_dict().items():
        content.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        content.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return content.hexdigest()


def for_inference(network: UPerNet) -> UPerNet:
    """Put a network into evaluation mode and channels-last memory format, which is that of `network_input`.

    In another format every convolution would copy its input, even the largest map.
    """
    return network.eval().to(memory_format=torch.channels_last)
