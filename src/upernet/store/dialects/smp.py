"""segmentation_models_pytorch from 0.5 on: a state dict, or a folder with `model.safetensors` and `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from upernet.config import InferenceConfig, ModelConfig
from upernet.contract import Task
from upernet.errors import UserError
from upernet.model import UPerNet
from upernet.model.build import cpu_state_dict
from upernet.store.dialects.backbones import (
    Swin,
    backbone_family,
    computes_the_same,
    identify_backbone,
    inspect_backbone,
)
from upernet.store.dialects.base import Checkpoint, Reading, require_semantic, semantic_tasks
from upernet.store.dialects.keys import KeyTable, Row, conv_norm

NAME = "smp"
SOFTWARE = "segmentation_models_pytorch"

_ROWS: list[Row] = [
    ("decoder.feature_norms.*", "decoder.norms.*"),
    *conv_norm("decoder.psp.blocks.{i}.1", "decoder.ppm.branches.{i}", "0", "1"),
    *conv_norm("decoder.psp.out_conv", "decoder.ppm.out", "0", "1"),
    # Theirs go from coarse to fine, ours from fine to coarse.
    *(
        r
        for i in range(3)
        for r in conv_norm(f"decoder.fpn_lateral_blocks.{i}.conv_norm_relu", f"decoder.lateral.{2 - i}", "0", "1")
    ),
    *(r for i in range(3) for r in conv_norm(f"decoder.fpn_conv_blocks.{i}", f"decoder.smooth.{2 - i}", "0", "1")),
    *conv_norm("decoder.fusion_block", "decoder.fusion", "0", "1"),
    ("segmentation_head.0.*", "heads.semantic.classifier.*"),
]
# Its own encoders, and those that it takes from timm.
_OWN = KeyTable([("encoder.*", "backbone.body.*"), *_ROWS])
_TIMM = KeyTable([("encoder.model.*", "backbone.body.*"), *_ROWS])
_OWN_ENCODERS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x4d",
    "resnext101_32x8d",
    "resnext101_32x16d",
    "resnext101_32x32d",
)
_CONFIG = "config.json"
# Keys of a configuration other than arguments of the encoder: tensors show them, or they are checked below.
_SHOWN_BY_TENSORS = {
    "encoder_name", "encoder_depth", "encoder_weights", "decoder_channels", "decoder_use_norm", "in_channels",
    "classes", "activation", "upsampling", "aux_params", "output_stride",
}  # fmt: skip
# Arguments of encoders that change nothing in evaluation, or nothing for images of any size.
_WITHOUT_EFFECT = {
    "drop_rate", "drop_path_rate", "drop_block_rate", "proj_drop_rate", "attn_drop_rate", "patch_drop_rate",
    "pretrained", "img_size", "strict_img_size", "dynamic_img_size", "dynamic_img_pad", "always_partition",
}  # fmt: skip
# Arguments that decide whether the last stages of timm's Swin shift their windows; no tensor shows them.
_WINDOW_LAYOUT = ("always_partition", "img_size")


def matches(keys: set[str]) -> bool:
    """Whether these are the tensor names of its UPerNet."""
    return "segmentation_head.0.weight" in keys and any(
        k.startswith(("decoder.fpn_lateral_blocks.", "decoder.fpn_stages.")) for k in keys
    )


def read(checkpoint: Checkpoint) -> Reading:
    """Interpret a model of 0.5 or later; see `Dialect.read`."""
    where, settings = checkpoint.name, checkpoint.settings.get(_CONFIG, {})
    if any(k.startswith("decoder.fpn_stages.") for k in checkpoint.tensors):
        raise UserError(f"{where}: UPerNet of segmentation_models_pytorch 0.4, another network; 0.5 and later are read")
    for key, valid in (("activation", (None, "identity")), ("upsampling", (4,)), ("output_stride", (32, None))):
        if settings.get(key, valid[0]) not in valid:
            raise UserError(f"{where}: {_CONFIG} has {key} {settings[key]!r}; read is {valid[0]!r}")
    norm = settings.get("decoder_use_norm", "batchnorm")
    norm = {"type": norm.lower()} if isinstance(norm, str) else norm
    if norm is not True and not (
        isinstance(norm, dict) and norm.get("type") == "batchnorm" and norm.get("eps", 1e-5) == 1e-5
    ):
        raise UserError(
            f"{where}: {_CONFIG} has decoder_use_norm {settings['decoder_use_norm']!r}; read is 'batchnorm'"
        )
    table = _TIMM if any(k.startswith("encoder.model.") for k in checkpoint.tensors) else _OWN
    tensors = table.to_ours(checkpoint.tensors, where)
    name, args, channels = identify_backbone(tensors, where, table.their_name)
    _check_encoder(settings, name, args, where)
    if backbone_family(tensors) == "swin":
        layout = {k: settings[k] for k in _WINDOW_LAYOUT if settings.get(k) is not None}
        args = {**args, "shift_first": True, "always_partition": False, **layout}
    config = ModelConfig(
        backbone=name,
        backbone_args=args,
        width=tensors["decoder.fusion.conv.weight"].shape[0],
        logits_align_corners=True,
        level_norm=True,
    )
    tasks = semantic_tasks(tensors, channels, None, None, where, dropout=0.0)
    return Reading(config, tasks, InferenceConfig(), tensors, table.their_name)


def _check_encoder(settings: Mapping[str, Any], name: str, args: dict[str, Any], where: str) -> None:
    """Compare the encoder that the configuration names with the one that the tensors show.

    ResNets with anti-aliasing, other strides or other activations have the same tensors as plain ones.

    Raises:
        UserError: If the named encoder computes something else, or if that cannot be decided.
    """
    given = {
        k: v
        for k, v in settings.items()
        if v is not None and k not in _SHOWN_BY_TENSORS | _WITHOUT_EFFECT and k[:1] != "_"
    }
    encoder = str(settings.get("encoder_name"))
    timm_name = encoder.removeprefix("tu-")
    # Its other own encoders have other tensors, or names that timm lacks.
    if timm_name == encoder and encoder not in _OWN_ENCODERS:
        for key, value in given.items():
            if args.get(key) != value:
                raise UserError(f"{where}: {_CONFIG} has {key} {value!r}, which no tensor shows; valid: without it")
    elif not computes_the_same(name, args, timm_name, given):
        changed = {k: v for k, v in given.items() if args.get(k) != v}
        told = f"{encoder!r} with {changed}" if changed else repr(encoder)
        raise UserError(
            f"{where}: {_CONFIG} has encoder_name {told}, but its tensors are a {name}'s {args or ''}".rstrip()
            + ", which answers otherwise; only encoders that tensors show are read, such as 'tu-resnet50'"
        )


def write(
    model: UPerNet, tasks: Mapping[str, Task], inference: InferenceConfig
) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """The tensors and the JSON file that `from_pretrained` of the library reads.

    Raises:
        UserError: If the library has no such network.
    """
    semantic, auxiliary = require_semantic(model, tasks, SOFTWARE)
    config = model.config
    if auxiliary is not None:
        raise UserError(f"{SOFTWARE} has no auxiliary head; this model has one; leave it out with --drop auxiliary")
    if not config.level_norm or config.level_norm_eps != 1e-6 or config.align_corners:
        raise UserError(f"{SOFTWARE} always has level_norm with 1e-6 and align_corners false; this model has not")
    if config.logits_align_corners is not True:
        raise UserError(f"{SOFTWARE} brings logits to size with align_corners true; this model has false")
    tensors = cpu_state_dict(model)
    shape = inspect_backbone(tensors, config.backbone)
    name, args = shape.identify()
    if isinstance(shape, Swin):
        if not config.backbone_args.get("shift_first"):
            raise UserError(
                f"{SOFTWARE} shifts the windows of a Swin before it pads, so that {config.backbone!r} would answer "
                "otherwise; written are ResNet, ConvNeXt, and Swin with backbone_args.shift_first"
            )
        layout = {k: v for k, v in config.backbone_args.items() if k in _WINDOW_LAYOUT}
        args |= {"always_partition": True, "strict_img_size": False, **layout}
    own = name in _OWN_ENCODERS and not args
    settings = {
        "_model_class": "UPerNet",
        "encoder_name": name if own else f"tu-{name}",
        "encoder_depth": 5,
        "encoder_weights": None,
        "decoder_channels": config.width,
        "decoder_use_norm": "batchnorm",
        "in_channels": 3,
        "classes": len(semantic.classes),
        "activation": None,
        "upsampling": 4,
        "aux_params": None,
        **args,
    }
    return (_OWN if own else _TIMM).to_theirs(tensors, config.backbone), {_CONFIG: settings}
