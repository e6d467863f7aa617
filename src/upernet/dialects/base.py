"""What every dialect shares: a checkpoint as it was found, and what was made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from upernet.config import InferenceConfig, ModelConfig, UserError
from upernet.data.labels import Labels
from upernet.data.vocabulary import vocabulary
from upernet.model import UPerNet
from upernet.tasks import Semantic
from upernet.tasks.base import Task


@dataclass(frozen=True)
class Checkpoint:
    """One model of another software, opened and not yet understood.

    Attributes:
        name: Its files, for error lines.
        tensors: Its state dict in its own names.
        meta: Plain values stored beside the tensors.
        settings: The JSON files beside it, by name.
    """

    name: str
    tensors: dict[str, Tensor]
    meta: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """A model of ours, not yet built: its configuration and its tensors in our names."""

    config: ModelConfig
    tasks: dict[str, Task]
    inference: InferenceConfig
    tensors: dict[str, Tensor]


class Dialect(Protocol):
    """A module of this room: one software's way to store a UPerNet."""

    NAME: str

    def matches(self, keys: set[str]) -> bool:
        """Whether a state dict with these names is of this kind."""
        ...

    def read(self, checkpoint: Checkpoint) -> Reading:
        """Understand a checkpoint that matches.

        Raises:
            WorkError: If a tensor has no place here, or its architecture is not one of ours.
        """
        ...


def three(values: Any, scale: float = 1.0) -> tuple[float, float, float]:
    """Mean or standard deviation of three channels, divided by `scale`, to more digits than float32 holds."""
    first, second, third = (round(float(v) / scale, 9) for v in values)
    return first, second, third


def pool_scales(tensors: Mapping[str, Tensor], said: Any, where: str) -> tuple[int, ...]:
    """Bins of the PPM's branches: what a file says, else the usual ones.

    Raises:
        UserError: If they are not as many as there are branches.
    """
    scales = tuple(said) if isinstance(said, (list, tuple)) and said else (1, 2, 3, 6)
    branches = sum(k.startswith("decoder.ppm.branches.") and k.endswith(".conv.weight") for k in tensors)
    if len(scales) != branches or not all(isinstance(s, int) for s in scales):
        raise UserError(f"{where}: pools into {list(scales)} bins by its settings, but holds {branches} branches")
    return scales


def flip_stem(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Reverse the input channels of the first convolution: weights that expect BGR then take RGB."""
    stems = [k for k, v in tensors.items() if k.startswith("backbone.body.") and v.ndim == 4 and v.shape[1] == 3]
    return {k: v.flip(1) if k in stems[:1] else v for k, v in tensors.items()}


def class_names(count: int, names: Any, palette: Any = None) -> dict[str, str] | list[str]:
    """A class table from what a file says, else that of the data set with so many classes, else numbers.

    Args:
        count: K.
        names: What should be a list of K names.
        palette: What should be a list of K RGB triples.
    """
    listed = [str(n).strip() for n in names] if isinstance(names, (list, tuple)) and len(names) == count else None
    standard = {150: "ade20k", 19: "cityscapes", 21: "voc"}.get(count)
    if listed is None or len(set(listed)) != count:
        return vocabulary(standard) if standard else [f"class {i}" for i in range(count)]
    if isinstance(palette, (list, tuple)) and len(palette) == count:
        try:
            return {name: "#{:02x}{:02x}{:02x}".format(*map(int, c)) for name, c in zip(listed, palette, strict=True)}
        except (TypeError, ValueError, IndexError):
            pass
    return vocabulary(standard) if standard and list(vocabulary(standard)) == listed else listed


def semantic_tasks(
    tensors: Mapping[str, Tensor], channels: list[int], names: Any, palette: Any, where: str, dropout: float = 0.1
) -> dict[str, Task]:
    """Plain segmentation, with the auxiliary head if there is one, as their tensors in our names show them.

    Args:
        tensors: In our names.
        channels: C_i of c2 … c5.
        names: Class names from the file, if any.
        palette: Their colours, if any.
        where: For error lines.
        dropout: Before the classifiers, in training.

    Raises:
        UserError: If there is a single output channel, or the auxiliary head reads none of the levels.
    """
    classes = tensors["heads.semantic.classifier.weight"].shape[0]
    if classes == 1:
        raise UserError(f"{where}: one output channel, a sigmoid, and this is a softmax over classes; two are needed")
    labels = class_names(classes, names, palette)
    tasks: dict[str, Task] = {"semantic": Semantic(labels=labels, dropout=dropout)}
    if "heads.auxiliary.classifier.weight" in tensors:
        convs = sum(k.startswith("heads.auxiliary.convs.") and k.endswith(".conv.weight") for k in tensors)
        first = tensors["heads.auxiliary.convs.0.conv.weight" if convs else "heads.auxiliary.classifier.weight"]
        if first.shape[1] not in channels:
            raise UserError(f"{where}: the auxiliary head reads {first.shape[1]} channels; the levels have {channels}")
        tasks["auxiliary"] = Semantic(
            labels=labels,
            level=f"c{channels.index(first.shape[1]) + 2}",
            convs=convs,
            width=first.shape[0] if convs else 256,
            dropout=dropout,
            target="semantic",
            weight=0.4,
            auxiliary=True,
        )
    return tasks


def require_semantic(model: UPerNet, tasks: Mapping[str, Task], software: str) -> Labels:
    """The classes of a model that other software can hold: plain segmentation, perhaps with its auxiliary head.

    Raises:
        UserError: If the model has other tasks, or a head or decoder that `software` has not.
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
    return semantic.classes
