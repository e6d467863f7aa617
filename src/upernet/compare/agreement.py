"""How far answers are from those of the plain network in float64."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from upernet.compare.implementation import Trial
from upernet.compare.ours import answered, first_logits, label_maps
from upernet.inference.upsample import resize
from upernet.model import UPerNet


class Agreement(NamedTuple):
    """How far an implementation's answers are from exact ones.

    Attributes:
        disagreement: Largest difference of its logits from the exact ones in the first window, in standard deviations
            of the exact logits; of several tasks the largest.
        equal_classes: Share of pixels, at the size of the answer, whose class is the exact one; of all tasks together.
    """

    disagreement: float
    equal_classes: float


@dataclass(frozen=True)
class ExactAnswers:
    """The answers of a network in float64, on the CPU.

    Attributes:
        logits: Logits of the trial's first window by task, (1, K, h, w) or (1, K), float64.
        ids: Class ids by task, (B, H, W) or (B,), int64.
        window_size: Height and width of the first window, in pixels.
        align_corners: Bilinear convention with which the logits are resized.
    """

    logits: dict[str, Tensor]
    ids: dict[str, Tensor]
    window_size: tuple[int, int]
    align_corners: bool

    def compare(self, logits: Mapping[str, Tensor], ids: Mapping[str, Tensor]) -> Agreement:
        """Compare answers with these.

        Args:
            logits: Logits of the first window by task, at the stride of these or at the size of the window.
            ids: Class ids by task.
        """
        differences = []
        for name, exact in self.logits.items():
            if exact.shape != logits[name].shape:
                exact = resize(exact, self.window_size, self.align_corners)
            differences.append(((logits[name] - exact).abs().max() / exact.std()).item())
        equal = sum(int((ids[name] == exact).sum()) for name, exact in self.ids.items())
        return Agreement(max(differences), equal / sum(exact.numel() for exact in self.ids.values()))


class _InFloat64:
    """A network that computes in float64."""

    def __init__(self, network: UPerNet, device: torch.device) -> None:
        self._network = copy.deepcopy(network).double().to(device)
        self.upsampling_align_corners = network.upsampling_align_corners

    def __call__(self, image: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        return self._network(image.double(), tasks)


@torch.inference_mode()
def exact_answers(network: UPerNet, trial: Trial) -> ExactAnswers:
    """Compute the answers of a network in float64, on the trial's device. Only resizing logits is done in float32.

    Args:
        network: The network, in evaluation mode, on any device; it stays as it is.
        trial: The input.
    """
    exact = _InFloat64(network, trial.image.device)
    tasks = answered(network.tasks)
    logits = {name: value.cpu() for name, value in first_logits(exact, tasks, trial).items()}
    ids = {name: value.cpu() for name, value in label_maps(exact, tasks, trial).items()}
    return ExactAnswers(logits, ids, trial.window_size, network.upsampling_align_corners)
