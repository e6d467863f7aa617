"""What other software is told of a backbone, for every family and size that is written."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from upernet.errors import UserError
from upernet.model.backbone import Backbone
from upernet.store.dialects import huggingface, mmseg
from upernet.store.dialects.backbones import computes_the_same, identify_backbone, inspect_backbone


@cache
def backbone(name: str) -> Backbone:
    """Without memory for its tensors."""
    with torch.device("meta"):
        return Backbone(name, {})


def tensors(name: str) -> dict[str, Tensor]:
    return {f"backbone.{k}": v for k, v in backbone(name).state_dict().items()}


RESNET50 = {"depth": 50, "stem_channels": 64, "base_channels": 64}
SWIN_NAME = "swin_tiny_patch4_window7_224"
PLAIN = {"deep_stem": False, "avg_down": False}
SWIN = {"type": "SwinTransformer", "window_size": 7}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", {"type": "ResNet", **RESNET50, "depth": 18, **PLAIN}),
        ("resnet50", {"type": "ResNet", **RESNET50, **PLAIN}),
        ("resnet101c", {"type": "ResNetV1c", **RESNET50, "depth": 101}),
        ("resnet50s", {"type": "ResNetV1c", **RESNET50, "stem_channels": 128}),
        ("resnet50d", {"type": "ResNetV1d", **RESNET50}),
        ("resnext50_32x4d", {"type": "ResNeXt", **RESNET50, "groups": 32, "base_width": 4, **PLAIN}),
        ("resnext101_32x8d", {"type": "ResNeXt", **RESNET50, "depth": 101, "groups": 32, "base_width": 8, **PLAIN}),
        (
            "resnext50d_32x4d",
            {"type": "ResNeXt", **RESNET50, "groups": 32, "base_width": 4, "deep_stem": True, "avg_down": True},
        ),
        (
            "swin_small_patch4_window7_224",
            {**SWIN, "embed_dims": 96, "depths": [2, 2, 18, 2], "num_heads": [3, 6, 12, 24]},
        ),
        (
            "swin_large_patch4_window12_384",
            {**SWIN, "embed_dims": 192, "depths": [2, 2, 18, 2], "num_heads": [6, 12, 24, 48], "window_size": 12},
        ),
        (
            "convnext_base",
            {
                "type": "mmpretrain.ConvNeXt",
                "arch": {"depths": [3, 3, 27, 3], "channels": [128, 256, 512, 1024]},
                "out_indices": [0, 1, 2, 3],
                "gap_before_final_norm": False,
            },
        ),
    ],
)
def test_settings_for_mmsegmentation(name: str, expected: dict[str, Any]) -> None:
    assert mmseg._backbone(inspect_backbone(tensors(name), name), name) == expected


OUT = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "resnet34",
            {
                "model_type": "resnet",
                "embedding_size": 64,
                "hidden_sizes": [64, 128, 256, 512],
                "depths": [3, 4, 6, 3],
                "layer_type": "basic",
            },
        ),
        ("convnext_large", {"model_type": "convnext", "hidden_sizes": [192, 384, 768, 1536], "depths": [3, 3, 27, 3]}),
        (
            "swin_base_patch4_window12_384",
            {
                "model_type": "swin",
                "embed_dim": 128,
                "depths": [2, 2, 18, 2],
                "num_heads": [4, 8, 16, 32],
                "window_size": 12,
            },
        ),
    ],
)
def test_settings_for_hugging_face(name: str, expected: dict[str, Any]) -> None:
    assert huggingface._backbone_config(inspect_backbone(tensors(name), name), name) == expected | OUT


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (mmseg._backbone, "wide_resnet50_2"),
        (mmseg._backbone, "resnet26"),
        (huggingface._backbone_config, "wide_resnet50_2"),
        (huggingface._backbone_config, "resnext50_32x4d"),
    ],
)
def test_what_a_layout_cannot_hold_is_told_in_one_line(write: Any, name: str) -> None:
    with pytest.raises(UserError, match=f"this model has '{name}'; 'resnet50c?' can be written$"):
        write(inspect_backbone(tensors(name), name), name)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet50",
        "resnet101c",
        "resnet50s",
        "resnet50d",
        "resnet152",
        "convnext_small",
        "convnext_xlarge",
        "swin_base_patch4_window12_384",
        "swin_large_patch4_window7_224",
        "resnext50_32x4d",
        "resnext101_64x4d",
        "resnext101_32x16d",
        "wide_resnet101_2",
    ],
)
def test_backbones_are_told_from_their_tensors(name: str) -> None:
    """Grouped and wide ones go by their names too."""
    assert identify_backbone(tensors(name), "x") == (name, {}, backbone(name).channels)


@pytest.mark.parametrize(
    ("name", "args", "other", "others", "same"),
    [
        ("resnet18", {"drop_path_rate": 0.2}, "resnet18", {}, True),
        ("resnet26", {}, "resnet50", {"layers": [2, 2, 2, 2]}, True),
        ("test_convnext", {"drop_path_rate": 0.2}, "test_convnext", {}, True),
        ("resnetaa50", {}, "resnet50", {}, False),
        ("resnetblur18", {}, "resnet18", {}, False),
        ("resnet18", {"output_stride": 16}, "resnet18", {}, False),
        ("resnet18", {"act_layer": "silu"}, "resnet18", {}, False),
        ("resnet18", {}, "resnet34", {}, False),
        (SWIN_NAME, {"shift_first": True}, SWIN_NAME, {}, False),
        (SWIN_NAME, {"always_partition": False}, SWIN_NAME, {}, False),
        (SWIN_NAME, {"always_partition": False, "img_size": 512}, SWIN_NAME, {}, True),
    ],
)
def test_networks_that_answer_the_same(
    name: str, args: dict[str, Any], other: str, others: dict[str, Any], same: bool
) -> None:
    assert computes_the_same(name, args, other, others) is same
