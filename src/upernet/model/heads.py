"""The two kinds of head: one answer for the image, or one for every position of a map."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from upernet.model.decoder import ConvBNReLU


class ImageHead(nn.Module):
    """One answer for the image: 3×3 convolution, global average, linear classifier.

    The paper pools directly; the released code convolves first, as is done here.
    """

    def __init__(self, in_channels: int, width: int, classes: int) -> None:
        """Build with random weights.

        Args:
            in_channels: Channels of the level read.
            width: Channels of the convolution.
            classes: Number of classes, K.
        """
        super().__init__()
        self.conv = ConvBNReLU(in_channels, width, 3)
        self.classifier = nn.Linear(width, classes)
        _init_classifier(self.classifier)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) to logits (B, K)."""
        logits: Tensor = self.classifier(self.conv(x).mean(dim=(2, 3)))
        return logits


class DenseHead(nn.Module):
    """One answer for every position: 3×3 convolutions, channel dropout, 1×1 classifier.

    Without convolutions this is the toolbox's decode head; with one, its auxiliary head and the authors' object, part
    and material heads; with four of 128 channels, the texture head of the paper.
    """

    def __init__(self, in_channels: int, classes: int, convs: int, width: int, dropout: float) -> None:
        """Build with random weights.

        Args:
            in_channels: Channels of the level read.
            classes: Number of classes, K.
            convs: Number of 3×3 convolutions, from 0.
            width: Channels of each convolution.
            dropout: Probability with which a channel is dropped before the classifier, in training.
        """
        super().__init__()
        widths = [in_channels] + [width] * convs
        self.convs = nn.Sequential(*(ConvBNReLU(a, b, 3) for a, b in pairwise(widths)))
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(widths[-1], classes, 1)
        _init_classifier(self.classifier)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) to logits (B, K, h, w)."""
        logits: Tensor = self.classifier(self.dropout(self.convs(x)))
        return logits


@torch.no_grad()
def _init_classifier(classifier: nn.Linear | nn.Conv2d) -> None:
    """Near-uniform answers at the start: N(0, 0.01²), bias 0."""
    nn.init.normal_(classifier.weight, std=0.01)
    if classifier.bias is not None:
        nn.init.zeros_(classifier.bias)
