"""MMSegmentation 0.x and 1.x: one pickled file with `state_dict` and `meta`, whose text is the configuration."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from upernet.checkpoint import plain_state
from upernet.config import InferenceConfig, ModelConfig, UserError
from upernet.dialects.backbones import family, identify
from upernet.dialects.base import Checkpoint, Reading, flip_stem, pool_scales, require_semantic, semantic_tasks, three
from upernet.dialects.keys import KeyTable, Row
from upernet.dialects.swin import toolbox_merging, with_position_indices
from upernet.model import UPerNet
from upernet.tasks.base import Task

NAME = "mmseg"

_HEADS: list[Row] = [
    ("decode_head.psp_modules.{i}.1.*", "decoder.ppm.branches.{i}.*"),
    ("decode_head.bottleneck.*", "decoder.ppm.out.*"),
    ("decode_head.lateral_convs.*", "decoder.lateral.*"),
    ("decode_head.fpn_convs.*", "decoder.smooth.*"),
    ("decode_head.fpn_bottleneck.*", "decoder.fusion.*"),
    ("decode_head.conv_seg.*", "heads.semantic.classifier.*"),
    ("auxiliary_head.convs.*", "heads.auxiliary.convs.*"),
    ("auxiliary_head.conv_seg.*", "heads.auxiliary.classifier.*"),
]
_DEEP_STEM: list[Row] = [
    ("backbone.stem.7.*", "backbone.body.bn1.*"),
    ("backbone.stem.*", "backbone.body.conv1.*"),
    ("backbone.layer*", "backbone.body.layer*"),
]
_PLAIN_STEM: list[Row] = [
    ("backbone.conv1.*", "backbone.body.conv1.*"),
    ("backbone.bn1.*", "backbone.body.bn1.*"),
    ("backbone.layer*", "backbone.body.layer*"),
]
_CONVNEXT: list[Row] = [
    ("backbone.downsample_layers.0.{i}.{x}", "backbone.body.stem_{i}.{x}"),
    *((f"backbone.downsample_layers.{i}.*", f"backbone.body.stages_{i}.downsample.*") for i in (1, 2, 3)),
    ("backbone.stages.{i}.{j}.gamma", "backbone.body.stages_{i}.blocks.{j}.gamma"),
    ("backbone.stages.{i}.{j}.norm.{x}", "backbone.body.stages_{i}.blocks.{j}.norm.{x}"),
    ("backbone.stages.{i}.{j}.depthwise_conv.{x}", "backbone.body.stages_{i}.blocks.{j}.conv_dw.{x}"),
    ("backbone.stages.{i}.{j}.pointwise_conv1.{x}", "backbone.body.stages_{i}.blocks.{j}.mlp.fc1.{x}"),
    ("backbone.stages.{i}.{j}.pointwise_conv2.{x}", "backbone.body.stages_{i}.blocks.{j}.mlp.fc2.{x}"),
    ("backbone.norm{i}.{x}", "decoder.norms.{i}.{x}"),
]
_BLOCK, _OUR_BLOCK = "backbone.stages.{i}.blocks.{j}", "backbone.body.layers_{i}.blocks.{j}"
_SWIN: list[Row] = [
    ("backbone.patch_embed.projection.{x}", "backbone.body.patch_embed.proj.{x}"),
    ("backbone.patch_embed.norm.{x}", "backbone.body.patch_embed.norm.{x}"),
    *((f"backbone.stages.{i}.downsample.*", f"backbone.body.layers_{i + 1}.downsample.*") for i in (0, 1, 2)),
    (f"{_BLOCK}.attn.w_msa.*", f"{_OUR_BLOCK}.attn.*"),
    (f"{_BLOCK}.ffn.layers.0.0.{{x}}", f"{_OUR_BLOCK}.mlp.fc1.{{x}}"),
    (f"{_BLOCK}.ffn.layers.1.{{x}}", f"{_OUR_BLOCK}.mlp.fc2.{{x}}"),
    (f"{_BLOCK}.norm1.{{x}}", f"{_OUR_BLOCK}.norm1.{{x}}"),
    (f"{_BLOCK}.norm2.{{x}}", f"{_OUR_BLOCK}.norm2.{{x}}"),
    ("backbone.norm{i}.{x}", "decoder.norms.{i}.{x}"),
]
_TABLES = {
    "deep": KeyTable(_HEADS + _DEEP_STEM),
    "plain": KeyTable(_HEADS + _PLAIN_STEM),
    "convnext": KeyTable(_HEADS + _CONVNEXT),
    "swin": KeyTable(_HEADS + _SWIN, dropped=["*.attn.w_msa.relative_position_index"]),
}
_TYPES = {"deep": "ResNetV1c", "plain": "ResNet", "convnext": "mmpretrain.ConvNeXt", "swin": "SwinTransformer"}
"""Enough for a reader to know the network by; what of it the tensors show is not repeated."""
_MERGING = r"backbone\.body\.layers_\d\.downsample\.(reduction\.weight|norm\.(weight|bias))"
_IMAGENET = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])


def matches(keys: set[str]) -> bool:
    """Whether these are the names of the toolbox's UPerHead."""
    return "decode_head.fpn_bottleneck.conv.weight" in keys and "decode_head.conv_seg.weight" in keys


def read(checkpoint: Checkpoint) -> Reading:
    """Understand a file of the toolbox; see `Dialect.read`."""
    where, meta = checkpoint.name, checkpoint.meta
    kind = _kind(checkpoint.tensors.keys(), "backbone.")
    if kind is None:
        some = next((k for k in checkpoint.tensors if k.startswith("backbone.")), "none")
        raise UserError(f"{where}: a UPerNet of the toolbox on a backbone that is not read yet; it holds {some!r}")
    tensors = _TABLES[kind].to_ours(checkpoint.tensors, where)
    if kind == "swin":
        tensors = toolbox_merging(tensors, _MERGING)
    said = _settings(next((t for t in (meta.get("config"), meta.get("cfg")) if isinstance(t, str)), ""))
    model = _dict(said.get("model"))
    head = _dict(model.get("decode_head"))
    _refuse_other_settings(where, model)
    bgr, mean, std = _preprocessing(said, model)
    if bgr:
        tensors = flip_stem(tensors)
        mean, std = mean[::-1], std[::-1]
    name, args, channels = identify(tensors, where)
    labels = _dict(meta.get("dataset_meta"))
    names = labels.get("classes", meta.get("CLASSES"))
    tasks = semantic_tasks(tensors, channels, names, labels.get("palette", meta.get("PALETTE")), where)
    config = ModelConfig(
        backbone=name,
        backbone_args=args,
        width=tensors["decoder.fusion.conv.weight"].shape[0],
        pool_scales=pool_scales(tensors, head.get("pool_scales"), where),
        # The rows of 769×769 are the published ones with it; their names say so where no configuration does.
        align_corners=bool(head.get("align_corners", "769x769" in Path(where).name + str(meta.get("config")))),
        level_norm=kind in ("convnext", "swin"),
        level_norm_eps=1e-5 if kind == "swin" else 1e-6,
        mean=three(mean, 255),
        std=three(std, 255),
    )
    inference = _inference(said, model, len(tasks["semantic"].classes), config.align_corners)
    return Reading(config, tasks, inference, tensors)


def write(
    model: UPerNet, tasks: Mapping[str, Task], inference: InferenceConfig
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and `meta` as the toolbox's `load_checkpoint` reads them; its text says what the tensors do not.

    Raises:
        UserError: If the toolbox has no such network.
    """
    labels = require_semantic(model, tasks, NAME)
    config = model.config
    tensors = plain_state(model)
    kind = family(tensors)
    if kind is None or (config.level_norm != (kind in ("convnext", "swin"))):
        raise UserError(
            f"{NAME} has UPerNet on ResNet, and on ConvNeXt and Swin with level_norm; this model has "
            f"{config.backbone!r} with level_norm {config.level_norm}"
        )
    if config.corners_of_logits != config.align_corners:
        raise UserError(f"{NAME} has one align_corners for all; this model has another for its logits")
    if kind == "swin":
        tensors = toolbox_merging(tensors, _MERGING, back=True)
    tensors = _TABLES[kind].to_theirs(tensors, config.backbone)
    if kind == "swin":
        tensors = with_position_indices(tensors, ".attn.w_msa.relative_position_bias_table")
    box = (inference.max_side or 2048, inference.short_side or 512)
    said = {
        "mean": [round(v * 255, 6) for v in config.mean],
        "std": [round(v * 255, 6) for v in config.std],
        "bgr_to_rgb": True,
    }
    depth = re.fullmatch(r"resnet(\d+)[a-z]?", config.backbone)
    head = {
        "type": "UPerHead",
        "in_channels": list(model.backbone.channels),
        "in_index": [0, 1, 2, 3],
        "pool_scales": list(config.pool_scales),
        "channels": config.width,
        "num_classes": len(labels),
        "align_corners": config.align_corners,
    }
    network = {
        "type": "EncoderDecoder",
        "data_preprocessor": {"type": "SegDataPreProcessor", **said},
        "backbone": {"type": _TYPES[kind]} | ({"depth": int(depth[1])} if depth else {}),
        "decode_head": head,
        "test_cfg": {"mode": "whole"}
        if inference.window is None
        else {"mode": "slide", "crop_size": inference.window, "stride": inference.stride},
    }
    resize = {"type": "Resize", "scale": box, "keep_ratio": True}
    text = f"model = {network!r}\ntest_pipeline = [{resize!r}]\n"
    palette = [list(colour) for colour in labels.colours]
    return tensors, {"dataset_meta": {"classes": list(labels.names), "palette": palette}, "cfg": text}


def _refuse_other_settings(where: str, model: dict[str, Any]) -> None:
    """Settings that no tensor shows must be the ones run here.

    Raises:
        UserError: If one is not.
    """
    head = _dict(model.get("decode_head"))
    aligned = bool(head.get("align_corners", False))
    valid: dict[str, dict[str, tuple[Any, ...]]] = {
        "backbone": {
            "style": ("pytorch",),
            "strides": ((1, 2, 2, 2), (4, 2, 2, 2)),
            "dilations": ((1, 1, 1, 1),),
            "dilation": (1,),
            "norm_eval": (False, True),
        },
        "decode_head": {"in_index": ((0, 1, 2, 3),), "input_transform": ("multiple_select", None), "dilation": (1,)},
        "auxiliary_head": {"in_index": (2,), "dilation": (1,), "align_corners": (aligned,), "kernel_size": (3,)},
    }
    for name, settings in valid.items():
        block = _dict(model.get(name))
        for key, allowed in settings.items():
            value = tuple(block[key]) if isinstance(block.get(key), list) else block.get(key)
            if value is not None and value not in allowed:
                raise UserError(f"{where}: {name}.{key} {value!r} is not run here; valid: {allowed[0]!r}")
        eps = _dict(block.get("norm_cfg")).get("eps", 1e-5)
        batch_norm = _dict(block.get("norm_cfg")).get("type", "BN") in ("BN", "SyncBN")
        if batch_norm and eps != 1e-5:
            raise UserError(f"{where}: {name}.norm_cfg.eps {eps!r} is not run here; valid: 1e-05")
        act = _dict(block.get("act_cfg")).get("type")
        if act not in (None, "GELU" if name == "backbone" and "depth" not in block else "ReLU"):
            raise UserError(
                f"{where}: {name}.act_cfg {act!r} is not run here; valid: 'ReLU', or 'GELU' in ConvNeXt and Swin"
            )


def _kind(keys: Any, prefix: str) -> str | None:
    signs = {
        "deep": "stem.0.weight",
        "plain": "conv1.weight",
        "convnext": "downsample_layers.0.0.weight",
        "swin": "stages.0.blocks.0.attn.w_msa.qkv.weight",
    }
    return next((kind for kind, sign in signs.items() if prefix + sign in keys), None)


def _preprocessing(said: dict[str, Any], model: dict[str, Any]) -> tuple[bool, list[float], list[float]]:
    """Whether the network sees BGR, and mean and standard deviation in its order on 0 … 255."""
    for block, flag in (
        (_dict(model.get("data_preprocessor")), "bgr_to_rgb"),
        (_dict(said.get("data_preprocessor")), "bgr_to_rgb"),
        (_dict(said.get("img_norm_cfg")), "to_rgb"),
    ):
        mean, std = block.get("mean"), block.get("std")
        if _colour(mean) and _colour(std):
            return not block.get(flag, flag == "to_rgb"), list(three(mean)), list(three(std))
    return False, *_IMAGENET


def _inference(said: dict[str, Any], model: dict[str, Any], classes: int, aligned: bool) -> InferenceConfig:
    """The test pipeline's box and windows; else those of the data set with so many classes in the published recipes."""
    box: Any = (2049, 1025) if aligned and classes == 19 else (2048, 1024) if classes == 19 else (2048, 512)
    for step in _steps(said.get("test_pipeline")):
        found = step.get("img_scale") or step.get("scale")
        if _pair(found):
            box = found
            break
    test = _dict(model.get("test_cfg")) or _dict(said.get("test_cfg"))
    window, stride = test.get("crop_size"), test.get("stride")
    if test.get("mode") != "slide" or not (_pair(window) and _pair(stride)):
        published = aligned and classes == 19 and not test
        window, stride = ((769, 769), (513, 513)) if published else (None, None)
    return InferenceConfig(
        short_side=min(box),
        max_side=max(box),
        window=None if window is None else (window[0], window[1]),
        stride=None if stride is None else (stride[0], stride[1]),
    )


def _pair(value: Any) -> bool:
    """Whether this is a height and width."""
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(v, int) and v >= 32 for v in value)


def _colour(value: Any) -> bool:
    """Whether these are three numbers."""
    return isinstance(value, (list, tuple)) and len(value) == 3 and all(isinstance(v, (int, float)) for v in value)


def _steps(pipeline: Any) -> list[dict[str, Any]]:
    steps = [_dict(step) for step in pipeline] if isinstance(pipeline, (list, tuple)) else []
    return steps + [inner for step in steps for inner in _steps(step.get("transforms"))]


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _settings(text: str) -> dict[str, Any]:
    """The top-level assignments of a configuration, read as text: nothing in it is run."""
    try:
        tree = ast.parse(text[:1_000_000])
        return {
            target.id: _literal(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}


def _literal(node: ast.expr) -> Any:
    """A value made of literals and `dict(…)`; anything else is none."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {k.arg: _literal(k.value) for k in node.keywords if k.arg}
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {k.value: _literal(v) for k, v in pairs if isinstance(k, ast.Constant)}
    if isinstance(node, (ast.List, ast.Tuple)):
        values = [_literal(v) for v in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return None
