"""The implementations that are compared, and the input that they share.

This module imports little: it is loaded in the processes whose memory is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from upernet.config import InferenceConfig
from upernet.device import Precision
from upernet.inference.sizes import sliding_windows
from upernet.resize import Size


@dataclass(frozen=True)
class Trial:
    """The input of every implementation, and the size of its answer.

    Attributes:
        image: RGB images, float32 (B, 3, h, w) in [0, 255], at the size of the network's input, on the device.
        answer_size: Height and width of the label maps, in pixels.
        inference: Settings for sliding windows and for resizing logits. Its sizes, scales and flip are not used.
        precision: Arithmetic, as in `upernet.device`.
    """

    image: Tensor
    answer_size: Size
    inference: InferenceConfig
    precision: Precision = "float32"

    @property
    def input_size(self) -> Size:
        """Height and width of the image, in pixels."""
        return self.image.shape[-2], self.image.shape[-1]

    @property
    def window_count(self) -> int:
        """Number of windows in which the network sees one image."""
        return len(sliding_windows(self.input_size, self.inference))

    @property
    def window_size(self) -> Size:
        """Height and width of each window, in pixels."""
        return sliding_windows(self.input_size, self.inference)[0].size

    @property
    def first_window(self) -> Tensor:
        """What the network sees first: float32 RGB (1, 3, h, w) in [0, 1], whose logits are compared."""
        height, width = self.window_size
        return self.image[:1, :, :height, :width] / 255


@dataclass(frozen=True)
class Shown:
    """A trial in plain values, from which every process makes the same one.

    Attributes:
        input_size: Height and width of the image, in pixels.
        answer_size: Height and width of the label maps, in pixels.
        inference: As in `Trial`.
        batch: Number of images.
        device: `cpu` or `cuda`.
        precision: As in `Trial`.
    """

    input_size: Size
    answer_size: Size
    inference: InferenceConfig
    batch: int = 1
    device: str = "cpu"
    precision: Precision = "float32"

    def trial(self) -> Trial:
        """The trial, with an image of noise that is the same every time."""
        image = torch.rand(self.batch, 3, *self.input_size, generator=torch.Generator().manual_seed(0)) * 255
        return Trial(image.to(self.device), self.answer_size, self.inference, self.precision)


@dataclass(frozen=True)
class Implementation:
    """The network in one software, ready to run.

    Attributes:
        version: Version of the software that computes.
        run: Computes label maps of the trial's image once: by task, integer (B, H, W) at the trial's answer size, or
            (B,).
        logits: Computes logits of the trial's first window: by task, (1, K, h, w) at any stride, or (1, K).
        network: The network with its weights; None if it is not PyTorch's.
    """

    version: str
    run: Callable[[], Mapping[str, Tensor]]
    logits: Callable[[], Mapping[str, Tensor]]
    network: nn.Module | None = None


Opening = Callable[[Trial], Callable[[], Implementation]]
"""Loads a network into memory for a trial, and returns a function that makes it ready to run. It can be pickled."""
