"""Our own implementation, with the code of `upernet evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from upernet.compare.implementation import Implementation, Trial
from upernet.config import ModelConfig
from upernet.contract import Task
from upernet.inference.answers import Answers, order_tasks
from upernet.inference.views import run_network
from upernet.model import UPerNet
from upernet.model.build import build_model, for_inference
from upernet.model.counts import count_multiply_adds


def seeded_network(config: ModelConfig, tasks: Mapping[str, Task]) -> UPerNet:
    """Build a network in evaluation mode with random weights, the same every time.

    In many residual branches the weight of the last norm starts at 0, so that the branch adds nothing. Here it is not
    0, because answers are compared, and every part of the network must contribute to them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = for_inference(build_model(config, tasks))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.any():
            nn.init.constant_(module.weight, 0.2)
    return network


def our_implementation(network: UPerNet, tasks: Mapping[str, Task], trial: Trial, version: str) -> Implementation:
    """Our implementation, from the image to the label maps of all tasks. The network normalises the image itself.

    Args:
        network: The network, in evaluation mode, on the trial's device.
        tasks: Its tasks by name.
        trial: Its input.
        version: Version of this package.

    Returns:
        The implementation. Its `run` gives class ids by task, int64 (B, H, W) at the trial's answer size, or (B,).
    """
    ordered = order_tasks({name: task for name, task in tasks.items() if not task.auxiliary})
    inference = replace(
        trial.inference,
        short_side=None,
        short_sides=(),
        max_side=None,
        multiple=None,
        scales=(1.0,),
        flip=False,
    )

    def run() -> dict[str, Tensor]:
        answers = Answers(run_network(network, trial.image, inference, list(ordered)), ordered)
        shape, device = (len(trial.image), *trial.answer_size), trial.image.device
        ids = {name: torch.empty(shape, dtype=torch.int64, device=device) for name in answers.maps}
        for band in answers.bands(trial.answer_size, ordered):
            for name, rows in band.ids.items():
                ids[name][:, band.start : band.stop] = rows
        return answers.image_ids(ordered) | ids

    multiply_adds = count_multiply_adds(network, trial.window_size)["total"] * trial.window_count
    return Implementation("upernet", version, network, run, multiply_adds)
