"""What every dialect shares: the checkpoint that it reads and the model that it makes of it."""

from __future__ import annotations

import math
import reprlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from upernet.config import InferenceConfig, ModelConfig
from upernet.contract import Task
from upernet.data.sets import SETS, published_classes
from upernet.errors import UserError
from upernet.model import UPerNet
from upernet.screen import print_line, printable
from upernet.tasks import Semantic
from upernet.zoo.published import published


@dataclass(frozen=True)
class Checkpoint:
    """The files of one model of other software, opened but not interpreted.

    Attributes:
        name: Names of the files, for error lines.
        tensors: The state dict, in the names of that software.
        meta: Plain values that the file stores beside the tensors.
        settings: Contents of the JSON files beside it, by file name.
    """

    name: str
    tensors: dict[str, Tensor]
    meta: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """A checkpoint in our terms; its network is not built yet.

    Attributes:
        config: Configuration of the network.
        tasks: Its tasks by name.
        inference: How images are resized for it and shown to it.
        tensors: The state dict, in our names.
        named: Gives the file's name of a tensor of ours, for error lines.
    """

    config: ModelConfig
    tasks: dict[str, Task]
    inference: InferenceConfig
    tensors: dict[str, Tensor]
    named: Callable[[str], str] = str


class Dialect(Protocol):
    """A module of this room: how one software stores a UPerNet."""

    NAME: str
    SOFTWARE: str

    def matches(self, keys: set[str]) -> bool:
        """Whether a state dict with these names is of this kind."""
        ...

    def read(self, checkpoint: Checkpoint) -> Reading:
        """Interpret a checkpoint that matches.

        Raises:
            WorkError: If a tensor has no place here, or its architecture is not one of ours.
        """
        ...


def warn(line: str) -> None:
    """Tell on the error stream what a file says and is not heeded, where that costs nobody the model."""
    print_line(f"upernet: {line}", sys.stderr)


def rgb_values(
    values: Any, what: str, where: str, scale: float = 1.0, low: float = -math.inf
) -> tuple[float, float, float]:
    """Mean or standard deviation of the three channels, divided by `scale` and rounded to nine decimals.

    Raises:
        UserError: If they are not three finite numbers above `low`.
    """
    listed = list(values) if isinstance(values, (list, tuple)) else []
    if len(listed) != 3 or not all(isinstance(v, (int, float)) and math.isfinite(v) and v > low for v in listed):
        above = "" if low == -math.inf else f" above {low:g}"
        example = [round(v * scale, 3) for v in (0.229, 0.224, 0.225)]
        raise UserError(f"{where}: {what} {values!r} is not three numbers{above}; for example {example}")
    first, second, third = (round(v / scale, 9) for v in listed)
    return first, second, third


def pool_scales(tensors: Mapping[str, Tensor], given: Any, where: str) -> tuple[int, ...]:
    """Bins per side of the PPM's branches, as the file gives them, else 1, 2, 3, 6.

    Raises:
        UserError: If they are not numbers of bins, or not as many as there are branches.
    """
    usual = (1, 2, 3, 6)
    scales: Sequence[Any] = usual if given is None else given if isinstance(given, (list, tuple)) else ()
    if not scales or not all(isinstance(s, int) and 1 <= s <= 64 for s in scales):
        raise UserError(f"{where}: pool_scales {given!r} is not a list of bins from 1 to 64; for example {list(usual)}")
    branches = sum(k.startswith("decoder.ppm.branches.") and k.endswith(".conv.weight") for k in tensors)
    if len(scales) != branches:
        raise UserError(f"{where}: pools into {list(scales)} bins by its settings, but holds {branches} branches")
    return tuple(scales)


def flip_stem(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Reverse the input channels of the first convolution, so that weights for BGR take RGB."""
    stems = [k for k, v in tensors.items() if k.startswith("backbone.body.") and v.ndim == 4 and v.shape[1] == 3]
    return {k: v.flip(1) if k in stems[:1] else v for k, v in tensors.items()}


def class_names(count: int, names: Any, palette: Any = None, where: str = "") -> dict[str, str] | list[str]:
    """A class table from the names in a file, else that of the data set with as many classes, else numbered names.

    Data sets are those that weights are published for. A wrong palette is left out with a warning, since it changes no
    answer.

    Args:
        count: K.
        names: A list of K names, if the value is valid. Repeated names are numbered; all are made printable.
        palette: K RGB triples as lists or an array (K, 3), if the value is valid; none, empty or `random` are too.
        where: Name of the file, for the warning.
    """
    known = {model.dataset for model in published()}
    table = next((published_classes(n) for n in SETS if n in known and len(SETS[n].classes) == count), {})
    if not isinstance(names, (list, tuple)) or len(names) != count:
        return table or [f"class {i}" for i in range(count)]
    listed = _distinct([printable(" ".join(str(n).split())) or f"class {i}" for i, n in enumerate(names)])
    listed_palette = _listed(palette)
    colours = [_listed(c) for c in listed_palette] if isinstance(listed_palette, (list, tuple)) else []
    wrong = [c for c in colours if not _is_colour(c)]
    if len(colours) == count and not wrong:
        return {name: "#{:02x}{:02x}{:02x}".format(*map(int, c)) for name, c in zip(listed, colours, strict=True)}
    if listed_palette not in (None, "random", [], ()):
        found = (
            reprlib.repr(wrong[0])
            if wrong
            else f"of {len(colours)} colours"
            if colours
            else reprlib.repr(listed_palette)
        )
        warn(f"{where}: palette {found} is left out; valid: {count} times red, green, blue in 0 … 255, or 'random'")
    return table if list(table) == listed else listed


def _distinct(names: list[str]) -> list[str]:
    """The same names, with repeated ones numbered: `door (2)`."""
    taken, last, told = set(names), dict[str, int](), list[str]()
    for name in names:
        new, number = name, last.get(name, 0) + 1
        while number > 1 and (new := f"{name} ({number})") in taken:
            number += 1
        taken.add(new)
        last[name] = number
        told.append(new)
    return told


def _listed(value: Any) -> Any:
    """Arrays as lists; anything else as it is."""
    return value.tolist() if isinstance(value, (np.ndarray, Tensor)) else value


def _is_colour(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 3
        and all(isinstance(v, (int, float)) and v == v // 1 and 0 <= v <= 255 for v in value)
    )


def semantic_tasks(
    tensors: Mapping[str, Tensor],
    channels: list[int],
    names: Any,
    palette: Any,
    where: str,
    dropout: float = 0.1,
    level: int | None = None,
) -> dict[str, Task]:
    """The semantic task, and the auxiliary one if there is one, from the shapes of their tensors.

    Args:
        tensors: The state dict, in our names.
        channels: C_i of c2 … c5.
        names: Class names of the file; see `class_names`.
        palette: Colours of the file; see `class_names`.
        where: Name of the file, for error lines.
        dropout: Probability of dropping a channel before the classifiers.
        level: Backbone level that the auxiliary head reads, 0 … 3; if none, the one whose channels fit.

    Raises:
        UserError: If there is a single output channel, or the auxiliary head does not fit its level.
    """
    classes = tensors["heads.semantic.classifier.weight"].shape[0]
    if classes == 1:
        raise UserError(f"{where}: one output channel, a sigmoid, and this is a softmax over classes; two are needed")
    labels = class_names(classes, names, palette, where)
    tasks: dict[str, Task] = {"semantic": Semantic(labels=labels, dropout=dropout)}
    if "heads.auxiliary.classifier.weight" in tensors:
        convs = sum(k.startswith("heads.auxiliary.convs.") and k.endswith(".conv.weight") for k in tensors)
        first = tensors["heads.auxiliary.convs.0.conv.weight" if convs else "heads.auxiliary.classifier.weight"]
        reads = first.shape[1]
        if level is None:  # all published ones read c4, and levels may have the same channels
            level = next((n for n in (2, 0, 1, 3) if channels[n] == reads), 2)
        if channels[level] != reads:
            levels = ", ".join(f"c{n + 2} {c}" for n, c in enumerate(channels))
            raise UserError(f"{where}: the auxiliary head on c{level + 2} reads {reads} channels; there are {levels}")
        tasks["auxiliary"] = Semantic(
            labels=labels,
            level=f"c{level + 2}",
            convs=convs,
            width=first.shape[0] if convs else 256,
            dropout=dropout,
            target="semantic",
            weight=0.4,
            auxiliary=True,
        )
    return tasks


def require_semantic(model: UPerNet, tasks: Mapping[str, Task], software: str) -> tuple[Semantic, Semantic | None]:
    """The semantic task of a model and its auxiliary one if there is one: the only tasks of other software.

    Raises:
        UserError: If the model has other tasks, or a head or decoder that `software` does not have.
    """
    unknown = [n for n, t in tasks.items() if n not in ("semantic", "auxiliary") or not isinstance(t, Semantic)]
    semantic = tasks.get("semantic")
    if unknown or not isinstance(semantic, Semantic):
        raise UserError(
            f"{software} knows one task, 'semantic', and its auxiliary head; this model has {', '.join(tasks)}"
        )
    if semantic.level != "fused" or semantic.convs:
        raise UserError(f"{software} classifies 'fused' directly; this model reads {semantic.level!r} through a head")
    config = model.config
    if config.pooling != "adaptive" or config.ppm_order != "conv_upsample":
        raise UserError(
            f"{software} pools adaptively and convolves before upsampling; "
            f"this model has pooling {config.pooling!r}, ppm_order {config.ppm_order!r}"
        )
    auxiliary = tasks.get("auxiliary")
    return semantic, auxiliary if isinstance(auxiliary, Semantic) else None
