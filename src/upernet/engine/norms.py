"""Batch norm as the authors' code trains it (SPEC A4).

It normalises with statistics over all processes, and with 1 / sqrt(max(variance, eps)) rather than
1 / sqrt(variance + eps). Its running statistics are a decayed cumulative average S / n: with every batch, S becomes
d · S + statistic and n becomes d · n + 1, where n starts at 1 and S at the statistics that are there. After t batches n
is (1 - d^(t + 1)) / (1 - d), so that each batch moves the average by 1 / n towards its own statistic, the variance
being the unbiased one. Nothing but t must therefore be kept, which PyTorch's batch norm counts too: a network trained
by this rule has the tensors of an ordinary one, and is evaluated as one.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

DECAY = 0.999
"""Weight d of a batch in the running statistics, relative to the batch after it."""


class CumulativeBatchNorm(nn.BatchNorm2d):
    """Batch norm by the authors' rule, then the dropping and the activation of timm's layers where they have any.

    If there is but one value per channel, which has no variance, the running statistics are used and stay as they are.
    """

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> CumulativeBatchNorm:
        """A layer with the parameters, statistics and activation of another one, whose batches are counted from 0."""
        layer = cls(norm.num_features, norm.eps, affine=norm.affine)
        layer.weight, layer.bias = norm.weight, norm.bias
        layer.running_mean, layer.running_var = norm.running_mean, norm.running_var
        layer.num_batches_tracked = torch.zeros_like(cast(Tensor, norm.num_batches_tracked))
        for name in ("drop", "act"):
            if hasattr(norm, name):
                setattr(layer, name, getattr(norm, name))
        return layer.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, h, w)."""
        output = self._trained(input) if self.training else self._evaluated(input)
        for name in ("drop", "act"):
            if hasattr(self, name):
                output = getattr(self, name)(output)
        return output

    def _evaluated(self, input: Tensor) -> Tensor:
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)

    def _trained(self, input: Tensor) -> Tensor:
        if input.numel() == input.shape[1] and _processes() == 1:
            return self._evaluated(input)
        mean, variance, count = _statistics(input)
        tracked = cast(Tensor, self.num_batches_tracked)
        with torch.no_grad():
            tracked.add_(1)
            # In double precision: n hardly differs from one batch to the next.
            share = (1 - DECAY) / -torch.expm1((tracked.double() + 1) * math.log(DECAY))
            for running, value in ((self.running_mean, mean), (self.running_var, variance * count / (count - 1))):
                running = cast(Tensor, running)
                running.lerp_(value.to(running.dtype), share.to(running.dtype))
        weight = torch.ones_like(mean) if self.weight is None else self.weight
        bias = torch.zeros_like(mean) if self.bias is None else self.bias
        output: Tensor = _Normalise.apply(input, weight, bias, mean, variance, count, self.eps)
        return output


def use_cumulative_norms(module: nn.Module) -> None:
    """Replace the batch norms below a module by `CumulativeBatchNorm`, if they keep running statistics."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d) and child.track_running_stats:
            setattr(module, name, CumulativeBatchNorm.of(child))
        else:
            use_cumulative_norms(child)


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@torch.no_grad()
def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,), biased variance (C,) and number of values per channel, over the maps (B, C, h, w) of all processes.

    In float32 or wider. The statistics of the processes are joined by their means and squared deviations from these: a
    sum of squares would lose the variance of values that are far from 0.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
    count = torch.full_like(mean[:1], x.numel() // x.shape[1])
    if _processes() == 1:
        return mean, variance, count
    own = torch.cat([count, mean, variance * count])
    gathered = [torch.empty_like(own) for _ in range(_processes())]
    dist.all_gather(gathered, own)
    every = torch.stack(gathered)
    counts, means, deviations = every[:, :1], every[:, 1 : 1 + len(mean)], every[:, 1 + len(mean) :]
    count = counts.sum(0)
    mean = (counts * means).sum(0) / count
    return mean, (deviations + counts * (means - mean).square()).sum(0) / count, count


class _Normalise(torch.autograd.Function):
    """Weight · (x - mean) / sqrt(max(variance, eps)) + bias, whose mean and variance are those of all processes' x."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, count: Tensor, eps: float
    ) -> Tensor:
        scale = variance.clamp(min=eps).rsqrt()
        # A variance below eps has no part in the scale, and so passes no gradient on.
        ctx.save_for_backward(x, weight, mean, scale, (variance > eps).to(scale.dtype), count)
        output = (x.to(mean.dtype) - _column(mean)) * _column(scale * weight) + _column(bias)
        return output.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, varies, count = ctx.saved_tensors
        gradient, centred = gradient.to(mean.dtype), x.to(mean.dtype) - _column(mean)
        sums = torch.stack([gradient.sum(dim=(0, 2, 3)), (gradient * centred).sum(dim=(0, 2, 3))])
        of_bias, of_weight = sums[0].to(weight.dtype), (sums[1] * scale).to(weight.dtype)
        if _processes() > 1:
            sums = sums.clone()
            dist.all_reduce(sums)
        means = sums / count
        along = centred * _column(means[1] * scale.square() * varies)
        of_x = (gradient - _column(means[0]) - along) * _column(scale * weight)
        return of_x.to(x.dtype), of_weight, of_bias, None, None, None, None


def _column(values: Tensor) -> Tensor:
    """(C,) as (C, 1, 1), which stands beside maps."""
    return values[:, None, None]
