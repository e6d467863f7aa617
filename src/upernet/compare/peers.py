"""The same network in other software.

Other software is imported in this file alone, and only if the user asks for a comparison with it.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upernet.compare.costs import arithmetic
from upernet.compare.implementation import Implementation, Trial
from upernet.compare.ours import seeded_network
from upernet.config import ModelConfig
from upernet.contract import Task
from upernet.errors import UserError
from upernet.inference.upsample import resize
from upernet.model import UPerNet
from upernet.model.counts import count_multiply_adds
from upernet.plain import to_plain
from upernet.resize import Size
from upernet.store.foreign import write_foreign


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
    predict: Callable[[Any, Tensor, Size], object]
    keeps_auxiliary: bool = False


def peer_implementation(
    name: str, model: UPerNet, tasks: Mapping[str, Task], trial: Trial, precision: str = "float32"
) -> Implementation:
    """The same network, or the nearest one, in other software, with our weights wherever both have the same tensor.

    Args:
        name: A key of `PEERS`.
        model: Our network, on the trial's device.
        tasks: Its tasks by name.
        trial: The input.
        precision: A key of `DTYPES`, in which the network will run.

    Raises:
        UserError: If the software is not installed, or has no such network.
    """
    library = PEERS[name]
    with _quiet():
        imported = _import(library)
    kept = {n: task for n, task in tasks.items() if library.keeps_auxiliary or not task.auxiliary}
    twin = _twin(model, library.nearest(model.config), kept)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / ("model.pth" if library.dialect == "mmseg" else "model")
        write_foreign(path, library.dialect, twin, kept, trial.inference)
        network = library.open(path, twin.config, trial).eval().to(trial.image.device)
    image = (trial.image / 255 - model.mean) / model.std
    with _without_tf32(), torch.inference_mode(), _quiet():
        disagreement = _disagreement(library, network, twin.to(image.device), image, trial.window_size)
        with arithmetic(image.device, precision):
            library.predict(network, image, trial.answer_size)  # fails here if it cannot run
    return Implementation(
        name,
        str(imported.__version__),
        network,
        lambda: library.predict(network, image, trial.answer_size),
        count_multiply_adds(network, trial.window_size)["total"] * trial.window_count,
        tuple(_differences(model.config, twin.config, tasks.keys() - kept.keys())),
        disagreement,
    )


def _twin(model: UPerNet, config: ModelConfig, tasks: Mapping[str, Task]) -> UPerNet:
    """Build our network of another configuration, with the weights of `model` wherever a tensor has the same shape."""
    twin = seeded_network(config, tasks)
    own = twin.state_dict()
    # The converter writes from the CPU.
    same = {k: v.cpu() for k, v in model.state_dict().items() if k in own and own[k].shape == v.shape}
    twin.load_state_dict(own | same)
    return twin


def _disagreement(library: PeerLibrary, network: nn.Module, twin: UPerNet, image: Tensor, window: Size) -> float:
    """Largest difference of the library's logits from those of `twin` in one window, in standard deviations."""
    shown = image[:1, :, : window[0], : window[1]]
    own = twin(shown * twin.std + twin.mean, ["semantic"])["semantic"]
    own = resize(own, window, twin.upsampling_align_corners)
    return ((library.logits(network, shown) - own).abs().max() / own.std()).item()


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Compute convolutions in full float32 while the block runs: rounding to TF32 would hide differences."""
    rounding, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = rounding


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


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep messages, progress bars and warnings of other software off the screen."""
    unused = io.StringIO()
    with redirect_stdout(unused), redirect_stderr(unused), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _differences(config: ModelConfig, peer_config: ModelConfig, left_out: Iterable[str]) -> list[str]:
    """The differences of a peer's network from ours, in words."""
    ours, peers = (to_plain(c) | {"logits_align_corners": c.upsampling_align_corners} for c in (config, peer_config))
    changed = [f"{key} {peers[key]}, not {ours[key]}" for key in ours if ours[key] != peers[key]]
    return changed + [f"no {name} head" for name in left_out]


def _refuse_windows(trial: Trial) -> None:
    if trial.inference.window is not None:
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


def _predict_by_mmseg(network: Any, image: Tensor, size: Size) -> object:
    sample = importlib.import_module("mmseg.structures").SegDataSample
    shown = tuple(image.shape[-2:])
    samples = [sample(metainfo={"ori_shape": size, "img_shape": shown, "pad_shape": shown}) for _ in image]
    return torch.cat([s.pred_sem_seg.data for s in network.predict(image, samples)])


# --- transformers ---------------------------------------------------------------------------------------------------


def _nearest_in_transformers(config: ModelConfig) -> ModelConfig:
    return replace(config, backbone=_plain_stem(config.backbone), align_corners=False, logits_align_corners=None)


def _open_transformers(path: Path, config: ModelConfig, trial: Trial) -> nn.Module:
    _refuse_windows(trial)
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
    _refuse_windows(trial)
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
