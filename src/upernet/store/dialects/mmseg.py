"""MMSegmentation 0.x and 1.x: one pickled file with `state_dict` and `meta`, whose text is the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from upernet.config import InferenceConfig, ModelConfig
from upernet.contract import Task
from upernet.errors import UserError
from upernet.model import UPerNet
from upernet.model.build import cpu_state_dict
from upernet.store.dialects.backbones import (
    ConvNeXt,
    ResNet,
    Swin,
    backbone_family,
    identify_backbone,
    inspect_backbone,
)
from upernet.store.dialects.base import (
    Checkpoint,
    Reading,
    flip_stem,
    pool_scales,
    require_semantic,
    rgb_values,
    semantic_tasks,
)
from upernet.store.dialects.config_text import read_assignments
from upernet.store.dialects.keys import KeyTable, Row
from upernet.store.dialects.swin import toolbox_merging, with_position_indices
from upernet.tasks import Semantic

NAME = "mmseg"
SOFTWARE = "MMSegmentation"

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
    ("backbone.norm{i}.{x}", "decoder.norms.{i}.{x}"),
]
_TOOLBOX_CONVNEXT: list[Row] = [
    *_CONVNEXT,
    ("backbone.stages.{i}.{j}.depthwise_conv.{x}", "backbone.body.stages_{i}.blocks.{j}.conv_dw.{x}"),
    ("backbone.stages.{i}.{j}.pointwise_conv1.{x}", "backbone.body.stages_{i}.blocks.{j}.mlp.fc1.{x}"),
    ("backbone.stages.{i}.{j}.pointwise_conv2.{x}", "backbone.body.stages_{i}.blocks.{j}.mlp.fc2.{x}"),
]
_ORIGINAL_CONVNEXT: list[Row] = [
    *_CONVNEXT,
    ("backbone.stages.{i}.{j}.dwconv.{x}", "backbone.body.stages_{i}.blocks.{j}.conv_dw.{x}"),
    ("backbone.stages.{i}.{j}.pwconv1.{x}", "backbone.body.stages_{i}.blocks.{j}.mlp.fc1.{x}"),
    ("backbone.stages.{i}.{j}.pwconv2.{x}", "backbone.body.stages_{i}.blocks.{j}.mlp.fc2.{x}"),
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
_ORIGINAL_SWIN: list[Row] = [
    ("backbone.patch_embed.proj.{x}", "backbone.body.patch_embed.proj.{x}"),
    ("backbone.patch_embed.norm.{x}", "backbone.body.patch_embed.norm.{x}"),
    *((f"backbone.layers.{i}.downsample.*", f"backbone.body.layers_{i + 1}.downsample.*") for i in (0, 1, 2)),
    ("backbone.layers.{i}.blocks.*", "backbone.body.layers_{i}.blocks.*"),
    ("backbone.norm{i}.{x}", "decoder.norms.{i}.{x}"),
]
# The last two are layouts of the backbones' authors, whose code used the toolbox's heads.
_TABLES = {
    "deep": KeyTable(_HEADS + _DEEP_STEM),
    "plain": KeyTable(_HEADS + _PLAIN_STEM),
    "convnext": KeyTable(_HEADS + _TOOLBOX_CONVNEXT),
    "swin": KeyTable(_HEADS + _SWIN, dropped=["*.attn.w_msa.relative_position_index"]),
    "original_convnext": KeyTable(_HEADS + _ORIGINAL_CONVNEXT),
    "original_swin": KeyTable(_HEADS + _ORIGINAL_SWIN, dropped=["*.attn.relative_position_index"]),
}
_MERGING = r"backbone\.body\.layers_\d\.downsample\.(reduction\.weight|norm\.(weight|bias))"
# Steps of a test pipeline that do not resize images.
_SIZELESS = ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs")
_IMAGENET = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])


def matches(keys: set[str]) -> bool:
    """Whether these are the tensor names of MMSegmentation's UPerHead."""
    return "decode_head.fpn_bottleneck.conv.weight" in keys and "decode_head.conv_seg.weight" in keys


def read(checkpoint: Checkpoint) -> Reading:
    """Interpret a file of MMSegmentation; see `Dialect.read`."""
    where, meta = checkpoint.name, checkpoint.meta
    kind = _kind(checkpoint.tensors.keys(), "backbone.")
    if kind is None:
        some = next((k for k in checkpoint.tensors if k.startswith("backbone.")), "none")
        raise UserError(f"{where}: MMSegmentation's UPerNet on a backbone that is not read yet; it holds {some!r}")
    table = _TABLES[kind]
    tensors = table.to_ours(checkpoint.tensors, where)
    if kind == "swin":  # the original merges patches as timm does
        tensors = toolbox_merging(tensors, _MERGING)
    settings = read_assignments(next((t for t in (meta.get("config"), meta.get("cfg")) if isinstance(t, str)), ""))
    model = _dict(settings.get("model"))
    head = _dict(model.get("decode_head"))
    _refuse_other_settings(where, model, kind)
    bgr, mean, std = _preprocessing(settings, model, where)
    if bgr:
        tensors = flip_stem(tensors)
    name, args, channels = identify_backbone(tensors, where, table.their_name)
    labels = _dict(meta.get("dataset_meta"))
    names, palette = labels.get("classes", meta.get("CLASSES")), labels.get("palette", meta.get("PALETTE"))
    tasks = semantic_tasks(tensors, channels, names, palette, where, level=_auxiliary_level(model, where))
    config = ModelConfig(
        backbone=name,
        backbone_args=args,
        width=tensors["decoder.fusion.conv.weight"].shape[0],
        pool_scales=pool_scales(tensors, head.get("pool_scales"), where),
        # Of the published models, those of 769×769 have it; the file name tells where there is no configuration.
        align_corners=bool(head.get("align_corners", "769x769" in Path(where).name + str(meta.get("config")))),
        level_norm=kind not in ("deep", "plain"),
        level_norm_eps=1e-5 if kind.endswith("swin") else 1e-6,
        mean=mean,
        std=std,
    )
    inference = _inference(settings, model, len(tasks["semantic"].classes), config.align_corners)
    return Reading(config, tasks, inference, tensors, table.their_name)


def write(
    model: UPerNet, tasks: Mapping[str, Task], inference: InferenceConfig
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and `meta` as MMSegmentation's `load_checkpoint` reads them; the text in it is the configuration.

    Raises:
        UserError: If MMSegmentation has no such network.
    """
    semantic, auxiliary = require_semantic(model, tasks, SOFTWARE)
    config, labels = model.config, semantic.classes
    tensors = cpu_state_dict(model)
    kind = backbone_family(tensors)
    if kind is None or (config.level_norm != (kind in ("convnext", "swin"))):
        raise UserError(
            f"{SOFTWARE} has UPerNet on ResNet, and on ConvNeXt and Swin with level_norm; this model has "
            f"{config.backbone!r} with level_norm {config.level_norm}"
        )
    if config.upsampling_align_corners != config.align_corners:
        raise UserError(f"{SOFTWARE} has one align_corners for all; this model has another for its logits")
    backbone = _backbone(inspect_backbone(tensors, config.backbone), config.backbone)
    if kind == "swin":
        tensors = toolbox_merging(tensors, _MERGING, back=True)
    theirs = _TABLES[kind].to_theirs(tensors, config.backbone)
    if kind == "swin":
        theirs = with_position_indices(theirs, ".attn.w_msa.relative_position_bias_table")
    pixels = {
        "mean": [round(v * 255, 6) for v in config.mean],
        "std": [round(v * 255, 6) for v in config.std],
        "bgr_to_rgb": True,
    }
    shared = {
        "num_classes": len(labels),
        "norm_cfg": {"type": "BN", "requires_grad": True},
        "align_corners": config.align_corners,
    }
    network: dict[str, Any] = {
        "type": "EncoderDecoder",
        "data_preprocessor": {"type": "SegDataPreProcessor", **pixels, "pad_val": 0, "seg_pad_val": 255},
        "backbone": backbone,
        "decode_head": {
            "type": "UPerHead",
            "in_channels": list(model.backbone.channels),
            "in_index": [0, 1, 2, 3],
            "pool_scales": list(config.pool_scales),
            "channels": config.width,
            "dropout_ratio": semantic.dropout,
            **shared,
        },
        "test_cfg": {"mode": "whole"}
        if inference.window is None
        else {"mode": "slide", "crop_size": inference.window, "stride": inference.stride},
    }
    if auxiliary is not None:
        network["auxiliary_head"] = _auxiliary_head(auxiliary, model.backbone.channels) | shared
    steps: list[dict[str, Any]] = [{"type": "LoadImageFromFile"}, {"type": "PackSegInputs"}]
    if inference.short_side is not None:
        box = (inference.max_side or 2048, inference.short_side)
        steps.insert(1, {"type": "Resize", "scale": box, "keep_ratio": True})
    lines = ["default_scope = 'mmseg'"]
    # Its ConvNeXt lives in another package of theirs.
    lines += ["custom_imports = {'imports': ['mmpretrain.models']}"] if kind == "convnext" else []
    lines += [f"model = {network!r}", f"test_pipeline = {steps!r}"]
    palette = [list(colour) for colour in labels.colours]
    meta = {"dataset_meta": {"classes": list(labels.names), "palette": palette}, "cfg": "\n".join(lines) + "\n"}
    return theirs, meta


def _backbone(shape: ResNet | ConvNeXt | Swin, name: str) -> dict[str, Any]:
    """The settings from which MMSegmentation builds a backbone.

    Raises:
        UserError: If it has none of this shape.
    """
    if isinstance(shape, ConvNeXt):
        arch = {"depths": shape.depths, "channels": shape.channels}
        ends = {"out_indices": [0, 1, 2, 3], "gap_before_final_norm": False}
        return {"type": "mmpretrain.ConvNeXt", "arch": arch, **ends}
    if isinstance(shape, Swin):
        windows = {"num_heads": shape.heads, "window_size": shape.window}
        return {"type": "SwinTransformer", "embed_dims": shape.channels[0], "depths": shape.depths, **windows}
    base = shape.planes[0]
    per_group = shape.widths[0] // shape.groups
    grouped = shape.groups > 1
    widths = [(per_group * shape.groups if grouped else base) * 2**n for n in range(4)]
    if shape.standard_name is None or shape.planes != [base * 2**n for n in range(4)] or shape.widths != widths:
        raise UserError(
            f"{SOFTWARE} has ResNet and ResNeXt of 18, 34, 50, 101 and 152 layers whose channels double from stage to "
            f"stage, no wide ones; this model has {name!r}; 'resnet50c' can be written"
        )
    if shape.deep and shape.stem[1] != 2 * shape.stem[0]:
        raise UserError(
            f"{SOFTWARE} has stems that double their channels; {name!r} has {shape.stem[0]}, {shape.stem[1]}"
        )
    settings = {
        "depth": int(shape.standard_name.removeprefix("resnet")),
        "stem_channels": shape.stem[1],
        "base_channels": base,
    }
    if not grouped and shape.deep:
        return {"type": "ResNetV1d" if shape.averaged else "ResNetV1c", **settings}
    settings |= {"deep_stem": shape.deep, "avg_down": shape.averaged}
    if not grouped:
        return {"type": "ResNet", **settings}
    return {"type": "ResNeXt", "groups": shape.groups, "base_width": per_group, **settings}


def _auxiliary_head(auxiliary: Semantic, channels: list[int]) -> dict[str, Any]:
    """The settings from which MMSegmentation builds an auxiliary head, without those that both heads share.

    Raises:
        UserError: If it reads the pyramid instead of the backbone.
    """
    if auxiliary.level not in ("c2", "c3", "c4", "c5"):
        raise UserError(
            f"{SOFTWARE} puts the auxiliary head on a level of the backbone, such as 'c4'; this model's reads "
            f"{auxiliary.level!r}; leave it out with --drop auxiliary"
        )
    level = int(auxiliary.level[1]) - 2
    return {
        "type": "FCNHead",
        "in_channels": channels[level],
        "in_index": level,
        "channels": auxiliary.width if auxiliary.convs else channels[level],
        "num_convs": auxiliary.convs,
        "concat_input": False,
        "dropout_ratio": auxiliary.dropout,
        "loss_decode": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": auxiliary.weight},
    }


def _auxiliary_level(model: dict[str, Any], where: str) -> int | None:
    """The level that the configuration gives the auxiliary head, 0 … 3, or none if there is no configuration.

    Raises:
        UserError: If there is no such level.
    """
    head = _dict(model.get("auxiliary_head"))
    index = head.get("in_index", -1) if head else None
    if index is not None and not (isinstance(index, int) and -4 <= index < 4):
        raise UserError(f"{where}: auxiliary_head.in_index {index!r} is not a level; valid: 2")
    return None if index is None else index % 4


def _refuse_other_settings(where: str, model: dict[str, Any], kind: str) -> None:
    """Refuse settings that no tensor shows and that are not those of our network.

    Raises:
        UserError: For the first such setting.
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
            "qk_scale": (None,),
        },
        "decode_head": {"in_index": ((0, 1, 2, 3),), "input_transform": ("multiple_select", None), "dilation": (1,)},
        "auxiliary_head": {"dilation": (1,), "align_corners": (aligned,), "kernel_size": (3,)},
    }
    for name, keys in valid.items():
        block = _dict(model.get(name))
        for key, allowed in keys.items():
            value = tuple(block[key]) if isinstance(block.get(key), list) else block.get(key)
            if value is not None and value not in allowed:
                raise UserError(f"{where}: {name}.{key} {value!r} is not run here; valid: {allowed[0]!r}")
        body = name == "backbone"
        norm, epsilon = block.get("norm_cfg"), 1e-6 if body and kind.endswith("convnext") else 1e-5
        # Whatever the layer, mmcv gives it 1e-5 where a norm_cfg says none.
        if isinstance(norm, dict) and norm.get("eps", 1e-5) != epsilon:
            raise UserError(
                f"{where}: {name}.norm_cfg.eps {norm.get('eps', 1e-5)!r} is not run here; valid: {epsilon!r}"
            )
        # An explicit None leaves the activation out.
        act, activation = block.get("act_cfg", {}), "GELU" if body and kind not in ("deep", "plain") else "ReLU"
        found = act.get("type", activation) if isinstance(act, dict) else act
        if found != activation:
            raise UserError(f"{where}: {name}.act_cfg {found!r} is not run here; valid: {activation!r}")


def _kind(keys: Any, prefix: str) -> str | None:
    signs = {
        "deep": "stem.0.weight",
        "plain": "conv1.weight",
        "convnext": "stages.0.0.depthwise_conv.weight",
        "swin": "stages.0.blocks.0.attn.w_msa.qkv.weight",
        "original_convnext": "stages.0.0.dwconv.weight",
        "original_swin": "layers.0.blocks.0.attn.qkv.weight",
    }
    return next((kind for kind, sign in signs.items() if prefix + sign in keys), None)


def _preprocessing(
    settings: dict[str, Any], model: dict[str, Any], where: str
) -> tuple[bool, tuple[float, float, float], tuple[float, float, float]]:
    """Whether the network sees BGR, and mean and standard deviation of RGB in [0, 1].

    Raises:
        UserError: If they are no such numbers.
    """
    for name, block in (
        ("model.data_preprocessor", _dict(model.get("data_preprocessor"))),
        ("data_preprocessor", _dict(settings.get("data_preprocessor"))),
        ("img_norm_cfg", {"to_rgb": True} | _dict(settings.get("img_norm_cfg"))),
    ):
        mean, std = block.get("mean"), block.get("std")
        if _is_read(mean) and _is_read(std):
            mean, std = rgb_values(mean, f"{name}.mean", where, 255), rgb_values(std, f"{name}.std", where, 255, low=0)
            # Images are read as BGR there, and turned by any of these, whatever its name says.
            bgr = not any(block.get(flag) for flag in ("bgr_to_rgb", "rgb_to_bgr", "to_rgb"))
            return bgr, *((mean[::-1], std[::-1]) if bgr else (mean, std))
    mean, std = _IMAGENET
    return False, rgb_values(mean, "mean", where, 255), rgb_values(std, "std", where, 255)


def _inference(settings: dict[str, Any], model: dict[str, Any], classes: int, aligned: bool) -> InferenceConfig:
    """Sizes and windows of the test pipeline, else those of the published recipes for as many classes.

    A `Resize` that does not keep the aspect stretches images there, which is never done here. The shorter side of its
    box is used.
    """
    box: Any = (2049, 1025) if aligned and classes == 19 else (2048, 1024) if classes == 19 else (2048, 512)
    steps = _steps(settings.get("test_pipeline"))
    for step in steps:
        found = step.get("img_scale") or step.get("scale")
        if _pair(found):
            box = found
            break
    own_size = steps and all(step.get("type") in _SIZELESS for step in steps)
    # In 1.x, where it holds the scale itself, it stretches unless told otherwise.
    resize = next((step for step in steps if step.get("type") == "Resize"), {})
    stretched = resize and not resize.get("keep_ratio", "scale" not in resize)
    test = _dict(model.get("test_cfg")) or _dict(settings.get("test_cfg"))
    window, stride = test.get("crop_size"), test.get("stride")
    if test.get("mode") != "slide" or not (_pair(window) and _pair(stride)):
        published = aligned and classes == 19 and not test
        window, stride = ((769, 769), (513, 513)) if published else (None, None)
    return InferenceConfig(
        short_side=None if own_size else min(box),
        max_side=2048 if own_size else max(*box, 2048) if stretched and box[0] == box[1] else max(box),
        window=None if window is None else (window[0], window[1]),
        stride=None if stride is None else (stride[0], stride[1]),
    )


def _pair(value: Any) -> bool:
    """Whether this is a height and width."""
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(v, int) and v >= 32 for v in value)


def _is_read(value: Any) -> bool:
    """Whether a value was read completely. An expression that is no literal reads as none."""
    return value is not None and not (isinstance(value, (list, tuple)) and any(v is None for v in value))


def _steps(pipeline: Any) -> list[dict[str, Any]]:
    steps = [_dict(step) for step in pipeline] if isinstance(pipeline, (list, tuple)) else []
    return steps + [inner for step in steps for inner in _steps(step.get("transforms"))]


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
