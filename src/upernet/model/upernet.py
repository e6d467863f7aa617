"""The network: normalise -> backbone -> decoder -> one head per task.

Shapes: B batch, H W pixels of the image, s stride of a level, C_i channels of backbone level i, D width of the pyramid,
K classes of a task.

    image     (B, 3, H, W)          float32 RGB in [0, 1]
    c2 … c5   (B, C_i, H/s, W/s)    s = 4, 8, 16, 32
    ppm       (B, D, H/32, W/32)    pyramid pooling of c5; the coarsest level of the FPN
    p2 … p4   (B, D, H/s, W/s)      s = 4, 8, 16
    fused     (B, D, H/4, W/4)      p2, p3, p4 and ppm together
    logits    (B, K, H/s, W/s) at the stride of the task's level, or (B, K) for an answer about the image

Sides that no stride divides are rounded, up in most families.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from upernet.config import Checkpointed, ModelConfig
from upernet.contract import LEVELS, Task
from upernet.errors import UserError
from upernet.model.backbone import Backbone
from upernet.model.checkpointing import recomputed
from upernet.model.decoder import Decoder


class UPerNet(nn.Module):
    """Unified Perceptual Parsing Network (Xiao et al. 2018): any number of tasks on one feature pyramid.

    Attributes:
        config: The configuration that the network was built from.
        tasks: The tasks by name, in the order given.
        heads: Their heads, under the same names.
        upsampling_align_corners: Bilinear convention with which its logits are resized to the size of the answer:
            `align_corners` of `torch.nn.functional.interpolate`.
        checkpoint: What keeps no activations in training (`RunConfig.checkpoint`). The trainer sets it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig, tasks: Mapping[str, Task]) -> None:
        """Build with random weights; nothing is downloaded.

        Args:
            config: The network's configuration.
            tasks: The questions to answer, by name.

        Raises:
            UserError: If a task reads an unknown level, its name cannot name a module, or the backbone does not exist.
        """
        super().__init__()
        for name, task in tasks.items():
            if task.level not in LEVELS:
                raise UserError(f"task {name!r}: unknown level {task.level!r}; valid levels: {', '.join(LEVELS)}")
            if not name or "." in name or hasattr(nn.ModuleDict, name):
                raise UserError(f"task name {name!r} cannot name a module; a valid name is 'object'")
        self.config = config
        self.tasks = dict(tasks)
        self.backbone = Backbone(config.backbone, config.backbone_args)
        self.decoder = Decoder(self.backbone.channels, config)
        channels = self.decoder.channels
        self.heads = nn.ModuleDict({name: task.build_head(channels[task.level]) for name, task in tasks.items()})
        self.upsampling_align_corners = config.upsampling_align_corners
        self.checkpoint: Checkpointed = "none"
        # Not saved with the weights: the configuration holds them.
        self.register_buffer("mean", torch.tensor(config.mean).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).reshape(3, 1, 1), persistent=False)

    def forward(self, image: Tensor, tasks: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Logits of the tasks asked for; the decoder computes only what their heads read.

        Args:
            image: (B, 3, H, W) float32 RGB in [0, 1], sides of at least 32 pixels.
            tasks: Names of tasks; None for all in training mode, and all but the auxiliary ones in evaluation mode.

        Returns:
            By task, (B, K, h, w) at the stride of its level, or (B, K).

        Raises:
            UserError: If a task is unknown.
        """
        names = select_tasks(self.tasks, tasks, auxiliary=self.training)
        x, levels = (image - self.mean) / self.std, {self.tasks[name].level for name in names}
        keep = "none" if not self.training else self.checkpoint
        features = self.backbone(x) if keep == "none" else recomputed(self.backbone, x)
        pyramid = recomputed(self.decoder, features, levels) if keep == "all" else self.decoder(features, levels)
        logits = {}
        for name in names:
            task = self.tasks[name]
            x = pyramid[task.level]
            logits[name] = self.heads[name](x.detach() if task.detach else x)
        return logits


def select_tasks(known: Mapping[str, Task], wanted: Iterable[str] | None, auxiliary: bool) -> list[str]:
    """The names of the tasks to compute, each once.

    Args:
        known: The network's tasks by name.
        wanted: Names of tasks; None for all.
        auxiliary: Whether auxiliary tasks are among all.

    Raises:
        UserError: If a task is unknown.
    """
    if wanted is None:
        return [name for name, task in known.items() if auxiliary or not task.auxiliary]
    names = list(dict.fromkeys(wanted))
    for name in names:
        if name not in known:
            raise UserError(f"unknown task {name!r}; valid tasks: {', '.join(known)}")
    return names
