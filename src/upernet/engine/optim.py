"""Parameter groups and schedules."""

from __future__ import annotations

import math

import torch
from torch import nn

from upernet.config import OptimConfig


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict]:
    """Trainable parameters by peak learning rate and decay.

    Parameters of the timm model get `backbone_lr`; those of the pyramid that a plain ViT is given do not. Unless
    `decay_all` is set, norms and biases (tensors of one dimension) get no weight decay.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        lr = config.backbone_lr if name.startswith("backbone.body.") and config.backbone_lr is not None else config.lr
        decay = config.weight_decay if config.decay_all or parameter.ndim > 1 else 0.0
        groups.setdefault((lr, decay), []).append(parameter)
    return [{"params": p, "lr": lr, "peak": lr, "weight_decay": decay} for (lr, decay), p in groups.items()]


def build_optimizer(model: nn.Module, config: OptimConfig, fused: bool = True) -> torch.optim.Optimizer:
    """The optimiser of a run. Each of its parameter groups keeps its peak learning rate under the key `peak`.

    Args:
        model: The network.
        config: The settings.
        fused: Let AdamW update all weights of a group in one pass over them; the numbers are the same up to rounding.
    """
    groups = parameter_groups(model, config)
    if config.name == "sgd":
        # PyTorch's fused SGD fails where only some weights of a group have momentum, as with heads that are not trained
        # in every step. Without being told, it takes all weights of a group together on a GPU.
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=fused)


def lr_factor(config: OptimConfig, step: int, steps: int) -> float:
    """Learning rate at a step (from 0) as a fraction of the peak.

    Poly is `floor + (1 - floor)(1 - step / steps)^power`, the floor being `min_lr / lr`, as in the version of the
    toolbox that made the published rows. Cosine falls to the same floor. A warm-up multiplies the schedule.
    """
    floor = config.min_lr / config.lr
    done = step / max(1, steps - config.min_lr_at_last_step)
    if config.schedule == "poly":
        factor = floor + (1 - floor) * (1 - done) ** config.power
    elif config.schedule == "cosine":
        factor = floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2
    else:
        factor = 1.0
    if step < config.warmup:
        factor *= 1e-3 + (1 - 1e-3) * step / config.warmup
    return factor
