"""The exponential moving average of a network's weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class MovingAverage(AveragedModel):
    """A copy of a network that follows its parameters and floating-point buffers; integer buffers are copied.

    torch's own averaging of buffers would turn integers, such as counts of batches, into wrong integers.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Copy the network.

        Args:
            model: The network to follow.
            decay: Share of the average that stays at each update, in [0, 1].
        """
        super().__init__(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Move towards the network's present state. The first update copies it."""
        is_first = int(self.n_averaged) == 0
        before = [buffer.clone() for buffer in self.module.buffers()]
        super().update_parameters(model)
        for buffer, mean in zip(self.module.buffers(), before, strict=True):
            if buffer.is_floating_point() and not is_first:
                buffer.copy_(mean.lerp(buffer, 1 - self.decay))
