"""Counting the parameters and multiply-adds of a network, from its shapes alone."""

from __future__ import annotations

from typing import Any

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
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        functional_call(module, shapes, (torch.empty(1, 3, *size, device="meta"),))
    root = type(module).__name__
    by_module: dict[str, dict[Any, int]] = {
        name: dict(counts) for name, counts in counter.get_flop_counts().items() if name != "Global"
    }
    pooling = by_module.get(f"{root}.decoder.ppm", {}) if isinstance(module, UPerNet) else {}
    averages = sum(count for op, count in pooling.items() if "convolution" not in str(op))
    parts = {"total": (counter.get_total_flops() - averages) // 2}
    if isinstance(module, UPerNet):
        parts["backbone"] = sum(by_module[f"{root}.backbone"].values()) // 2
        parts["decoder"] = (sum(by_module.get(f"{root}.decoder", {}).values()) - averages) // 2
        parts["heads"] = parts["total"] - parts["backbone"] - parts["decoder"]
    return parts
