"""Counting the parameters and multiply-adds of a network, from its shapes alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from upernet.model import UPerNet
from upernet.resize import Size


def count_parameters(model: UPerNet) -> dict[str, int]:
    """Numbers of parameters, in total and by part. `heads` are those of predicted tasks, `auxiliary` all others."""
    heads = {name: sum(p.numel() for p in head.parameters()) for name, head in model.heads.items()}
    auxiliary = sum(count for name, count in heads.items() if model.tasks[name].auxiliary)
    return {
        "total": sum(p.numel() for p in model.parameters()),
        "backbone": sum(p.numel() for p in model.backbone.parameters()),
        "decoder": sum(p.numel() for p in model.decoder.parameters()),
        "heads": sum(heads.values()) - auxiliary,
        "auxiliary": auxiliary,
    }


def count_multiply_adds(module: nn.Module, size: Size) -> dict[str, int]:
    """Numbers of multiply-adds for one image in evaluation mode, in total and by part. Nothing is computed.

    Convolutions, matrix products and attention count, at half of what PyTorch's counter finds. Norms, activations, sums
    and interpolation do not. Published totals are those of convolutions (237.9 G for R-50 at 512×512, without the
    auxiliary head). Our PPM averages by two small matrix products, other software in loops that no counter sees, so
    those products are left out too.

    Args:
        module: The network, which takes images (B, 3, h, w).
        size: Height and width of its input, in pixels.

    Returns:
        `total`, and for a `UPerNet` also `backbone`, `decoder` and `heads`.
    """
    shapes = {name: value.to("meta") for name, value in (*module.named_parameters(), *module.named_buffers())}
    image = torch.empty(1, 3, *size, device="meta")
    with torch.inference_mode():
        counts = counted_multiply_adds(module, lambda: functional_call(module, shapes, (image,)))
    parts = {"total": counts[""]}
    if isinstance(module, UPerNet):
        parts["backbone"] = counts["backbone"]
        parts["decoder"] = counts.get("decoder", 0)
        parts["heads"] = parts["total"] - parts["backbone"] - parts["decoder"]
    return parts


def counted_multiply_adds(module: nn.Module, run: Callable[[], object]) -> dict[str, int]:
    """Numbers of multiply-adds of the module and of every module in it that computes, by their names.

    See `count_multiply_adds`. The module's own name is the empty string.

    Args:
        module: The network.
        run: Calls it.
    """
    counter = FlopCounterMode(display=False)
    with counter:
        run()
    root = type(module).__name__
    counts = {
        name.removeprefix(root).removeprefix("."): sum(operations.values())
        for name, operations in counter.get_flop_counts().items()
        if name != "Global"
    }
    counts[""] = counter.get_total_flops()
    for ppm in [name for name in counts if f".{name}".endswith(".decoder.ppm")]:
        inside = [name for name in counts if name.startswith(f"{ppm}.")]
        called = [name for name in inside if not any(name.startswith(f"{outer}.") for outer in inside)]
        averages = counts[ppm] - sum(counts[name] for name in called)
        for name in counts:
            if name == "" or f"{ppm}.".startswith(f"{name}."):
                counts[name] -= averages
    return {name: count // 2 for name, count in counts.items()}
