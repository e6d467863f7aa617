"""Batch norms folded into the convolutions before them, in any network, without knowing its modules by name."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from upernet.model.same_padding import SameConv2d

PLAIN_CONVOLUTIONS = (nn.Conv2d, SameConv2d)
"""Convolutions that use their weight as it is. Others, such as weight-standardised ones, are left alone."""


def fold_batch_norms(network: nn.Module, *arguments: Any) -> None:
    """Fold every batch norm that alone reads the output of a convolution into that convolution.

    What is called twice, or has weights that something else reads too, is left as it is.

    The network then gives the same answers in evaluation mode, up to rounding. What a batch norm of timm does beside
    normalising, its activation, is kept.

    Args:
        network: The network in evaluation mode; it is changed.
        arguments: What it is called with after images (B, 3, H, W), to find out which module reads what. It is run on
            the meta device, where nothing is computed.
    """
    rest: dict[nn.Module, nn.Module] = {}
    for convolution, norm in _pairs(network, arguments):
        _fold(convolution, norm)
        rest[norm] = _without_norm(norm)
    for module in network.modules():
        for name, child in module._modules.items():  # also under its second name
            if child in rest:
                module._modules[name] = rest[child]


def _pairs(network: nn.Module, arguments: tuple[Any, ...]) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """The convolutions whose output is read by one batch norm alone, and whose weights by themselves alone."""
    readers = _Readers()
    made: list[tuple[nn.Conv2d, Tensor, Tensor]] = []
    read: list[tuple[nn.BatchNorm2d, Tensor]] = []
    hooks = []
    for module in network.modules():
        if type(module) in PLAIN_CONVOLUTIONS:
            hooks.append(module.register_forward_hook(lambda own, _, output: made.append((own, output, own.weight))))
        elif isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            hooks.append(module.register_forward_pre_hook(lambda module, inputs: read.append((module, inputs[0]))))
    shared: dict[int, Tensor] = {}
    shapes = {
        f"{prefix}.{name}".lstrip("."): shared.setdefault(id(value), value.to("meta"))
        for prefix, module in network.named_modules()  # each module once, since its tensors are exchanged and restored
        for name, value in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    }
    try:
        with readers, torch.no_grad():
            image = torch.empty(1, 3, 64, 64, device="meta")
            functional_call(network, shapes, (image, *arguments), tie_weights=False)
    finally:
        for hook in hooks:
            hook.remove()
    # A module that is called twice would be changed for both calls.
    calls = Counter([convolution for convolution, _, _ in made] + [norm for norm, _ in read])
    norms = {id(tensor): norm for norm, tensor in read}
    return [
        (convolution, norms[id(output)])
        for convolution, output, weight in made
        if id(output) in norms
        and readers.count[id(output)] == readers.count[id(weight)] == 1
        and calls[convolution] == calls[norms[id(output)]] == 1
    ]


class _Readers(TorchDispatchMode):
    """Counts the operations that read each tensor.

    Attributes:
        count: `id` of a tensor → number of operations.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[int] = Counter()
        self._alive: list[Tensor] = []  # so that no two tensors have the same id

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, after counting the tensors that it reads."""
        inputs = [x for x in (*args, *(kwargs or {}).values()) if isinstance(x, (Tensor, list, tuple))]
        tensors = [x for each in inputs for x in (each if isinstance(each, (list, tuple)) else (each,))]
        self._alive += [x for x in tensors if isinstance(x, Tensor)]
        self.count.update({id(x) for x in tensors if isinstance(x, Tensor)})
        return func(*args, **(kwargs or {}))


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Give a convolution the weights with which it does the norm's work too; they are computed in float64."""
    assert norm.running_mean is not None and norm.running_var is not None
    factor = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        factor *= norm.weight.detach()
    bias = -norm.running_mean.double()
    if convolution.bias is not None:
        bias += convolution.bias.detach()
    bias *= factor
    if norm.bias is not None:
        bias += norm.bias.detach()
    weight = torch.empty_like(convolution.weight)
    for folded, own, scale in zip(weight, convolution.weight.detach(), factor, strict=True):
        folded.copy_(own.double() * scale)
    convolution.weight = nn.Parameter(weight, requires_grad=False)
    convolution.bias = nn.Parameter(bias.to(weight.dtype), requires_grad=False)


def _without_norm(norm: nn.BatchNorm2d) -> nn.Module:
    """What a batch norm does beside normalising."""
    if isinstance(norm, BatchNormAct2d):
        return nn.Sequential(norm.drop, norm.act)
    return nn.Identity()
