"""segmentation_models_pytorch from 0.5 on: a state dict, or a folder with `model.safetensors` and `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from upernet.checkpoint import plain_state
from upernet.config import InferenceConfig, ModelConfig, UserError
from upernet.dialects.backbones import family, identify
from upernet.dialects.base import Checkpoint, Reading, require_semantic, semantic_tasks
from upernet.dialects.keys import KeyTable, Row, conv_norm
from upernet.model import UPerNet
from upernet.tasks.base import Task

NAME = "smp"

_ROWS: list[Row] = [
    ("encoder.model.*", "backbone.body.*"),
    ("encoder.*", "backbone.body.*"),
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
_FROM = KeyTable(_ROWS)
_TO = KeyTable(_ROWS[1:])
_CONFIG = "config.json"


def matches(keys: set[str]) -> bool:
    """Whether these are the names of its UPerNet."""
    return "segmentation_head.0.weight" in keys and any(
        k.startswith(("decoder.fpn_lateral_blocks.", "decoder.fpn_stages.")) for k in keys
    )


def read(checkpoint: Checkpoint) -> Reading:
    """Understand a model of 0.5 or later; see `Dialect.read`."""
    where, said = checkpoint.name, checkpoint.settings.get(_CONFIG, {})
    if any(k.startswith("decoder.fpn_stages.") for k in checkpoint.tensors):
        raise UserError(f"{where}: UPerNet of segmentation_models_pytorch 0.4, another network; 0.5 and later are read")
    if said.get("activation") not in (None, "identity"):
        raise UserError(f"{where}: activation {said['activation']!r} inside the network; only logits are read, null")
    if said.get("upsampling", 4) != 4:
        raise UserError(f"{where}: upsampling {said['upsampling']!r}; only 4 is read")
    tensors = _FROM.to_ours(checkpoint.tensors, where)
    name, args, channels = identify(tensors, where)
    config = ModelConfig(
        backbone=name,
        backbone_args=args,
        width=tensors["decoder.fusion.conv.weight"].shape[0],
        logits_align_corners=True,
        level_norm=True,
    )
    tasks = semantic_tasks(tensors, channels, None, None, where, dropout=0.0)
    return Reading(config, tasks, InferenceConfig(), tensors)


def write(
    model: UPerNet, tasks: Mapping[str, Task], inference: InferenceConfig
) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """Tensors, and the JSON beside them, as `from_pretrained` of the library reads them.

    Raises:
        UserError: If it has no such network.
    """
    labels = require_semantic(model, tasks, NAME)
    config = model.config
    if "auxiliary" in tasks:
        raise UserError(f"{NAME} has no auxiliary head; this model has one; leave it out with --drop auxiliary")
    if not config.level_norm or config.level_norm_eps != 1e-6 or config.align_corners:
        raise UserError(f"{NAME} always has level_norm with 1e-6 and align_corners false; this model has not")
    if config.logits_align_corners is not True:
        raise UserError(f"{NAME} brings logits to size with align_corners true; this model has false")
    tensors = plain_state(model)
    if family(tensors) != "plain":
        raise UserError(f"{NAME}: written for ResNet with the 7×7 stem; this model has {config.backbone!r}")
    said = {
        "_model_class": "UPerNet",
        "encoder_name": config.backbone,
        "encoder_depth": 5,
        "encoder_weights": None,
        "decoder_channels": config.width,
        "decoder_use_norm": "batchnorm",
        "in_channels": 3,
        "classes": len(labels),
        "activation": None,
        "upsampling": 4,
        "aux_params": None,
    }
    return _TO.to_theirs(tensors, config.backbone), {_CONFIG: said}
