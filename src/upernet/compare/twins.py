"""Our network in the files of other software, ready to be compared."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path

from upernet.compare.contender import Contender
from upernet.compare.costs import is_plain_segmentation
from upernet.compare.graphs import convert_to_mnn, find_engine, open_graph
from upernet.compare.implementation import Shown
from upernet.compare.ours import answered, decode_as_ours, seeded_network
from upernet.compare.peers import PEERS, open_peer, refuse_windows
from upernet.compare.runner import in_one_line
from upernet.config import InferenceConfig, ModelConfig
from upernet.contract import Task
from upernet.errors import UserError, WorkError
from upernet.model import UPerNet
from upernet.model.counts import count_multiply_adds, count_parameters
from upernet.plain import to_plain
from upernet.runtimes.graph import LogitsOf, to_onnx, trace
from upernet.store.foreign import write_foreign


def peer_contender(
    name: str, model: UPerNet, tasks: Mapping[str, Task], inference: InferenceConfig, folder: Path
) -> Contender:
    """The same network, or the nearest one, in other software, with our weights wherever both have the same tensor.

    Args:
        name: A key of `PEERS`.
        model: Our network.
        tasks: Its tasks by name.
        inference: Its settings.
        folder: An existing folder for the file or folder that our converter writes.

    Raises:
        UserError: If the software is not installed, or has no such network.
    """
    library = PEERS[name]
    if importlib.util.find_spec(library.module) is None:
        raise UserError(f"not installed ({library.module} is missing); pip install 'upernet[peers]'")
    kept = {n: task for n, task in tasks.items() if library.keeps_auxiliary or not task.auxiliary}
    config = library.nearest(model.config)
    path = folder / (f"{name}.pth" if library.dialect == "mmseg" else name)
    twin = _twin(model, config, kept)
    write_foreign(path, library.dialect, twin, kept, inference)
    return Contender(
        name,
        partial(open_peer, name, path, config),
        model if config == model.config else twin,
        differences=tuple(_differences(model.config, config, tasks.keys() - kept.keys())),
    )


class GraphWriter:
    """Writes the plain network's graph once, when the first engine asks for it."""

    def __init__(self, model: UPerNet, tasks: Mapping[str, Task], folder: Path, trust: Sequence[str]) -> None:
        """Nothing is written yet.

        Args:
            model: Our network on the CPU.
            tasks: Its tasks by name.
            folder: The model folder, to which the graph is added.
            trust: Modules from which the model may import its tasks.
        """
        self._model, self._tasks, self._folder, self._trust = model, tasks, folder, trust
        self._names = list(answered(tasks))

    @cached_property
    def _fault(self) -> str | None:
        """Why the graph cannot be written; None if it has been."""
        try:
            graph = to_onnx(trace(LogitsOf(self._model, self._names)), self._names)
            graph.optimize()  # as PyTorch does by default; MNN cannot read the graph otherwise
            graph.save(self._folder / "plain.onnx")
        except Exception as error:  # whatever PyTorch raises
            return f"the network cannot be exported ({in_one_line(error)})"
        return None

    def contender(self, name: str, shown: Shown) -> Contender:
        """The plain network's graph in an engine.

        Args:
            name: A key of `ENGINES`.
            shown: The trial.

        Raises:
            UserError: If the engine is not installed, or does not do what is asked for.
            WorkError: If the graph cannot be written or converted.
        """
        find_engine(name)
        if shown.device != "cpu" or shown.precision != "float32":
            raise UserError("is compared on a CPU in float32 only; for example --device cpu --precision float32")
        refuse_windows(shown.inference)
        if self._fault is not None:
            raise WorkError(self._fault)
        path = self._folder / "plain.onnx"
        if name == "mnn":
            path = self._folder / "plain.mnn"
            convert_to_mnn(self._folder / "plain.onnx", path)
        usual = is_plain_segmentation(self._tasks)
        decoding = None if usual else partial(decode_as_ours, self._folder, self._trust)
        model = self._model
        return Contender(
            name,
            partial(open_graph, name, path, self._names, model.upsampling_align_corners, decoding),
            model,
            engine=name,
            differences=() if usual else ("answers decoded by upernet",),
            multiply_adds=count_multiply_adds(model, shown.input_size)["total"],
            parameters=count_parameters(model)["total"] - count_parameters(model)["auxiliary"],
        )


def _twin(model: UPerNet, config: ModelConfig, tasks: Mapping[str, Task]) -> UPerNet:
    """Build our network of another configuration, with the weights of `model` wherever a tensor has the same shape."""
    twin = seeded_network(config, tasks)
    own = twin.state_dict()
    # The converter writes from the CPU.
    same = {k: v.cpu() for k, v in model.state_dict().items() if k in own and own[k].shape == v.shape}
    twin.load_state_dict(own | same)
    return twin


def _differences(config: ModelConfig, peer_config: ModelConfig, left_out: Iterable[str]) -> list[str]:
    """The differences of a peer's network from ours, in words."""
    ours, peers = (to_plain(c) | {"logits_align_corners": c.upsampling_align_corners} for c in (config, peer_config))
    changed = [f"{key} {peers[key]}, not {ours[key]}" for key in ours if ours[key] != peers[key]]
    return changed + [f"no {name} head" for name in left_out]
