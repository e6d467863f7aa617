"""What every implementation is shown, and what an implementation is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from upernet.config import InferenceConfig
from upernet.inference.sizes import sliding_windows
from upernet.resize import Size


@dataclass(frozen=True)
class Trial:
    """What every implementation is shown, and what it has to answer.

    Attributes:
        image: (B, 3, h, w) float32 RGB in [0, 255] at the size of the network's input, on the device.
        answer_size: Height and width of the label maps to give.
        inference: Windows, and the way from logits to `answer_size`. Its sizes, scales and flip are not looked at.
    """

    image: Tensor
    answer_size: Size
    inference: InferenceConfig

    @property
    def input_size(self) -> Size:
        """Height and width of the network's input."""
        return self.image.shape[-2], self.image.shape[-1]

    @property
    def window_count(self) -> int:
        """How many windows the network sees of one image."""
        return len(sliding_windows(self.input_size, self.inference))

    @property
    def window_size(self) -> Size:
        """Height and width of each of them."""
        return sliding_windows(self.input_size, self.inference)[0].size


@dataclass(frozen=True)
class Implementation:
    """The network in one software, ready to run.

    Attributes:
        name: `upernet`, or what `--compare` calls the software.
        version: Of the software.
        network: The module with its weights.
        run: Goes from the trial's image to label maps, once.
        multiply_adds: Of one image, all its windows.
        differences: In what its network is another one than ours, in words.
        disagreement: Largest difference of its logits from those of our code with the same weights, in standard
            deviations of the logits; none for ours.
    """

    name: str
    version: str
    network: nn.Module
    run: Callable[[], object]
    multiply_adds: int
    differences: tuple[str, ...] = ()
    disagreement: float | None = None
