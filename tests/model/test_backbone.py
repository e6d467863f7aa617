"""`model/backbone.py`: four levels from every family, for any size of image."""

from __future__ import annotations

from math import ceil
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from upernet.errors import UserError
from upernet.model.backbone import Backbone, FeaturePyramid

SWIN: tuple[str, dict[str, Any]] = (
    "swin_tiny_patch4_window7_224",
    {"embed_dim": 16, "depths": [1, 1, 2, 2], "num_heads": [1, 2, 2, 4]},
)
ROUND_UP: list[tuple[str, dict[str, Any]]] = [
    ("test_resnet", {}),
    ("test_efficientnet", {}),
    ("test_vit", {}),
    ("test_vit3", {}),
    ("test_mambaout", {}),
    ("resnet18", {}),
    ("tf_efficientnet_lite0", {}),
    SWIN,
]
ROUND_DOWN: list[tuple[str, dict[str, Any]]] = [
    ("test_convnext", {}),
    ("convnext_atto", {}),
]  # No padding anywhere in their design.


@pytest.mark.parametrize("size", [(32, 32), (33, 97), (250, 45)])
@pytest.mark.parametrize(("name", "args"), ROUND_UP + ROUND_DOWN)
def test_any_size(name: str, args: dict[str, Any], size: tuple[int, int]) -> None:
    backbone = Backbone(name, args).eval()
    with torch.inference_mode():
        features = backbone(torch.randn(2, 3, *size))
    shapes = []
    for channels, stride in zip(backbone.channels, (4, 8, 16, 32), strict=True):
        height, width = (n // stride if (name, args) in ROUND_DOWN else ceil(n / stride) for n in size)
        shapes.append((2, channels, height, width))
    assert [tuple(f.shape) for f in features] == shapes
    assert all(f.isfinite().all() for f in features)


def test_five_levels_give_the_last_four() -> None:
    backbone = Backbone("test_resnet", {})
    assert len(backbone.body(torch.randn(2, 3, 64, 64))) == 5
    assert backbone.channels == [32, 48, 192, 96]


def test_swin_features_keep_their_place() -> None:
    backbone = Backbone(*SWIN).eval()
    image = torch.zeros(1, 3, 64, 128)
    image[:, :, :8, 96:] = 5.0
    with torch.inference_mode():
        change = (backbone(image)[0] - backbone(torch.zeros_like(image))[0]).abs().sum(1)[0]
    assert change[:2, 24:].mean() > 10 * change[-2:, :8].mean()


def test_swin_shifts_windows_in_every_stage() -> None:
    backbone = Backbone(*SWIN)
    assert backbone.body.layers_3.blocks[1].shift_size == (3, 3)


def test_swin_padding_leaves_what_is_far_from_it() -> None:
    backbone = Backbone(*SWIN).eval()
    image = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        whole, cut = backbone(image)[0], backbone(image[..., :223])[0]
    assert whole.shape == cut.shape
    torch.testing.assert_close(cut[..., :28], whole[..., :28])


def test_vit_takes_blocks_at_the_quarters_of_its_depth() -> None:
    backbone = Backbone("vit_tiny_patch16_224", {"embed_dim": 12})
    ran: list[int] = []
    assert backbone.body.out_indices == [2, 5, 8, 11]
    for i, block in enumerate(backbone.body.model.blocks):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    backbone(torch.randn(1, 3, 32, 32))
    assert ran == list(range(12))
    assert Backbone("test_vit", {"out_indices": [0, 1, 2, 5]}).body.out_indices == [0, 1, 2, 5]


def test_pyramid_of_a_known_map() -> None:
    pyramid = FeaturePyramid(1, (16, 16))
    for layer in pyramid.modules():
        if isinstance(layer, nn.ConvTranspose2d):
            nn.init.ones_(layer.weight)
            layer.bias = None
    x = torch.tensor([[[[1.0, 2.0, 7.0], [3.0, 4.0, 8.0]]]])
    c2, c3, c4, c5 = pyramid.eval()([x] * 4, (32, 48))
    expected: Tensor = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(c3, expected)
    expected = nn.functional.gelu(expected / (1 + 1e-5) ** 0.5).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(c2, expected)
    assert torch.equal(c4, x)
    assert c5.tolist() == [[[[4.0, 8.0]]]]
    cut = pyramid([x] * 4, (17, 33))
    assert [tuple(level.shape[2:]) for level in cut] == [(5, 9), (3, 5), (2, 3), (1, 2)]
    torch.testing.assert_close(cut[1], c3[:, :, :3, :5])


def test_vit_gradient_reaches_every_weight() -> None:
    backbone = Backbone("test_vit", {})
    sum(f.square().mean() for f in backbone(torch.randn(1, 3, 40, 40))).backward()
    assert [name for name, p in backbone.named_parameters() if p.grad is None] == []


def test_names_are_timms_behind_one_prefix() -> None:
    keys = Backbone("resnet18", {}).state_dict()
    assert {"body.conv1.weight", "body.layer4.1.bn2.running_var"} <= keys.keys()
    assert all(key.startswith("body.") for key in keys)


@pytest.mark.parametrize(
    ("name", "args", "parts"),
    [
        ("resnet50x", {}, ["resnet50x", "resnet50t"]),
        ("hf-hub:timm/resnet50.a1_in1k", {}, ["hf-hub", "resnet50c"]),
        ("crossvit_9_240", {}, ["crossvit_9_240", "resnet50c"]),
        ("test_resnet", {"out_indices": [3, 4]}, ["2 levels", "resnet50c"]),
        ("mixer_s32_224", {}, ["one size", "vit_small_patch16_224"]),
        ("test_resnet", {"droppath": 0.1}, ["droppath"]),
        ("test_vit", {"droppath": 0.1}, ["droppath"]),
        ("test_resnet", {"pretrained": True}, ["pretrained", "drop_path_rate"]),
        ("test_resnet", {"shift_first": True}, ["is no Swin", "shift_first"]),
    ],
)
def test_mistakes_are_told_in_a_line(name: str, args: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        Backbone(name, args)
    assert all(part in str(error.value) for part in parts)
    assert "\n" not in str(error.value)


def test_swin_pads_before_it_shifts() -> None:
    """As timm where windows fill the map; elsewhere pixels meet others than in timm, and padding lies at the end."""
    args = {"depths": (2, 2, 2, 2), "embed_dim": 8, "num_heads": (1, 2, 4, 8), "window_size": 4}
    ours = Backbone("swin_tiny_patch4_window7_224", args).eval()
    theirs = timm.create_model(
        "swin_tiny_patch4_window7_224", features_only=True, strict_img_size=False, always_partition=True, **args
    ).eval()
    theirs.load_state_dict(ours.body.state_dict())
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for side, equal in ((128, True), (96, False)):
            x = torch.rand(1, 3, side, side, generator=generator)
            same = [
                torch.allclose(a, b.permute(0, 3, 1, 2), atol=1e-5) for a, b in zip(ours(x), theirs(x), strict=True)
            ]
            assert all(same) is equal


def test_swin_shifts_first_where_that_is_asked_for() -> None:
    name, args = SWIN
    ours = Backbone(name, {**args, "shift_first": True}).eval()
    theirs = timm.create_model(name, features_only=True, strict_img_size=False, always_partition=True, **args).eval()
    theirs.load_state_dict(ours.body.state_dict())
    x = torch.rand(1, 3, 96, 80, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for a, b in zip(ours(x), theirs(x), strict=True):
            torch.testing.assert_close(a, b.permute(0, 3, 1, 2))
