"""The network rewritten for speed: the same answers up to rounding, from about a third of the multiply-adds."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from upernet.fused.folding import fold_batch_norms
from upernet.fused.merging import FusedMergingConv
from upernet.fused.winograd import WinogradConv, convolve, pays
from upernet.fused.workspace import Workspace, using
from upernet.model import UPerNet
from upernet.model.decoder import ConvBNReLU
from upernet.model.heads import DenseHead
from upernet.model.upernet import select_tasks

WORKSPACES = 2
"""Most workspaces that a network keeps. More threads at once have memory of their own for each call."""


def fuse(network: UPerNet, winograd: bool = True, in_place: bool = False) -> FusedUPerNet:
    """Rewrite a network for inference.

    - Batch norms are folded into the convolutions before them.
    - The convolutions that read enlarged maps, those of the fusion and of the pyramid pooling, are computed at the
      maps' own resolution (`upernet.fused.taps`).
    - 3×3 convolutions are computed by Winograd's algorithm where that takes less work (`upernet.fused.winograd`).

    Args:
        network: The network in evaluation mode.
        winograd: Whether to use Winograd's algorithm. Without it, all operations are ordinary ones of PyTorch.
        in_place: Whether to use up the given network, whose modules are changed, to save its memory. If not, it stays
            as it is, and the result shares no weights with it.

    Returns:
        A module that is called like the network. It has no training mode.
    """
    return FusedUPerNet(network if in_place else copy.deepcopy(network), winograd)


class FusedUPerNet(nn.Module):
    """A `UPerNet` as `fuse` rewrites it.

    Attributes:
        config: The configuration of the network that was rewritten.
        tasks: Its tasks by name.
        upsampling_align_corners: Bilinear convention with which its logits are resized to the size of the answer.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: UPerNet, winograd: bool) -> None:
        """Take over the modules of a network; see `fuse`."""
        super().__init__()
        network.eval().requires_grad_(False)
        fold_batch_norms(network, list(network.tasks))
        self.config = network.config
        self.tasks = network.tasks
        self.upsampling_align_corners = network.upsampling_align_corners
        self.backbone = network.backbone
        self.decoder = network.decoder
        # What no task reads has kept its norm, and is never called.
        if isinstance(network.decoder.fusion.bn, nn.Identity):
            self.decoder.add_module("fusion", FusedMergingConv(network.decoder.fusion, winograd))
        last = network.decoder.ppm.out
        # In the other order a ReLU comes after the enlarging.
        if network.config.ppm_order == "conv_upsample" and isinstance(last.bn, nn.Identity):
            self.decoder.ppm.add_module("out", FusedMergingConv(last, winograd))
        self.heads = network.heads
        self.register_buffer("mean", network.mean, persistent=False)
        self.register_buffer("std", network.std, persistent=False)
        if winograd:
            _use_winograd(self)
        self.beginnings = nn.ModuleDict()
        for name, head in self.heads.items():
            if isinstance(head, DenseHead) and len(head.convs) and isinstance(head.convs[0], WinogradConv):
                self.beginnings[name], head.convs = head.convs[0], head.convs[1:]
        self.to(memory_format=torch.channels_last)
        self._workspaces: list[Workspace] = []

    def forward(self, image: Tensor, tasks: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Logits of the tasks asked for, as of `UPerNet.forward` in evaluation mode.

        Args:
            image: (B, 3, H, W) float32 RGB in [0, 1], sides of at least 32 pixels.
            tasks: Names of tasks; None for all but the auxiliary ones.

        Returns:
            By task, (B, K, h, w) at the stride of its level, or (B, K).

        Raises:
            UserError: If a task is unknown.
        """
        names = select_tasks(self.tasks, tasks, auxiliary=False)
        level = {name: self.tasks[name].level for name in names}
        # Threads may call the network at the same time: each takes a workspace away while it needs it.
        workspace = self._workspaces.pop() if self._workspaces else Workspace()
        with using(workspace):
            pyramid = self.decoder(self.backbone((image - self.mean) / self.std), set(level.values()))
            read = {name: pyramid[level[name]] for name in names}
            for shared in dict.fromkeys(level.values()):
                # Heads whose first convolutions read the same level transform it together.
                beginnings = {n: self.beginnings[n] for n in names if level[n] == shared and n in self.beginnings}
                if beginnings:
                    kernels = [cast(WinogradConv, first).kernel() for first in beginnings.values()]
                    maps = convolve(pyramid[shared], kernels)
                    read.update(zip(beginnings, maps, strict=True))
            logits = {name: self.heads[name](read[name]) for name in names}
        if len(self._workspaces) < WORKSPACES:
            self._workspaces.append(workspace)
        return logits


def _use_winograd(network: nn.Module) -> None:
    """Replace every convolution for which Winograd's algorithm `pays`, together with the ReLU that follows it."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is ConvBNReLU and isinstance(child.bn, nn.Identity) and pays(child.conv):
                setattr(module, name, WinogradConv(child.conv, relu=True))
            elif pays(child):
                setattr(module, name, WinogradConv(child))
