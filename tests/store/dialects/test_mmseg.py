"""Checkpoints of MMSegmentation: settings, channels, classes, and the way there and back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from foreign_files import LABELS, RESNET, network, same, saved, toolbox, toolbox_file

import upernet
from upernet.cli import main
from upernet.config import InferenceConfig, ModelConfig
from upernet.errors import UserError, WorkError
from upernet.model.build import build_model
from upernet.store.archives import read_checkpoint
from upernet.store.dialects import mmseg
from upernet.store.foreign import open_checkpoint, read_foreign, write_foreign
from upernet.store.loading import load_model
from upernet.tasks import Semantic


@pytest.mark.parametrize("kind", ["deep", "plain", "convnext", "swin"])
def test_to_the_toolbox_and_back(tmp_path: Path, kind: str) -> None:
    model, tasks = network(toolbox(kind), dropout=0.1)
    ours = saved(tmp_path, model, tasks)
    assert main(["convert", str(ours), str(tmp_path / "theirs.pth"), "--to", "mmseg"]) == 0
    assert main(["convert", str(tmp_path / "theirs.pth"), str(tmp_path / "again")]) == 0
    again, found, inference = load_model(tmp_path / "again")
    assert same(model, again)
    assert again.config == model.config
    assert inference == InferenceConfig(short_side=64, max_side=256)
    assert found["semantic"].classes == tasks["semantic"].classes
    assert (found["auxiliary"].level, found["auxiliary"].weight) == ("c4", 0.4)
    x = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        assert torch.equal(model(x)["semantic"], again(x)["semantic"])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("backbone=dict(depth=18, dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1))", "backbone.strides (1, 2, 1, 1)"),
        ("backbone=dict(depth=18, norm_cfg=dict(type='BN', eps=1e-2))", "backbone.norm_cfg.eps 0.01"),
        ("backbone=dict(depth=18, act_cfg=dict(type='GELU'))", "backbone.act_cfg 'GELU'"),
        ("backbone=dict(depth=18, act_cfg=None)", "backbone.act_cfg None"),
        ("backbone=dict(qk_scale=0.5)", "backbone.qk_scale 0.5"),
        ("decode_head=dict(act_cfg=None)", "decode_head.act_cfg None"),
        ("auxiliary_head=dict(act_cfg=dict(type='LeakyReLU'))", "auxiliary_head.act_cfg 'LeakyReLU'"),
        ("decode_head=dict(in_index=[1, 2, 3, 4])", "decode_head.in_index (1, 2, 3, 4)"),
        ("auxiliary_head=dict(dilation=2)", "auxiliary_head.dilation 2"),
        ("auxiliary_head=dict(align_corners=True)", "auxiliary_head.align_corners True"),
    ],
)
def test_settings_that_no_tensor_shows_are_refused(tmp_path: Path, settings: str, says: str) -> None:
    path = toolbox_file(tmp_path / "other.pth", toolbox("plain"), f"model = dict({settings})")
    with pytest.raises(UserError) as caught:
        upernet.load(path)
    assert f"{path}: {says} is not run here; valid: " in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "norm", "says"),
    [
        ("swin", "dict(type='LN', eps=1e-6)", "1e-06 is not run here; valid: 1e-05"),
        ("convnext", "dict(type='LN2d', eps=1e-5)", "1e-05 is not run here; valid: 1e-06"),
        ("convnext", "dict(type='LN2d')", "1e-05 is not run here; valid: 1e-06"),
        ("swin", "dict(type='LN')", None),
        ("convnext", "dict(type='LN2d', eps=1e-6)", None),
        ("convnext", "norm_cfg", None),
    ],
)
def test_epsilons_of_layer_norms(tmp_path: Path, kind: str, norm: str, says: str | None) -> None:
    text = f"model = dict(backbone=dict(norm_cfg={norm}, act_cfg=act), decode_head=dict(pool_scales=(1, 2)))"
    path = toolbox_file(tmp_path / "other.pth", toolbox(kind), text)
    if says is None:
        assert read_foreign([path])[1].config.level_norm_eps == toolbox(kind).level_norm_eps
        return
    with pytest.raises(UserError, match=re.escape(f"{path}: backbone.norm_cfg.eps {says}")):
        read_foreign([path])


@pytest.mark.parametrize(
    ("step", "max_side"),
    [
        ("scale=(512, 512), keep_ratio=True", 512),
        ("scale=(512, 512), keep_ratio=False", 2048),
        ("scale=(512, 512)", 2048),
        ("img_scale=(512, 512)", 512),
        ("scale=(1024, 512)", 1024),
    ],
)
def test_a_box_to_stretch_to_gives_the_shorter_side(tmp_path: Path, step: str, max_side: int) -> None:
    text = f"model = dict(decode_head=dict(pool_scales=(1, 2)))\ntest_pipeline = [dict(type='Resize', {step})]"
    path = toolbox_file(tmp_path / "stretch.pth", toolbox("plain"), text)
    assert read_foreign([path])[1].inference == InferenceConfig(short_side=512, max_side=max_side)


@pytest.mark.parametrize("flag", ["bgr_to_rgb", "rgb_to_bgr"])
def test_either_flag_turns_the_channels(tmp_path: Path, flag: str) -> None:
    text = (
        f"model = dict(data_preprocessor=dict(mean=[25.5, 51, 76.5], std=[255, 127.5, 51], {flag}=True),"
        " decode_head=dict(pool_scales=(1, 2)))"
    )
    path = toolbox_file(tmp_path / "turned.pth", toolbox("plain"), text)
    reading = read_foreign([path])[1]
    assert reading.config.mean == pytest.approx((0.1, 0.2, 0.3))
    theirs = open_checkpoint([path]).tensors["backbone.conv1.weight"]
    assert torch.equal(reading.tensors["backbone.body.conv1.weight"], theirs)


# What the authors of the two backbones called their tensors.
ORIGINALS = {
    "swin": (
        (r"\.patch_embed\.projection\.", ".patch_embed.proj."),
        (r"^backbone\.stages\.", "backbone.layers."),
        (r"\.attn\.w_msa\.", ".attn."),
        (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
        (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
    ),
    "convnext": ((r"\.depthwise_conv\.", ".dwconv."), (r"\.pointwise_conv(.)\.", r".pwconv\1.")),
}


@pytest.mark.parametrize("kind", ["swin", "convnext"])
def test_files_of_the_backbones_authors(tmp_path: Path, kind: str) -> None:
    """The toolbox's heads; a Swin merges patches in timm's layout, which only its names show."""
    model, tasks = network(toolbox(kind))
    theirs, _ = mmseg.write(model, tasks, InferenceConfig())
    merging = {k: v for k, v in model.state_dict().items() if ".downsample." in k} if kind == "swin" else {}
    for pattern, name in ORIGINALS[kind]:
        theirs = {re.sub(pattern, name, k): v for k, v in theirs.items()}
    for key, value in merging.items():
        stage, rest = key.removeprefix("backbone.body.layers_").split(".", 1)
        theirs[f"backbone.layers.{int(stage) - 1}.{rest}"] = value
    text = "model = dict(decode_head=dict(pool_scales=(1, 2)))"
    path = toolbox_file(tmp_path / "original.pth", toolbox(kind), text, tensors=theirs)
    again = upernet.load(path, reference=True).model
    assert same(model, again)
    assert again.config == model.config
    toolbox_file(path, toolbox(kind), text, theirs | {"backbone.layers.0.blocks.0.dwconv.extra": torch.zeros(1)})
    with pytest.raises(WorkError, match=r"backbone\.layers\.0\.blocks\.0\.dwconv\.extra"):
        read_foreign([path])


@pytest.mark.parametrize("text", ["a = {[1]}", "data_preprocessor = dict(mean=[None] * 3, std=[None, None, None])"])
def test_odd_settings_are_survived(tmp_path: Path, text: str) -> None:
    path = toolbox_file(
        tmp_path / "odd.pth", toolbox("plain"), text + "\nmodel = dict(decode_head=dict(pool_scales=(1, 2)))"
    )
    assert read_foreign([path])[1].config.mean == ModelConfig().mean


def test_the_first_series_of_the_toolbox(tmp_path: Path) -> None:
    text = (
        "norm_cfg = dict(type='SyncBN', requires_grad=True)\n"
        "model = dict(type='EncoderDecoder', backbone=dict(type='ResNetV1c', depth=50),\n"
        "    decode_head=dict(type='UPerHead', pool_scales=(1, 2), align_corners=True, norm_cfg=norm_cfg))\n"
        "img_norm_cfg = dict(mean=[10.2, 20.4, 30.6], std=[51.0, 51.0, 51.0], to_rgb=True)\n"
        "test_pipeline = [dict(type='LoadImageFromFile'), dict(type='MultiScaleFlipAug', img_scale=(2049, 1025),\n"
        "    transforms=[dict(type='Resize', keep_ratio=True)])]\n"
    )
    parser = upernet.load(toolbox_file(tmp_path / "old.pth", toolbox("deep"), text))
    config = parser.model.config
    assert config.align_corners
    assert config.mean == pytest.approx((0.04, 0.08, 0.12))
    assert config.std == pytest.approx((0.2, 0.2, 0.2))
    assert parser.inference == InferenceConfig(short_side=1025, max_side=2049)
    assert parser.labels["semantic"].names == ("sky", "road", "car")
    assert parser.labels["semantic"].colours == ((1, 2, 3), (4, 5, 6), (7, 8, 9))


def test_weights_that_want_bgr_take_rgb(tmp_path: Path) -> None:
    text = (
        "model = dict(data_preprocessor=dict(mean=[25.5, 51, 76.5], std=[255, 127.5, 51], bgr_to_rgb=False),"
        " decode_head=dict(pool_scales=(1, 2)))"
    )
    path = toolbox_file(tmp_path / "bgr.pth", toolbox("plain"), text + "\nmodel['decode_head'] = print('run')")
    original, _ = network(ModelConfig(backbone="resnet18", backbone_args=RESNET, width=8, pool_scales=(1, 2)))
    found = upernet.load(path, reference=True).model
    assert found.config.mean == pytest.approx((0.3, 0.2, 0.1))
    x = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in ([0.1, 0.2, 0.3], [1.0, 0.5, 0.2]))
    bgr = (x.flip(1) - mean) / std
    expected = original(bgr * original.std + original.mean, ["semantic"])["semantic"]
    torch.testing.assert_close(found(x)["semantic"], expected, rtol=1e-4, atol=1e-4)


def test_a_sigmoid_is_refused(tmp_path: Path) -> None:
    model, tasks = network(toolbox("plain"), auxiliary=False)
    theirs, meta = mmseg.write(model, tasks, InferenceConfig())
    for key in ("decode_head.conv_seg.weight", "decode_head.conv_seg.bias"):
        theirs[key] = theirs[key][:1]
    torch.save({"state_dict": theirs, "meta": meta}, tmp_path / "binary.pth")
    with pytest.raises(UserError, match="sigmoid"):
        upernet.load(tmp_path / "binary.pth")


def test_bins_that_do_not_fit_the_branches_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\[1, 2, 3, 6\] bins by its settings, but holds 2 branches"):
        upernet.load(toolbox_file(tmp_path / "old.pth", toolbox("plain")))


@pytest.mark.parametrize("level", ["c2", "c3", "c5"])
def test_the_auxiliary_head_of_the_toolbox_reads_any_level(tmp_path: Path, level: str) -> None:
    model, tasks = network(toolbox("plain"), auxiliary=False)
    head = Semantic(labels=LABELS, level=level, convs=2, width=8, target="semantic", weight=0.4, auxiliary=True)
    tasks["auxiliary"] = head
    model = build_model(model.config, tasks).eval()
    write_foreign(tmp_path / "theirs.pth", "mmseg", model, tasks, InferenceConfig())
    found = read_foreign([tmp_path / "theirs.pth"])[1].tasks["auxiliary"]
    assert (found.level, found.convs) == (level, 2)


@pytest.mark.parametrize(
    ("meta", "says"),
    [
        ({"config": "img_norm_cfg = dict(mean=[1, 2, 3], std=[1, 0, 1])"}, "img_norm_cfg.std [1, 0, 1] is not three"),
        ({"config": "img_norm_cfg = dict(mean=[1, 2, 3], std=[-1, 1, 1])"}, "img_norm_cfg.std [-1, 1, 1] is not three"),
        ({"config": "model = dict(data_preprocessor=dict(mean=[1, 2], std=[1, 1, 1]))"}, "mean [1, 2] is not three"),
        ({"config": "model = dict(decode_head=dict(pool_scales=(0, 2)))"}, "pool_scales (0, 2) is not a list of bins"),
        ({"config": "model = dict(auxiliary_head=dict(in_index=9))"}, "auxiliary_head.in_index 9 is not a level; "),
        (
            {"config": "model = dict(test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(99, 99)), "
             "decode_head=dict(pool_scales=(1, 2)))"},
            "inference.stride: [99, 99] leaves gaps",
        ),
    ],
)  # fmt: skip
def test_nonsense_is_told_with_the_file(tmp_path: Path, meta: dict[str, Any], says: str) -> None:
    theirs, _ = mmseg.write(*network(toolbox("plain")), InferenceConfig())
    sound = {"config": "model = dict(decode_head=dict(pool_scales=(1, 2)))", "CLASSES": ["sky", "road", "car"]}
    torch.save({"state_dict": theirs, "meta": sound | meta}, tmp_path / "odd.pth")
    with pytest.raises(UserError) as caught:
        read_foreign([tmp_path / "odd.pth"])
    assert f"{tmp_path / 'odd.pth'}: " in str(caught.value) and says in str(caught.value)


def test_a_wrong_palette_costs_the_colours_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs, _ = mmseg.write(*network(toolbox("plain")), InferenceConfig())
    meta = {"config": "model = dict(decode_head=dict(pool_scales=(1, 2)))", "CLASSES": ["sky", "road", "car"]}
    for palette, says in (
        ([[1, 2, 3], [4, 5, 256], [7, 8, 9]], "palette [4, 5, 256] is left out; valid: 3 times red, green, blue in 0"),
        ([[1, 2, 3]], "palette of 1 colours is left out; valid"),
        (np.arange(9).reshape(3, 3), ""),
        (list(np.arange(9).reshape(3, 3)), ""),
    ):
        torch.save({"state_dict": theirs, "meta": meta | {"PALETTE": palette}}, tmp_path / "odd.pth")
        classes = read_foreign([tmp_path / "odd.pth"])[1].tasks["semantic"].classes
        assert classes.names == ("sky", "road", "car")
        assert (classes.colours == ((0, 1, 2), (3, 4, 5), (6, 7, 8))) is not bool(says)
        line = capsys.readouterr().err
        assert says in line and line.count("\n") == bool(says)


def test_a_real_file_of_the_toolbox(fixtures_dir: Path) -> None:
    """Its answers on a BGR image, as the toolbox reads it, and on one of odd size."""
    path = fixtures_dir / "mmseg_tiny" / "checkpoint.pth"
    network = upernet.load(path, reference=True).model
    reference = read_checkpoint(fixtures_dir / "mmseg_tiny" / "reference.pth")
    for case in (reference, reference["odd"]):
        image = case["image_bgr_uint8"].flip(1) / 255
        torch.testing.assert_close((image - network.mean) / network.std, case["input"], rtol=1e-4, atol=1e-5)
        with torch.inference_mode():
            logits = network(image, ["semantic", "auxiliary"])
        for ours, theirs in (("semantic", "logits_low"), ("auxiliary", "aux_logits_low")):
            difference = (logits[ours] - case[theirs]).abs().max() / case[theirs].std()
            assert difference <= 1e-3
        full = F.interpolate(logits["semantic"], image.shape[2:], mode="bilinear").argmax(1)
        assert (full == case["pred"]).double().mean() >= 0.9999
