"""The implementations that are compared, and the input that they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from upernet.config import InferenceConfig
from upernet.inference.sizes import sliding_windows
from upernet.resize import Size


@dataclass(frozen=True)
class Trial:
    """The input of every implementation, and the size of its answer.

    Attributes:
        image: RGB images, float32 (B, 3, h, w) in [0, 255], at the size of the network's input, on the device.
        answer_size: Height and width of the label maps, in pixels.
        inference: Settings for sliding windows and for resizing logits. Its sizes, scales and flip are not used.
    """

    image: Tensor
    answer_size: Size
    inference: InferenceConfig

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


@dataclass(frozen=True)
class Implementation:
    """The network in one software, ready to run.

    Attributes:
        name: `upernet`, or the name of the other software in `--compare`.
        version: Version of the software.
        network: The network with its weights.
        run: Computes the label maps of the trial's image once.
        multiply_adds: Number of multiply-adds for one image, all its windows included.
        differences: The differences of its network from ours, in words.
        disagreement: Largest difference of its logits from those of our code with the same weights, in standard
            deviations of the logits; None for our own.
    """

    name: str
    version: str
    network: nn.Module
    run: Callable[[], object]
    multiply_adds: int
    differences: tuple[str, ...] = ()
    disagreement: float | None = None
