"""PPM on c5, FPN over c2 … c5, and their fusion (Xiao et al. 2018, section 4.1).

The two released implementations differ in pooling and in the order inside a PPM branch; the configuration chooses.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upernet.config import ModelConfig
from upernet.contract import LEVELS
from upernet.model.pooling import pool
from upernet.model.taps import conv_of_resized

Pyramid = dict[str, Tensor]
"""Level name → (B, C, h, w), for the levels asked for: c2 … c5 with the backbone's channels, all others with D."""


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that also trains on one value per channel: one image on a 1×1 map.

    PyTorch refuses such a batch, since a value normalised by itself is always 0. The 1×1 branch of the PPM meets it
    with every batch of one image. The running statistics are used then, and stay as they are; with batches of one
    from the start they are 0 and 1, so that training and evaluation agree.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, h, w)."""
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


class ConvBNReLU(nn.Module):
    """Convolution without bias, batch norm, ReLU; the size of the map stays."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.bn = BatchNorm(out_channels)  # Weight 1 and bias 0 by default.
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, out_channels, h, w), at least 0."""
        return self._rectified(self.conv(x))

    def _rectified(self, x: Tensor) -> Tensor:
        # In place it saves the memory of a map; with gradients, hooks may keep the norm's output.
        return F.relu(self.bn(x), inplace=not torch.is_grad_enabled())


class MergingConv(ConvBNReLU):
    """3×3 `ConvBNReLU` of a map and coarser ones, which are enlarged to its size.

    Attributes:
        taps: Whether training multiplies at each map's own size (`conv_of_resized`), where that is less work: the same
            answer up to rounding, in less time and memory. Off until the trainer turns it on. Evaluation always follows
            the formula.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, align_corners: bool) -> None:
        super().__init__(sum(in_channels), out_channels, 3)
        self.in_channels = tuple(in_channels)
        self.align_corners = align_corners
        self.taps = False

    def forward(self, x: Tensor, coarser: Sequence[Tensor] = ()) -> Tensor:
        """(B, C_0, H, W) and coarser maps (B, C_i, h_i, w_i) to (B, out_channels, H, W)."""
        if self.taps and self.training:
            return self._rectified(conv_of_resized([x, *coarser], self.conv.weight, self.align_corners))
        size = x.shape[-2:]
        return super().forward(torch.cat([x, *(_resize(m, size, self.align_corners) for m in coarser)], dim=1))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, h, w)."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PPM(nn.Module):
    """Pyramid pooling: c5 and its averages over 1×1, 2×2, … bins, merged to D channels."""

    def __init__(self, in_channels: int, config: ModelConfig) -> None:
        super().__init__()
        self.scales = config.pool_scales
        self.pooling = config.pooling
        self.order = config.ppm_order
        self.align_corners = config.align_corners
        self.branches = nn.ModuleList(ConvBNReLU(in_channels, config.width, 1) for _ in self.scales)
        widths = [config.width] * len(self.scales)
        self.out = MergingConv([in_channels, *widths], config.width, config.align_corners)

    def forward(self, c5: Tensor) -> Tensor:
        """(B, C_5, h, w) to (B, D, h, w)."""
        maps = []
        for bins, branch in zip(self.scales, self.branches, strict=True):
            x = pool(c5, bins, self.pooling)
            if self.order == "upsample_conv":
                x = _resize(x, c5.shape[-2:], self.align_corners)
            maps.append(branch(x))
        merged: Tensor = self.out(c5, maps)
        return merged


class Decoder(nn.Module):
    """Turns backbone features into the levels that heads read, and computes only what these need.

    Attributes:
        channels: Channels of each of `LEVELS`.
    """

    def __init__(self, in_channels: Sequence[int], config: ModelConfig) -> None:
        """Build with Kaiming normal weights.

        Args:
            in_channels: C_i of c2 … c5.
            config: The network's configuration.
        """
        super().__init__()
        width = config.width
        self.align_corners = config.align_corners
        self.ppm = PPM(in_channels[3], config)
        # Index 0 is stride 4 in these lists.
        self.lateral = nn.ModuleList(ConvBNReLU(c, width, 1) for c in in_channels[:3])
        self.smooth = nn.ModuleList(ConvBNReLU(width, width, 3) for _ in range(3))
        self.fusion = MergingConv([width] * 4, width, config.align_corners)
        eps = config.level_norm_eps
        self.norms = nn.ModuleList(ChannelNorm(c, eps) if config.level_norm else nn.Identity() for c in in_channels)
        self.channels: dict[str, int] = dict.fromkeys(LEVELS, width) | dict(zip(LEVELS[:4], in_channels, strict=True))

    def forward(self, features: Sequence[Tensor], levels: Collection[str]) -> Pyramid:
        """Compute the levels asked for.

        Args:
            features: c2 … c5 of the backbone, (B, C_i, h_i, w_i).
            levels: Any of `LEVELS`.

        Returns:
            Exactly these levels. c2 … c5 are the features, after `level_norm` where that is on.
        """
        wanted = set(levels)
        needed = wanted | ({"p2", "p3", "p4", "ppm"} if "fused" in wanted else set())
        c = [norm(x) for norm, x in zip(self.norms, features, strict=True)]
        pyramid: Pyramid = dict(zip(LEVELS[:4], c, strict=True))
        if not needed <= pyramid.keys():
            top = pyramid["ppm"] = self.ppm(c[3])
            finest = min((i for i in range(3) if f"p{i + 2}" in needed), default=3)
            for i in range(2, finest - 1, -1):
                top = self.lateral[i](c[i]) + _resize(top, c[i].shape[-2:], self.align_corners)
                if f"p{i + 2}" in needed:
                    pyramid[f"p{i + 2}"] = self.smooth[i](top)
            del top  # the largest map, before the fusion takes memory for more
        if "fused" in needed:
            pyramid["fused"] = self.fusion(pyramid["p2"], [pyramid[level] for level in ("p3", "p4", "ppm")])
        return {level: pyramid[level] for level in LEVELS if level in wanted}


def _resize(x: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """Resize a map bilinearly to (h, w); a map that has this size already comes back as it is."""
    # If this comparison were traced, an exported network would only take sizes for which it ends as in the example.
    if not torch.compiler.is_compiling() and x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=align_corners)
