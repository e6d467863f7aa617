"""The same network in other software.

Other software is imported in this file alone, and only if the user asks for a comparison with it. This module imports
little of ours: it is loaded in the processes whose memory is measured.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upernet.compare.implementation import Implementation, Trial
from upernet.config import InferenceConfig, ModelConfig
from upernet.errors import UserError
from upernet.resize import Size


@dataclass(frozen=True)
class PeerLibrary:
    """The functions with which another library is run.

    Attributes:
        module: Name of the library's module.
        dialect: Name of its file format in `upernet convert --to`.
        nearest: Returns the configuration of the library's network that is nearest to ours, from that of ours.
        open: Builds that network from the file or folder that our converter wrote, its configuration and the trial.
        logits: Computes logits (B, K, h, w) from normalised images (B, 3, h, w).
        predict: Computes label maps (B, H, W) of a given size from normalised images, as the library's users do.
        keeps_auxiliary: Whether the library's network has the auxiliary head without computing it in prediction.
    """

    module: str
    dialect: str
    nearest: Callable[[ModelConfig], ModelConfig]
    open: Callable[[Path, ModelConfig, Trial], nn.Module]
    logits: Callable[[Any, Tensor], Tensor]
    predict: Callable[[Any, Tensor, Size], Tensor]
    keeps_auxiliary: bool = False


def open_peer(name: str, path: Path, config: ModelConfig, trial: Trial) -> Callable[[], Implementation]:
    """An `Opening` of the network in other software. It gets a normalised image, as its users give it.

    Args:
        name: A key of `PEERS`.
        path: The file or folder that our converter wrote for it.
        config: The configuration of that network.
        trial: The input.

    Raises:
        UserError: If the software is not installed, or has no such network.
    """
    library = PEERS[name]
    imported = _import(library)
    device = trial.image.device
    network = library.open(path, config, trial).eval().to(device)
    mean, std = (torch.tensor(values, device=device).reshape(3, 1, 1) for values in (config.mean, config.std))
    image, window = (trial.image / 255 - mean) / std, (trial.first_window - mean) / std

    def prepare() -> Implementation:
        return Implementation(
            str(imported.__version__),
            lambda: {"semantic": library.predict(network, image, trial.answer_size)},
            lambda: {"semantic": library.logits(network, window)},
            network,
        )

    return prepare


def _import(library: PeerLibrary) -> Any:
    """Import the library's module.

    Raises:
        UserError: If it is not installed.
    """
    try:
        if library.module == "mmseg":
            _allow_missing_operations()
        return importlib.import_module(library.module)
    except ModuleNotFoundError as error:
        raise UserError(f"not installed ({error.name} is missing); pip install 'upernet[peers]'") from None


def _allow_missing_operations() -> None:
    """Let MMSegmentation be imported without its compiled operations, of which UPerNet uses none."""
    try:
        importlib.import_module("mmcv._ext")
    except ModuleNotFoundError:
        if importlib.util.find_spec("mmcv") is not None:
            sys.modules["mmcv._ext"] = mock.MagicMock()


def refuse_windows(inference: InferenceConfig) -> None:
    """Refuse sliding windows.

    Raises:
        UserError: If there are any.
    """
    if inference.window is not None:
        raise UserError("has no sliding windows; it is compared only if the network sees the image whole")


def _plain_stem(backbone: str) -> str:
    """The name of the ResNet with the 7×7 stem for one with a deep stem; any other name unchanged."""
    deep = re.fullmatch(r"(resnet\d+)[cdst]", backbone)
    return deep[1] if deep else backbone


def _resized_arg_max(logits: Tensor, size: Size) -> Tensor:
    """Label maps (B, H, W) from logits (B, K, h, w), as in the documentation of transformers and of smp."""
    if logits.shape[-2:] != size:
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    return logits.argmax(dim=1)


# --- mmseg ----------------------------------------------------------------------------------------------------------


def _open_mmseg(path: Path, config: ModelConfig, trial: Trial) -> nn.Module:
    """Build the network from the configuration, sliding windows included, that our converter wrote beside the weights.

    Raises:
        UserError: If the backbone is not one of the library's ResNets.
    """
    if not re.fullmatch(r"resnet(18|34|50|101|152)[cd]?", config.backbone) or config.backbone_args:
        raise UserError(f"is compared on ResNet only, not on {config.backbone!r}; for example resnet50c")
    importlib.import_module("mmseg.models")  # registers the modules that are built below
    checkpoint = torch.load(path, weights_only=True)
    cfg = importlib.import_module("mmengine").Config.fromstring(checkpoint["meta"]["cfg"], ".py")
    importlib.import_module("mmengine.registry").init_default_scope(cfg.default_scope)
    network: nn.Module = importlib.import_module("mmseg.registry").MODELS.build(cfg.model)
    network.load_state_dict(checkpoint["state_dict"])
    return network


def _predict_by_mmseg(network: Any, image: Tensor, size: Size) -> Tensor:
    sample = importlib.import_module("mmseg.structures").SegDataSample
    shown = tuple(image.shape[-2:])
    samples = [sample(metainfo={"ori_shape": size, "img_shape": shown, "pad_shape": shown}) for _ in image]
    return torch.cat([s.pred_sem_seg.data for s in network.predict(image, samples)])


# --- transformers ---------------------------------------------------------------------------------------------------


def _nearest_in_transformers(config: ModelConfig) -> ModelConfig:
    return replace(config, backbone=_plain_stem(config.backbone), align_corners=False, logits_align_corners=None)


def _open_transformers(path: Path, config: ModelConfig, trial: Trial) -> nn.Module:
    refuse_windows(trial.inference)
    network: nn.Module = importlib.import_module("transformers").UperNetForSemanticSegmentation.from_pretrained(path)
    return network


# --- segmentation_models_pytorch ------------------------------------------------------------------------------------


def _nearest_in_smp(config: ModelConfig) -> ModelConfig:
    return replace(
        config,
        backbone=_plain_stem(config.backbone),
        align_corners=False,
        logits_align_corners=True,
        level_norm=True,
        level_norm_eps=1e-6,
    )


def _open_smp(path: Path, config: ModelConfig, trial: Trial) -> nn.Module:
    refuse_windows(trial.inference)
    network: nn.Module = importlib.import_module("segmentation_models_pytorch").from_pretrained(str(path))
    return network


PEERS = {
    "mmseg": PeerLibrary(
        "mmseg",
        "mmseg",
        lambda config: config,
        _open_mmseg,
        lambda network, x: network.encode_decode(x, [{"img_shape": tuple(x.shape[-2:])}]),
        _predict_by_mmseg,
        keeps_auxiliary=True,
    ),
    "transformers": PeerLibrary(
        "transformers",
        "huggingface",
        _nearest_in_transformers,
        _open_transformers,
        lambda network, x: network(x).logits,
        lambda network, x, size: _resized_arg_max(network(x).logits, size),
    ),
    "smp": PeerLibrary(
        "segmentation_models_pytorch",
        "smp",
        _nearest_in_smp,
        _open_smp,
        lambda network, x: network(x),
        lambda network, x, size: _resized_arg_max(network(x), size),
    ),
}
"""The libraries by their names in `--compare`."""
