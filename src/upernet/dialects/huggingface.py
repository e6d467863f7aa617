"""Hugging Face `UperNetForSemanticSegmentation` on ResNet, ConvNeXt and Swin: a folder of tensors and `config.json`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from upernet.checkpoint import plain_state
from upernet.config import InferenceConfig, ModelConfig, UserError
from upernet.dialects.backbones import family, identify
from upernet.dialects.base import Checkpoint, Reading, pool_scales, require_semantic, semantic_tasks, three
from upernet.dialects.keys import KeyTable, Row, conv_norm
from upernet.dialects.swin import join_attention, split_attention, with_position_indices
from upernet.model import UPerNet
from upernet.tasks.base import Task

NAME = "huggingface"

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
    # The final norm serves classifiers; no level of the pyramid passes it.
    "swin": KeyTable(_HEADS + _SWIN, dropped=["*.relative_position_index", "backbone.layernorm.{x}"]),
}
_QKV = ("query", "key", "value")
# Names in the memory of transformers 5 to those of the files on the hub.
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
    """Whether these are the names of its UperNet."""
    return "decode_head.fpn_bottleneck.conv.weight" in keys and "decode_head.classifier.weight" in keys


def read(checkpoint: Checkpoint) -> Reading:
    """Understand a folder or a state dict of it; see `Dialect.read`."""
    where, said = checkpoint.name, checkpoint.settings.get(_CONFIG, {})
    prepared = checkpoint.settings.get(_PREPROCESSOR, {})
    theirs = {_hub_name(k): v for k, v in checkpoint.tensors.items()}
    kind = _kind(theirs.keys())
    if kind is None:
        some = next((k for k in theirs if k.startswith("backbone.")), "none")
        raise UserError(
            f"{where}: UperNet on a backbone that is not read; it holds {some!r}; ResNet, ConvNeXt, Swin are"
        )
    found = said.get("backbone_config")
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
    if prepared.get("do_normalize") is False:
        raise UserError(f"{where}: {_PREPROCESSOR} has do_normalize false; only images that are normalised are read")
    tensors = _TABLES[kind].to_ours(join_attention(theirs, _QKV, "qkv") if kind == "swin" else theirs, where)
    name, args, channels = identify(tensors, where)
    classes = tensors["heads.semantic.classifier.weight"].shape[0]
    names = said.get("id2label")
    listed = [names.get(str(i)) for i in range(classes)] if isinstance(names, dict) else None
    # Their default names say nothing.
    listed = None if listed is None or listed[0] in (None, "LABEL_0") else listed
    config = ModelConfig(
        backbone=name,
        backbone_args=args,
        width=tensors["decoder.fusion.conv.weight"].shape[0],
        pool_scales=pool_scales(tensors, said.get("pool_scales"), where),
        level_norm=kind != "resnet",
        level_norm_eps=1e-5 if kind == "swin" else 1e-6,
        mean=three(prepared.get("image_mean") or (0.485, 0.456, 0.406)),
        std=three(prepared.get("image_std") or (0.229, 0.224, 0.225)),
    )
    tasks = semantic_tasks(tensors, channels, listed, None, where, dropout=0.0)
    return Reading(config, tasks, InferenceConfig(short_side=512, max_side=2048), tensors)


def write(
    model: UPerNet, tasks: Mapping[str, Task], inference: InferenceConfig
) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """Tensors, and the JSON files beside them, as `from_pretrained` reads them.

    Raises:
        UserError: If the library has no such network.
    """
    labels = require_semantic(model, tasks, NAME)
    config, auxiliary = model.config, tasks.get("auxiliary")
    if config.align_corners or model.logits_align_corners:
        raise UserError(f"{NAME} has align_corners false everywhere; this model has true")
    tensors = plain_state(model)
    own = family(tensors)
    kind = "resnet" if own == "plain" else own if own in _TABLES else None
    if kind is None or config.level_norm != (kind != "resnet"):
        raise UserError(
            f"{NAME} has UperNet on ResNet with the 7×7 stem, and on ConvNeXt and Swin with level_norm; this model has "
            f"{config.backbone!r} with level_norm {config.level_norm}"
        )
    theirs = _TABLES[kind].to_theirs(tensors, config.backbone)
    if kind == "swin":
        theirs = split_attention(theirs, _QKV, "qkv")
        theirs = with_position_indices(theirs, ".attention.self.relative_position_bias_table")
    said: dict[str, Any] = {
        "architectures": ["UperNetForSemanticSegmentation"],
        "model_type": "upernet",
        "backbone_config": _backbone_config(kind, tensors, model.backbone.channels),
        "hidden_size": config.width,
        "pool_scales": list(config.pool_scales),
        "use_auxiliary_head": auxiliary is not None,
        "id2label": {str(i): name for i, name in enumerate(labels.names)},
        "label2id": {name: i for i, name in enumerate(labels.names)},
    }
    if auxiliary is not None:
        level = int(auxiliary.level[1]) - 2 if re.fullmatch("c[2-5]", auxiliary.level) else -1
        if level != 2:
            raise UserError(f"{NAME} puts the auxiliary head on 'c4'; this model's reads {auxiliary.level!r}")
        convs = sum(k.endswith(".conv.weight") for k in tensors if k.startswith("heads.auxiliary.convs."))
        said |= {
            "auxiliary_in_channels": model.backbone.channels[level],
            "auxiliary_channels": tensors["heads.auxiliary.classifier.weight"].shape[1],
            "auxiliary_num_convs": convs,
            "auxiliary_concat_input": False,
        }
    prepared = {
        "image_processor_type": "SegformerImageProcessor",
        "do_resize": True,
        "size": {"height": inference.short_side or 512, "width": inference.short_side or 512},
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": list(config.mean),
        "image_std": list(config.std),
        "do_reduce_labels": len(labels) == 150,
    }
    return theirs, {_CONFIG: said, _PREPROCESSOR: prepared}


def _backbone_config(kind: str, tensors: Mapping[str, Tensor], channels: list[int]) -> dict[str, Any]:
    """What the library needs to build the backbone of tensors in our names."""
    out = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
    if kind == "resnet":
        depths = [
            len({k.split(".")[3] for k in tensors if k.startswith(f"backbone.body.layer{n}.")}) for n in (1, 2, 3, 4)
        ]
        layer = "bottleneck" if "backbone.body.layer1.0.conv3.weight" in tensors else "basic"
        stem = tensors["backbone.body.conv1.weight"].shape[0]
        shape = {"embedding_size": stem, "hidden_sizes": channels, "depths": depths, "layer_type": layer}
        return {"model_type": "resnet", **shape, **out}
    stage = "stages" if kind == "convnext" else "layers"
    depths = [
        len({k.split(".")[4] for k in tensors if k.startswith(f"backbone.body.{stage}_{n}.blocks.")}) for n in range(4)
    ]
    if kind == "convnext":
        return {"model_type": "convnext", "hidden_sizes": channels, "depths": depths, **out}
    tables = [tensors[f"backbone.body.layers_{n}.blocks.0.attn.relative_position_bias_table"] for n in range(4)]
    window = int((tables[0].shape[0] ** 0.5 + 1) / 2)
    heads = [table.shape[1] for table in tables]
    shape = {"embed_dim": channels[0], "depths": depths, "num_heads": heads, "window_size": window}
    return {"model_type": "swin", **shape, **out}


def _hub_name(key: str) -> str:
    """The name on the hub of a tensor that may bear the newer one."""
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
