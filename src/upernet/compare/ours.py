"""Our own implementation, with the code of `upernet evaluate`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from upernet.compare.implementation import Implementation, Trial
from upernet.compare.peers import refuse_windows
from upernet.config import ModelConfig
from upernet.contract import Task
from upernet.inference.answers import Answers, order_tasks
from upernet.inference.views import Network, run_network
from upernet.model import UPerNet
from upernet.model.build import build_model, for_inference
from upernet.runtimes.choice import on_engine
from upernet.runtimes.engine import EngineName
from upernet.runtimes.graph import MapsOf
from upernet.store.exported import read_exported
from upernet.store.loading import load_model
from upernet.store.native import read_model_config


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


def open_ours(
    folder: Path, trust: Sequence[str], engine: EngineName, reference: bool, trial: Trial
) -> Callable[[], Implementation]:
    """An `Opening` of our network from a model folder. The network normalises the image itself.

    The graph of an engine is kept beside the model for the rest of the measurement, not where users keep theirs: the
    first use must find none.

    Args:
        folder: The model folder.
        trust: Modules from which the model may import its tasks.
        engine: The engine.
        reference: Whether the plain network is run, not its fused form.
        trial: The input.
    """
    if engine != "torch":
        os.environ["TORCH_HOME"] = str(folder / f"graphs for {torch.get_num_threads()} threads")
    network, tasks, _ = load_model(folder, trust)
    device = trial.image.device
    loaded = network.to(device)

    def prepare() -> Implementation:
        runs = on_engine(loaded, engine, device, reference=reference, precision=trial.precision)
        return Implementation(
            version("upernet"),
            lambda: label_maps(runs, tasks, trial),
            lambda: first_logits(runs, tasks, trial),
            runs if isinstance(runs, nn.Module) else None,
        )

    return prepare


def open_exported(path: Path, trust: Sequence[str], trial: Trial) -> Callable[[], Implementation]:
    """An `Opening` of an ONNX file that `upernet export` has written. The first use includes opening it.

    Args:
        path: The file.
        trust: Modules from which it may import its tasks.
        trial: The input.
    """

    def prepare() -> Implementation:
        network, _, tasks, _ = read_exported(path, trust)
        return Implementation(
            version("upernet"),
            lambda: label_maps(network, tasks, trial),
            lambda: first_logits(network, tasks, trial),
            None,
        )

    return prepare


def open_plain(folder: Path, trust: Sequence[str], trial: Trial) -> Callable[[], Implementation]:
    """An `Opening` of the plain network, followed as other software with several tasks does it: all logits are resized
    to the size of the answer, become probabilities there, and are decoded.

    Args:
        folder: The model folder.
        trust: Modules from which the model may import its tasks.
        trial: The input.

    Raises:
        UserError: If there are sliding windows.
    """
    refuse_windows(trial.inference)
    network, tasks, _ = load_model(folder, trust)
    network = network.to(trial.image.device)
    names = list(answered(tasks))
    decoded = MapsOf(network, tasks, names)

    def prepare() -> Implementation:
        return Implementation(
            version("upernet"),
            lambda: dict(zip(names, decoded(trial.image), strict=True)),
            lambda: first_logits(network, tasks, trial),
            network,
        )

    return prepare


def answered(tasks: Mapping[str, Task]) -> dict[str, Task]:
    """The tasks that are computed, each after those it needs: all but the auxiliary ones."""
    return order_tasks({name: task for name, task in tasks.items() if not task.auxiliary})


def label_maps(network: Network, tasks: Mapping[str, Task], trial: Trial) -> dict[str, Tensor]:
    """Class ids by task, int64 (B, H, W) at the trial's answer size, or (B,).

    Args:
        network: The network, in evaluation mode, on the trial's device.
        tasks: Its tasks by name.
        trial: Its input.
    """
    ordered = answered(tasks)
    inference = replace(
        trial.inference,
        short_side=None,
        short_sides=(),
        max_side=None,
        multiple=None,
        scales=(1.0,),
        flip=False,
    )
    answers = Answers(run_network(network, trial.image, inference, list(ordered)), ordered)
    shape, device = (len(trial.image), *trial.answer_size), trial.image.device
    ids = {name: torch.empty(shape, dtype=torch.int64, device=device) for name in answers.maps}
    for band in answers.bands(trial.answer_size, ordered):
        for name, rows in band.ids.items():
            ids[name][:, band.start : band.stop] = rows
    return answers.image_ids(ordered) | ids


def first_logits(network: Network, tasks: Mapping[str, Task], trial: Trial) -> dict[str, Tensor]:
    """Logits of the trial's first window, by task."""
    logits = network(trial.first_window.contiguous(memory_format=torch.channels_last), list(answered(tasks)))
    # Engines give their own memory, which the next run overwrites.
    return {name: values.clone() for name, values in logits.items()}


class _Called:
    """A network that only has a call, with the bilinear convention that the tail asks for."""

    def __init__(self, call: Callable[..., Mapping[str, Tensor]], align_corners: bool) -> None:
        self._call = call
        self.upsampling_align_corners = align_corners

    def __call__(self, image: Tensor, tasks: Sequence[str]) -> Mapping[str, Tensor]:
        return self._call(image, tasks)


def decode_as_ours(
    folder: Path, trust: Sequence[str], call: Callable[..., Mapping[str, Tensor]], align_corners: bool, trial: Trial
) -> Callable[[], Mapping[str, Tensor]]:
    """A `Decoding`, by our code, for tasks that other software cannot decode.

    Args:
        folder: The model folder, for its tasks.
        trust: Modules from which the model may import its tasks.
        call: The network.
        align_corners: Bilinear convention with which the logits are resized.
        trial: The input.
    """
    tasks = read_model_config(folder, trust)[1]
    for task in tasks.values():
        task.bind(tasks)
    network = _Called(call, align_corners)
    return lambda: label_maps(network, tasks, trial)
