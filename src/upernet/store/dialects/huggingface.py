"""Hugging Face `UperNetForSemanticSegmentation` on ResNet, ConvNeXt and Swin: a folder of tensors and `config.json`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from upernet.config import InferenceConfig, ModelConfig
from upernet.contract import Task
from upernet.errors import UserError, WorkError
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
    pool_scales,
    require_semantic,
    rgb_values,
    semantic_tasks,
    warn,
)
from upernet.store.dialects.keys import KeyTable, Row, conv_norm
from upernet.store.dialects.swin import join_attention, split_attention, with_position_indices

NAME = "huggingface"
SOFTWARE = "Hugging Face"

_HEADS: list[Row] = [
    *conv_norm("decode_head.psp_modules.{i}.1", "decoder.ppm.branches.{i}", "conv", "batch_norm"),
    *conv_norm("decode_head.bottleneck", "decoder.ppm.out", "conv", "batch_norm"),
    *conv_norm("decode_head.lateral_convs.{i}", "decoder.lateral.{i}", "conv", "batch_norm"),
    *conv_norm("decode_head.fpn_convs.{i}", "decoder.smooth.{i}", "conv", "batch_norm"),
    *conv_norm("decode_head.fpn_bottleneck", "decoder.fusion", "conv", "batch_norm"),
    ("decode_head.classifier.{x}", "heads.semantic.classifier.{x}"),
    *conv_norm("auxiliary_head.convs.{i}", "heads.auxiliary.convs.{i}", "conv", "batch_norm"),
    ("auxiliary_head.classifier.{x}", "heads.auxiliary.classifier.{x}"),
    # Theirs count from one here, and from zero everywhere else.
    *((f"backbone.hidden_states_norms.stage{i + 1}.{{x}}", f"decoder.norms.{i}.{{x}}") for i in range(4)),
]


def _resnet_rows() -> list[Row]:
    rows: list[Row] = [
        ("backbone.embedder.embedder.convolution.{x}", "backbone.body.conv1.{x}"),
        ("backbone.embedder.embedder.normalization.{x}", "backbone.body.bn1.{x}"),
    ]
    for stage in range(4):
        theirs, ours = f"backbone.encoder.stages.{stage}.layers.{{j}}", f"backbone.body.layer{stage + 1}.{{j}}"
        rows += [
            (f"{theirs}.shortcut.convolution.{{x}}", f"{ours}.downsample.0.{{x}}"),
            (f"{theirs}.shortcut.normalization.{{x}}", f"{ours}.downsample.1.{{x}}"),
        ]
        for k in range(3):
            rows += [
                (f"{theirs}.layer.{k}.convolution.{{x}}", f"{ours}.conv{k + 1}.{{x}}"),
                (f"{theirs}.layer.{k}.normalization.{{x}}", f"{ours}.bn{k + 1}.{{x}}"),
            ]
    return rows


_LAYER, _OUR_LAYER = "backbone.encoder.stages.{i}.layers.{j}", "backbone.body.stages_{i}.blocks.{j}"
_CONVNEXT: list[Row] = [
    ("backbone.embeddings.patch_embeddings.{x}", "backbone.body.stem_0.{x}"),
    ("backbone.embeddings.layernorm.{x}", "backbone.body.stem_1.{x}"),
    ("backbone.encoder.stages.{i}.downsampling_layer.*", "backbone.body.stages_{i}.downsample.*"),
    (f"{_LAYER}.layer_scale_parameter", f"{_OUR_LAYER}.gamma"),
    (f"{_LAYER}.dwconv.{{x}}", f"{_OUR_LAYER}.conv_dw.{{x}}"),
    (f"{_LAYER}.layernorm.{{x}}", f"{_OUR_LAYER}.norm.{{x}}"),
    (f"{_LAYER}.pwconv1.{{x}}", f"{_OUR_LAYER}.mlp.fc1.{{x}}"),
    (f"{_LAYER}.pwconv2.{{x}}", f"{_OUR_LAYER}.mlp.fc2.{{x}}"),
]
_BLOCK, _OUR_BLOCK = "backbone.encoder.layers.{i}.blocks.{j}", "backbone.body.layers_{i}.blocks.{j}"
_SWIN: list[Row] = [
    ("backbone.embeddings.patch_embeddings.projection.{x}", "backbone.body.patch_embed.proj.{x}"),
    ("backbone.embeddings.norm.{x}", "backbone.body.patch_embed.norm.{x}"),
    *((f"backbone.encoder.layers.{i}.downsample.*", f"backbone.body.layers_{i + 1}.downsample.*") for i in range(3)),
    (f"{_BLOCK}.layernorm_before.{{x}}", f"{_OUR_BLOCK}.norm1.{{x}}"),
    (f"{_BLOCK}.layernorm_after.{{x}}", f"{_OUR_BLOCK}.norm2.{{x}}"),
    (f"{_BLOCK}.attention.self.qkv.{{x}}", f"{_OUR_BLOCK}.attn.qkv.{{x}}"),
    (
        f"{_BLOCK}.attention.self.relative_position_bias_table",
        f"{_OUR_BLOCK}.attn.relative_position_bias_table",
    ),
    (f"{_BLOCK}.attention.output.dense.{{x}}", f"{_OUR_BLOCK}.attn.proj.{{x}}"),
    (f"{_BLOCK}.intermediate.dense.{{x}}", f"{_OUR_BLOCK}.mlp.fc1.{{x}}"),
    (f"{_BLOCK}.output.dense.{{x}}", f"{_OUR_BLOCK}.mlp.fc2.{{x}}"),
]
_TABLES = {
    "resnet": KeyTable(_HEADS + _resnet_rows()),
    "convnext": KeyTable(_HEADS + _CONVNEXT),
    # The final norm is for classification; no level of the pyramid passes through it.
    "swin": KeyTable(_HEADS + _SWIN, dropped=["*.relative_position_index", "backbone.layernorm.{x}"]),
}
_QKV = ("query", "key", "value")
# Names of modules in transformers 5, and the names in files on the hub.
_NEWER = (
    (r"^backbone\.swin\.", "backbone."),
    (r"\.attention\.q_proj\.", ".attention.self.query."),
    (r"\.attention\.k_proj\.", ".attention.self.key."),
    (r"\.attention\.v_proj\.", ".attention.self.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.attention\.relative_position_bias\.", ".attention.self."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)
_CONFIG, _PREPROCESSOR = "config.json", "preprocessor_config.json"


def matches(keys: set[str]) -> bool:
    """Whether these are the tensor names of its UperNet."""
    return "decode_head.fpn_bottleneck.conv.weight" in keys and "decode_head.classifier.weight" in keys


def read(checkpoint: Checkpoint) -> Reading:
    """Interpret a folder or a state dict; see `Dialect.read`."""
    where, settings = checkpoint.name, checkpoint.settings.get(_CONFIG, {})
    prepared = checkpoint.settings.get(_PREPROCESSOR, {})
    theirs = {_hub_name(k): v for k, v in checkpoint.tensors.items()}
    if len(theirs) < len(checkpoint.tensors):
        raise WorkError(f"{where}: holds tensors under their older and their newer names at once; one of them is valid")
    kind = _kind(theirs.keys())
    if kind is None:
        some = next((k for k in theirs if k.startswith("backbone.")), "none")
        raise UserError(
            f"{where}: UperNet on a backbone that is not read; it holds {some!r}; ResNet, ConvNeXt, Swin are"
        )
    found = settings.get("backbone_config")
    body: dict[str, Any] = found if isinstance(found, dict) else {}
    if body.get("downsample_in_bottleneck") or body.get("downsample_in_first_stage"):
        raise UserError(f"{where}: its ResNet strides elsewhere (downsample_in_…); only the usual one, false, is read")
    # ConvNeXt's norms in use have 1e-6 whatever its settings say.
    valid = {"hidden_act": "relu" if kind == "resnet" else "gelu"} | (
        {"layer_norm_eps": 1e-5} if kind == "swin" else {}
    )
    for key, value in valid.items():
        if body.get(key, value) != value:
            raise UserError(f"{where}: backbone_config.{key} {body[key]!r} is not run here; valid: {value!r}")
    table = _TABLES[kind]
    tensors = table.to_ours(join_attention(theirs, _QKV, "qkv") if kind == "swin" else theirs, where)

    def named(ours: str) -> str:
        return table.their_name(ours).replace(".self.qkv.", ".self.{query,key,value}.")

    name, args, channels = identify_backbone(tensors, where, named)
    mean, std = _normalisation(prepared, where)
    config = ModelConfig(
        backbone=name,
        backbone_args=args,
        width=tensors["decoder.fusion.conv.weight"].shape[0],
        pool_scales=pool_scales(tensors, settings.get("pool_scales"), where),
        level_norm=kind != "resnet",
        level_norm_eps=1e-5 if kind == "swin" else 1e-6,
        mean=mean,
        std=std,
    )
    names = _names(settings.get("id2label"), tensors["heads.semantic.classifier.weight"].shape[0])
    # Their auxiliary head reads the third stage whatever auxiliary_in_channels is.
    tasks = semantic_tasks(tensors, channels, names, None, where, dropout=0.0, level=2)
    return Reading(config, tasks, _inference(prepared, where), tensors, named)


def _names(id2label: Any, count: int) -> list[str] | None:
    """Class names by id, or none if they are the library's default names."""
    if not isinstance(id2label, dict):
        return None
    names = [str(id2label.get(str(i), f"class {i}")) for i in range(count)]
    silent = all(name in (f"LABEL_{i}", f"class {i}") for i, name in enumerate(names))
    return None if silent else names


def _normalisation(
    prepared: Mapping[str, Any], where: str
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation for images in [0, 1]. The library's are for pixels times `rescale_factor`."""
    factor = prepared.get("rescale_factor", 1 / 255) if prepared.get("do_rescale", True) else 1
    if not isinstance(factor, (int, float)) or not 0 < factor < math.inf:
        raise UserError(f"{where}: {_PREPROCESSOR} rescale_factor {factor!r} is no positive number; such as {1 / 255}")
    if prepared.get("do_normalize") is False:
        return (0.0, 0.0, 0.0), (1 / (255 * factor),) * 3
    values: dict[str, Any] = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
    for key in values:
        value = prepared.get(key)
        if value is not None:
            values[key] = (value,) * 3 if isinstance(value, (int, float)) else value
    mean = rgb_values(values["image_mean"], f"{_PREPROCESSOR} image_mean", where, 255 * factor)
    return mean, rgb_values(values["image_std"], f"{_PREPROCESSOR} image_std", where, 255 * factor, low=0)


def _inference(prepared: Mapping[str, Any], where: str) -> InferenceConfig:
    """The size to which their processor resizes images, as a length of the shorter side.

    `{height, width}` stretches images there and keeps their aspect here, so that only images of that aspect are resized
    alike. A size that is neither that nor `{shortest_edge}` is left out with a warning.
    """
    if prepared.get("do_resize") is False:
        return InferenceConfig()
    given = prepared.get("size")
    if given is None or isinstance(given, int):
        size: Any = {"shortest_edge": 512 if given is None else given}
    else:
        size = given
    sides = {k: v for k, v in size.items() if v is not None} if isinstance(size, dict) else {}
    known = sides.keys() in ({"height", "width"}, {"shortest_edge"}, {"shortest_edge", "longest_edge"})
    if not known or not all(isinstance(v, int) and v >= 32 for v in sides.values()):
        warn(
            f"{where}: {_PREPROCESSOR} size {given!r} is left out, images keep their own; valid: "
            "{'height': 512, 'width': 512} or {'shortest_edge': 512}, from 32 pixels"
        )
        return InferenceConfig()
    short, long = min(sides.values()), max(sides.values())
    return InferenceConfig(short_side=short, max_side=long if long > short else max(2048, short))


def write(
    model: UPerNet, tasks: Mapping[str, Task], inference: InferenceConfig
) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """The tensors and the JSON files that `from_pretrained` of the library reads.

    Raises:
        UserError: If the library has no such network.
    """
    semantic, auxiliary = require_semantic(model, tasks, SOFTWARE)
    config, names = model.config, semantic.classes.names
    if config.align_corners or model.upsampling_align_corners:
        raise UserError(f"{SOFTWARE} has align_corners false everywhere; this model has true")
    tensors = cpu_state_dict(model)
    own = backbone_family(tensors)
    kind = "resnet" if own == "plain" else own if own in _TABLES else None
    if kind is None or config.level_norm != (kind != "resnet"):
        raise UserError(
            f"{SOFTWARE} has UPerNet on ResNet with the 7×7 stem, and on ConvNeXt and Swin with level_norm; this model "
            f"has {config.backbone!r} with level_norm {config.level_norm}"
        )
    backbone = _backbone_config(inspect_backbone(tensors, config.backbone), config.backbone)
    theirs = _TABLES[kind].to_theirs(tensors, config.backbone)
    if kind == "swin":
        theirs = split_attention(theirs, _QKV, "qkv")
        theirs = with_position_indices(theirs, ".attention.self.relative_position_bias_table")
    settings: dict[str, Any] = {
        "architectures": ["UperNetForSemanticSegmentation"],
        "model_type": "upernet",
        "backbone_config": backbone,
        "hidden_size": config.width,
        "pool_scales": list(config.pool_scales),
        "use_auxiliary_head": auxiliary is not None,
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }
    if auxiliary is not None:
        if auxiliary.level != "c4":
            raise UserError(f"{SOFTWARE} puts the auxiliary head on 'c4'; this model's reads {auxiliary.level!r}")
        settings |= {
            "auxiliary_in_channels": model.backbone.channels[2],
            "auxiliary_channels": tensors["heads.auxiliary.classifier.weight"].shape[1],
            "auxiliary_num_convs": auxiliary.convs,
            "auxiliary_concat_input": False,
            "auxiliary_loss_weight": auxiliary.weight,
        }
    side = inference.short_side
    prepared = {
        "image_processor_type": "SegformerImageProcessor",
        **({"do_resize": False} if side is None else {"do_resize": True, "size": {"height": side, "width": side}}),
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": list(config.mean),
        "image_std": list(config.std),
        "do_reduce_labels": len(names) == 150,
    }
    return theirs, {_CONFIG: settings, _PREPROCESSOR: prepared}


def _backbone_config(shape: ResNet | ConvNeXt | Swin, name: str) -> dict[str, Any]:
    """The settings from which the library builds a backbone.

    Raises:
        UserError: If it is a ResNet with groups, other widths, or averaging shortcuts.
    """
    out = {"depths": shape.depths, "out_features": ["stage1", "stage2", "stage3", "stage4"]}
    if isinstance(shape, ResNet):
        if shape.widths != shape.planes or shape.groups != 1 or shape.averaged:
            raise UserError(
                f"{SOFTWARE} has plain ResNet blocks only, no ResNeXt, no wide ones and no averaging shortcuts; this "
                f"model has {name!r}; 'resnet50' can be written"
            )
        layer = "bottleneck" if shape.bottleneck else "basic"
        stem = {"embedding_size": shape.stem[1], "hidden_sizes": shape.channels, "layer_type": layer}
        return {"model_type": "resnet", **stem, **out}
    if isinstance(shape, ConvNeXt):
        return {"model_type": "convnext", "hidden_sizes": shape.channels, **out}
    windows = {"embed_dim": shape.channels[0], "num_heads": shape.heads, "window_size": shape.window}
    return {"model_type": "swin", **windows, **out}


def _hub_name(key: str) -> str:
    """The name that files on the hub give to a tensor, from its newer or its older name."""
    if ".blocks." in key or key.startswith("backbone.swin."):
        for newer, older in _NEWER:
            key = re.sub(newer, older, key)
    return key


def _kind(keys: Any) -> str | None:
    signs = {
        "resnet": "backbone.embedder.embedder.convolution.weight",
        "convnext": "backbone.encoder.stages.0.layers.0.dwconv.weight",
        "swin": "backbone.encoder.layers.0.blocks.0.attention.self.query.weight",
    }
    return next((kind for kind, sign in signs.items() if sign in keys), None)
