"""`upernet convert` and `upernet.load` on what other software writes: small networks, whole files, real commands."""

from __future__ import annotations

import hashlib
import json
import math
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import upernet
from upernet.cli import main
from upernet.config import InferenceConfig, ModelConfig
from upernet.contract import Task
from upernet.errors import UserError, WorkError
from upernet.model import UPerNet
from upernet.model.build import as_run, build_model
from upernet.store.archives import read_checkpoint
from upernet.store.dialects import huggingface, mmseg
from upernet.store.dialects.backbones import identify
from upernet.store.dialects.base import Checkpoint
from upernet.store.dialects.keys import KeyTable
from upernet.store.foreign import open_checkpoint, read_foreign, write_foreign
from upernet.store.loading import load_model
from upernet.store.native import save_model
from upernet.tasks import Scene, Semantic
from upernet.zoo.published import Published

RESNET = {"channels": [8, 16, 32, 64]}
DEEP = {**RESNET, "stem_type": "deep", "stem_width": 4}
CONVNEXT = {"depths": [1, 1, 2, 1], "dims": [8, 16, 32, 64]}
SWIN = {"depths": [2, 2, 2, 2], "embed_dim": 8, "num_heads": [1, 2, 4, 8], "window_size": 4}
SWIN_NAME = "swin_tiny_patch4_window7_224"
LABELS = {"sky": "#87ceeb", "road": "#804080", "car": "#1e56d6"}


def network(config: ModelConfig, auxiliary: bool = True, **head: Any) -> tuple[UPerNet, dict[str, Task]]:
    """Every tensor random, statistics too, so that no two can be mistaken for one another."""
    tasks: dict[str, Task] = {"semantic": Semantic(labels=LABELS, **head)}
    if auxiliary:
        tasks["auxiliary"] = Semantic(
            labels=LABELS, level="c4", convs=1, width=8, target="semantic", weight=0.4, auxiliary=True
        )
    torch.manual_seed(0)
    model = as_run(build_model(config, tasks))
    generator = torch.Generator().manual_seed(1)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) * 0.5 + 0.25)
            if value.ndim > 1:
                value.mul_(4 / value[0].numel())
        else:
            value.fill_(len(name))
    return model, tasks


def toolbox(kind: str) -> ModelConfig:
    name, args = {
        "deep": ("resnet50", DEEP),
        "plain": ("resnet18", {**RESNET}),
        "convnext": ("convnext_tiny", CONVNEXT),
        "swin": (SWIN_NAME, SWIN),
    }[kind]
    level_norm = kind in ("convnext", "swin")
    return ModelConfig(
        backbone=name,
        backbone_args=args,
        width=8,
        pool_scales=(1, 2),
        align_corners=kind == "deep",
        level_norm=level_norm,
        level_norm_eps=1e-5 if kind == "swin" else 1e-6,
    )


def same(a: UPerNet, b: UPerNet) -> bool:
    """Equal to the bit, names and values."""
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


def saved(tmp_path: Path, model: UPerNet, tasks: dict[str, Task]) -> Path:
    save_model(tmp_path / "ours", model, tasks, InferenceConfig(short_side=64, max_side=256))
    return tmp_path / "ours"


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


@pytest.mark.parametrize("kind", ["plain", "convnext", "swin"])
@pytest.mark.parametrize("auxiliary", [True, False])
def test_to_hugging_face_and_back(tmp_path: Path, kind: str, auxiliary: bool) -> None:
    model, tasks = network(toolbox(kind), auxiliary)
    ours = saved(tmp_path, model, tasks)
    theirs = tmp_path / "theirs"
    assert main(["convert", str(ours), str(theirs), "--to", "huggingface"]) == 0
    said = json.loads((theirs / "config.json").read_text())
    assert said["id2label"] == {"0": "sky", "1": "road", "2": "car"}
    assert said["use_auxiliary_head"] is auxiliary
    again = upernet.load(theirs).model
    assert same(model, again)
    assert again.config == model.config


def test_to_smp_and_back(tmp_path: Path) -> None:
    config = ModelConfig(backbone="resnet18", backbone_args=RESNET, width=8, level_norm=True, logits_align_corners=True)
    model, tasks = network(config, auxiliary=False)
    theirs = tmp_path / "theirs"
    assert main(["convert", str(saved(tmp_path, model, tasks)), str(theirs), "--to", "smp"]) == 0
    assert json.loads((theirs / "config.json").read_text())["decoder_channels"] == 8
    tensors = load_file(theirs / "model.safetensors")
    # Their lateral 0 is the coarsest, ours the finest.
    assert torch.equal(
        tensors["decoder.fpn_lateral_blocks.0.conv_norm_relu.0.weight"], model.decoder.lateral[2].conv.weight
    )
    assert same(model, upernet.load(theirs).model)


def test_an_auxiliary_head_is_left_out_where_there_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ModelConfig(backbone="resnet18", backbone_args=RESNET, width=8, level_norm=True, logits_align_corners=True)
    ours = saved(tmp_path, *network(config))
    assert main(["convert", str(ours), str(tmp_path / "theirs"), "--to", "smp"]) == 2
    assert "--drop auxiliary" in capsys.readouterr().err
    assert not (tmp_path / "theirs").exists()
    assert main(["convert", str(ours), str(tmp_path / "theirs"), "--to", "smp", "--drop", "auxiliary"]) == 0
    assert (tmp_path / "theirs" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("change", "to", "says"),
    [
        ({"pooling": "precise"}, "mmseg", "pooling 'precise'"),
        ({"ppm_order": "upsample_conv"}, "huggingface", "ppm_order 'upsample_conv'"),
        ({"align_corners": True}, "huggingface", "align_corners"),
        ({"level_norm": True}, "mmseg", "level_norm True"),
        ({"backbone": "test_efficientnet", "backbone_args": {}}, "mmseg", "'test_efficientnet'"),
        ({"backbone": "resnet50s", "backbone_args": {"channels": [8, 16, 32, 64]}}, "smp", "level_norm"),
        ({"backbone_args": {**RESNET, "output_stride": 16}}, "mmseg", "output_stride"),
        ({"logits_align_corners": True}, "mmseg", "logits"),
    ],
)
def test_what_other_software_has_not_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], to: str, says: str
) -> None:
    config = ModelConfig(**{"backbone": "resnet18", "backbone_args": RESNET, "width": 8} | change)
    ours = saved(tmp_path, *network(config, auxiliary=False))
    theirs = tmp_path / ("theirs.pth" if to == "mmseg" else "theirs")
    assert main(["convert", str(ours), str(theirs), "--to", to]) == 2
    line = capsys.readouterr().err.strip()
    assert says in line and "\n" not in line
    assert not theirs.exists()


def test_several_tasks_stay_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks: dict[str, Task] = {"semantic": Semantic(labels=LABELS), "scene": Scene(labels=["street", "coast"], width=8)}
    model = build_model(ModelConfig(backbone="resnet18", backbone_args=RESNET, width=8), tasks)
    ours = saved(tmp_path, model, tasks)
    assert main(["convert", str(ours), str(tmp_path / "x.pth"), "--to", "mmseg"]) == 2
    assert "this model has semantic, scene" in capsys.readouterr().err
    assert main(["convert", str(ours), str(tmp_path / "x.pth"), "--to", "mmseg", "--drop", "scene"]) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["only.pth"], "no place to write"),
        (["a", "b", "--half", "--to", "smp"], "--half"),
        (["a", "b", "--to", "mmseg"], "model.pth"),
        (["a", "b", "--drop", "depth"], "a: no model"),
    ],
)
def test_wrong_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["convert", *words]) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor is what is being read."""
    ours = saved(tmp_path, *network(toolbox("plain")))
    before = (ours / "model.safetensors").read_bytes()
    (tmp_path / "there.pth").write_bytes(b"mine")
    for place, to in (("ours", "native"), ("ours", "huggingface"), ("there.pth", "mmseg"), ("ours", "smp")):
        assert main(["convert", str(ours), str(tmp_path / place), "--to", to]) == 2
        assert "is there already, and the last one is where to write" in capsys.readouterr().err
    assert (ours / "model.safetensors").read_bytes() == before
    assert (tmp_path / "there.pth").read_bytes() == b"mine"


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
        assert read_foreign([path])
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
    again = upernet.load(path).model
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
    assert upernet.load(path)


def test_what_other_layouts_cannot_hold_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for to, config in (
        ("mmseg", replace(toolbox("convnext"), level_norm_eps=1e-5)),
        ("smp", ModelConfig(backbone="resnet18", backbone_args=RESNET, width=8, level_norm=True,
                            logits_align_corners=True, mean=(0.5, 0.5, 0.5))),
    ):  # fmt: skip
        save_model(tmp_path / to, *network(config, auxiliary=False), InferenceConfig())
        assert main(["convert", str(tmp_path / to), str(tmp_path / f"{to}.pth"), "--to", to]) == 2
        assert "cannot hold " in capsys.readouterr().err
        assert not (tmp_path / f"{to}.pth").exists()


def test_a_claim_of_a_giant_costs_nothing(tmp_path: Path) -> None:
    """A width of 2,500 would be a network of gigabytes; the file holds kilobytes."""
    model, tasks = network(toolbox("plain"))
    theirs, meta = mmseg.write(model, tasks, InferenceConfig())
    theirs["decode_head.fpn_bottleneck.conv.weight"] = torch.zeros(25_000, 1, 1, 1)
    torch.save({"state_dict": theirs, "meta": meta}, tmp_path / "giant.pth")
    with pytest.raises(WorkError, match="do not fit the network"):
        upernet.load(tmp_path / "giant.pth")


def test_wrappers_without_end(tmp_path: Path) -> None:
    torch.save({"module." * 40_000 + "x": torch.zeros(1)}, tmp_path / "long.pth")
    with pytest.raises(UserError, match="no UPerNet") as caught:
        upernet.load(tmp_path / "long.pth")
    assert len(str(caught.value)) < 1000


def test_a_date_is_no_hash(tmp_path: Path) -> None:
    text = "model = dict(decode_head=dict(pool_scales=(1, 2)))"
    assert upernet.load(toolbox_file(tmp_path / "mine-20240101.pth", toolbox("plain"), text))


def toolbox_file(path: Path, config: ModelConfig, text: str = "", tensors: dict[str, Tensor] | None = None) -> Path:
    model, tasks = network(config)
    theirs, _ = mmseg.write(model, tasks, InferenceConfig())
    meta = {"config": text, "CLASSES": ("sky", "road", "car"), "PALETTE": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}
    torch.save({"meta": meta, "state_dict": theirs if tensors is None else tensors}, path)
    return path


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
    found = upernet.load(path).model
    assert found.config.mean == pytest.approx((0.3, 0.2, 0.1))
    x = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in ([0.1, 0.2, 0.3], [1.0, 0.5, 0.2]))
    bgr = (x.flip(1) - mean) / std
    expected = original(bgr * original.std + original.mean, ["semantic"])["semantic"]
    torch.testing.assert_close(found(x)["semantic"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("wrap", ["module.", "model."])
def test_wrappers_and_other_places_of_the_state_dict(tmp_path: Path, wrap: str) -> None:
    model, tasks = network(toolbox("plain"))
    theirs, meta = mmseg.write(model, tasks, InferenceConfig())
    torch.save({"model": {wrap + k: v for k, v in theirs.items()}, "meta": meta, "epoch": 3}, tmp_path / "w.pth")
    assert same(model, upernet.load(tmp_path / "w.pth").model)


def test_what_a_training_loop_keeps_beside_the_network_is_named(tmp_path: Path) -> None:
    theirs, meta = mmseg.write(*network(toolbox("plain")), InferenceConfig())
    wrapped = {f"model.{k}": v for k, v in theirs.items()}
    beside = {"mean": torch.zeros(3), "std": torch.ones(3)}
    torch.save({"state_dict": wrapped | beside, "meta": meta}, tmp_path / "lightning.ckpt")
    with pytest.raises(WorkError, match=r"2 tensors have no place in this network: mean, std$"):
        read_foreign([tmp_path / "lightning.ckpt"])
    key = "backbone.conv1.weight"
    torch.save({"state_dict": wrapped | {key: theirs[key]}, "meta": meta}, tmp_path / "twice.ckpt")
    with pytest.raises(WorkError, match=r"holds model\.backbone\.conv1\.weight with and without 'model\.'"):
        read_foreign([tmp_path / "twice.ckpt"])


def test_a_file_called_like_a_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "model = dict(test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(99, 99)), "
        "decode_head=dict(pool_scales=(1, 2)))"
    )
    monkeypatch.chdir(tmp_path)
    toolbox_file(Path("inference"), toolbox("plain"), text)
    with pytest.raises(UserError, match=r"^inference: inference\.stride: "):
        upernet.load("inference")


def test_a_network_is_planned_once_and_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = toolbox_file(tmp_path / "old.pth", toolbox("plain"), "model = dict(decode_head=dict(pool_scales=(1, 2)))")
    built = []
    monkeypatch.setattr("upernet.model.build.UPerNet", lambda *args: built.append(UPerNet(*args)) or built[-1])
    upernet.load(path)
    assert [next(model.parameters()).is_meta for model in built] == [True, False]


def test_counts_of_batches_may_be_missing(tmp_path: Path) -> None:
    model, tasks = network(toolbox("plain"))
    theirs, meta = mmseg.write(model, tasks, InferenceConfig())
    kept = {k: v for k, v in theirs.items() if not k.endswith("num_batches_tracked")}
    torch.save({"state_dict": kept, "meta": meta}, tmp_path / "old.pth")
    found = upernet.load(tmp_path / "old.pth").model
    assert torch.equal(found.decoder.fusion.conv.weight, model.decoder.fusion.conv.weight)


def test_every_tensor_has_a_place_or_is_named(tmp_path: Path) -> None:
    model, tasks = network(toolbox("plain"))
    theirs, meta = mmseg.write(model, tasks, InferenceConfig())
    more = theirs | {"decode_head.extra.weight": torch.zeros(1)}
    torch.save({"state_dict": more, "meta": meta}, tmp_path / "more.pth")
    with pytest.raises(WorkError, match=r"1 tensors have no place in this network: decode_head\.extra\.weight"):
        upernet.load(tmp_path / "more.pth")
    less = {k: v for k, v in theirs.items() if k != "decode_head.fpn_convs.1.bn.bias"}
    torch.save({"state_dict": less, "meta": meta}, tmp_path / "less.pth")
    with pytest.raises(WorkError, match=r"decode_head\.fpn_convs\.1\.bn\.bias is missing"):
        upernet.load(tmp_path / "less.pth")


def test_what_is_no_upernet_is_told(tmp_path: Path) -> None:
    torch.save({"state_dict": {"fc.weight": torch.zeros(2, 2)}}, tmp_path / "x.pth")
    with pytest.raises(
        UserError, match=r"no UPerNet by its tensors \(fc\.weight\); read are those of MMSegmentation, Hug"
    ):
        upernet.load(tmp_path / "x.pth")
    torch.save({"epoch": 3}, tmp_path / "y.pth")
    with pytest.raises(WorkError, match="no state dict"):
        upernet.load(tmp_path / "y.pth")


def test_one_of_the_authors_two_files(tmp_path: Path) -> None:
    torch.save({"conv3.weight": torch.zeros(1), "bn3.weight": torch.zeros(1), "layer1.0.conv1.weight": torch.zeros(1)},
               tmp_path / "encoder_epoch_40.pth")  # fmt: skip
    with pytest.raises(UserError, match="give both files"):
        upernet.load(tmp_path / "encoder_epoch_40.pth")


def test_epochs_are_not_mixed(tmp_path: Path) -> None:
    for name in ("encoder_epoch_1.pth", "decoder_epoch_2.pth"):
        torch.save({"x": torch.zeros(1)}, tmp_path / name)
    with pytest.raises(UserError, match="holds epochs 1, 2"):
        upernet.load(tmp_path)


def test_a_sigmoid_is_refused(tmp_path: Path) -> None:
    model, tasks = network(toolbox("plain"), auxiliary=False)
    theirs, meta = mmseg.write(model, tasks, InferenceConfig())
    for key in ("decode_head.conv_seg.weight", "decode_head.conv_seg.bias"):
        theirs[key] = theirs[key][:1]
    torch.save({"state_dict": theirs, "meta": meta}, tmp_path / "binary.pth")
    with pytest.raises(UserError, match="sigmoid"):
        upernet.load(tmp_path / "binary.pth")


def test_old_smp_is_refused(tmp_path: Path) -> None:
    keys = ("segmentation_head.0.weight", "decoder.fpn_stages.0.skip_conv.0.weight", "encoder.conv1.weight")
    torch.save({k: torch.zeros(1) for k in keys}, tmp_path / "old.pth")
    with pytest.raises(UserError, match=r"0\.4"):
        upernet.load(tmp_path / "old.pth")


def test_bins_that_do_not_fit_the_branches_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\[1, 2, 3, 6\] bins by its settings, but holds 2 branches"):
        upernet.load(toolbox_file(tmp_path / "old.pth", toolbox("plain")))


def test_a_published_name_must_fit_the_file(tmp_path: Path) -> None:
    path = toolbox_file(tmp_path / "upernet_r18-00000000.pth", toolbox("plain"))
    with pytest.raises(WorkError, match="sha256 begins with"):
        upernet.load(path)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("config.json", {"backbone_config": {"hidden_act": "relu"}}, "backbone_config.hidden_act 'relu'"),
        ("config.json", {"backbone_config": {"layer_norm_eps": 0.01}}, "backbone_config.layer_norm_eps 0.01"),
        ("config.json", {"backbone_config": "x", "pool_scales": 7}, "pool_scales 7 are no numbers of bins"),
        ("config.json", {"pool_scales": [0, 2]}, r"pool_scales \[0, 2\] are no numbers of bins"),
        ("config.json", {"pool_scales": None}, r"\[1, 2, 3, 6\] bins by its settings, but holds 2 branches"),
        ("preprocessor_config.json", {"image_mean": "abc"}, "image_mean 'abc' is not three numbers; for example"),
        (
            "preprocessor_config.json",
            {"image_std": [0.2, 0, 0.2]},
            r"image_std \[0.2, 0, 0.2\] is not three numbers above",
        ),
        ("preprocessor_config.json", {"image_std": [0.2, math.nan, 0.2]}, "nan.* is not three numbers above 0"),
        ("preprocessor_config.json", {"rescale_factor": "1"}, "rescale_factor '1' is no positive number"),
    ],
)
def test_settings_of_the_hub_that_no_tensor_shows(tmp_path: Path, name: str, change: dict[str, Any], says: str) -> None:
    assert (
        main(["convert", str(saved(tmp_path, *network(toolbox("swin")))), str(tmp_path / "hub"), "--to", "huggingface"])
        == 0
    )
    change_json(tmp_path / "hub" / name, **change)
    with pytest.raises(UserError, match=says) as caught:
        read_foreign([tmp_path / "hub"])
    assert str(caught.value).startswith(str(tmp_path / "hub" / "model.safetensors"))


def change_json(path: Path, **change: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


@pytest.mark.parametrize(
    ("prepared", "expected"),
    [
        ({"size": {"height": 640, "width": 640}}, InferenceConfig(short_side=640)),
        ({"size": 384}, InferenceConfig(short_side=384)),
        ({"size": {"height": 512, "width": 1024}}, InferenceConfig(short_side=512, max_side=1024)),
        ({"size": {"shortest_edge": 256}}, InferenceConfig(short_side=256)),
        ({"size": {"shortest_edge": 256, "longest_edge": 600}}, InferenceConfig(short_side=256, max_side=600)),
        ({"size": None}, InferenceConfig(short_side=512)),
        ({"do_resize": False}, InferenceConfig()),
    ],
)
def test_the_size_of_the_hub(tmp_path: Path, prepared: dict[str, Any], expected: InferenceConfig) -> None:
    model, tasks = network(toolbox("plain"))
    write_foreign(tmp_path / "hub", "huggingface", model, tasks, InferenceConfig(short_side=96))
    assert read_foreign([tmp_path / "hub"])[1].inference == InferenceConfig(short_side=96)
    change_json(tmp_path / "hub" / "preprocessor_config.json", **prepared)
    assert read_foreign([tmp_path / "hub"])[1].inference == expected


@pytest.mark.parametrize("size", [{"longest_edge": 512}, {"height": 16, "width": 512}, "large"])
def test_a_size_of_the_hub_that_is_unknown_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: Any
) -> None:
    write_foreign(tmp_path / "hub", "huggingface", *network(toolbox("plain")), InferenceConfig(short_side=96))
    change_json(tmp_path / "hub" / "preprocessor_config.json", size=size)
    assert read_foreign([tmp_path / "hub"])[1].inference == InferenceConfig()
    line = capsys.readouterr().err
    assert f"size {size!r} is left out" in line and line.count("\n") == 1


@pytest.mark.parametrize(("prepared", "std"), [({}, 1.0), ({"do_rescale": False}, 1 / 255)])
def test_pixels_of_the_hub_that_are_not_normalised(tmp_path: Path, prepared: dict[str, Any], std: float) -> None:
    write_foreign(tmp_path / "hub", "huggingface", *network(toolbox("plain")), InferenceConfig())
    change_json(tmp_path / "hub" / "preprocessor_config.json", do_normalize=False, **prepared)
    config = read_foreign([tmp_path / "hub"])[1].config
    assert (config.mean, config.std) == ((0, 0, 0), (std,) * 3)


@pytest.mark.parametrize("to", ["huggingface", "mmseg"])
def test_own_size_goes_there_and_back(tmp_path: Path, to: str) -> None:
    write_foreign(tmp_path / "x.pth", to, *network(toolbox("plain")), InferenceConfig())
    assert read_foreign([tmp_path / "x.pth"])[1].inference == InferenceConfig()


def test_pixels_of_the_hub_on_another_scale(tmp_path: Path) -> None:
    """Mean and deviation are those of pixels times `rescale_factor`; one number stands for three channels."""
    write_foreign(tmp_path / "hub", "huggingface", *network(toolbox("plain")), InferenceConfig())
    change_json(tmp_path / "hub" / "preprocessor_config.json", do_rescale=False, image_mean=51, image_std=[51, 51, 102])
    config = read_foreign([tmp_path / "hub"])[1].config
    assert (config.mean, config.std) == ((0.2, 0.2, 0.2), (0.2, 0.2, 0.4))


def test_the_auxiliary_head_of_the_hub_reads_c4(tmp_path: Path) -> None:
    """Not the first level with as many channels."""
    config = replace(toolbox("convnext"), backbone_args={"depths": [1, 1, 1, 1], "dims": [8, 16, 16, 16]})
    model, tasks = network(config)
    write_foreign(tmp_path / "hub", "huggingface", model, tasks, InferenceConfig())
    assert read_foreign([tmp_path / "hub"])[1].tasks["auxiliary"].level == "c4"
    theirs, said = huggingface.write(model, tasks, InferenceConfig())
    theirs["auxiliary_head.convs.0.conv.weight"] = theirs["auxiliary_head.convs.0.conv.weight"][:, :8]
    with pytest.raises(UserError, match="auxiliary head on c4 reads 8 channels; there are c2 8, c3 16, c4 16, c5 16"):
        huggingface.read(Checkpoint("hub", theirs, settings=said))


@pytest.mark.parametrize("level", ["c2", "c3", "c5"])
def test_the_auxiliary_head_of_the_toolbox_reads_any_level(tmp_path: Path, level: str) -> None:
    model, tasks = network(toolbox("plain"), auxiliary=False)
    head = Semantic(labels=LABELS, level=level, convs=2, width=8, target="semantic", weight=0.4, auxiliary=True)
    tasks["auxiliary"] = head
    model = build_model(model.config, tasks).eval()
    write_foreign(tmp_path / "theirs.pth", "mmseg", model, tasks, InferenceConfig())
    found = read_foreign([tmp_path / "theirs.pth"])[1].tasks["auxiliary"]
    assert (found.level, found.convs) == (level, 2)


def smp_folder(place: Path, backbone: str = "resnet50", **args: Any) -> Path:
    config = ModelConfig(
        backbone=backbone, backbone_args=RESNET | args, width=8, level_norm=True, logits_align_corners=True
    )
    write_foreign(place, "smp", *network(config, auxiliary=False), InferenceConfig())
    return place


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"encoder_name": "tu-resnetaa50"}, "encoder_name 'tu-resnetaa50', but its tensors are a resnet50's"),
        ({"encoder_name": "tu-resnetblur50"}, "encoder_name 'tu-resnetblur50', but its tensors are a resnet50's"),
        ({"encoder_name": "resnet34"}, "encoder_name 'resnet34', but its tensors are a resnet50's"),
        ({"encoder_name": "tu-resnot50"}, "timm has no model 'resnot50'; close names"),
        ({"output_stride": 16}, "output_stride 16; read is 32"),
        (
            {"act_layer": "silu"},
            "encoder_name 'tu-resnet50' with {'act_layer': 'silu'}, but its tensors are a resnet50's",
        ),
        ({"act_layer": "silu", "encoder_name": None}, "act_layer 'silu', which no tensor shows"),
        ({"decoder_use_norm": "inplace"}, "decoder_use_norm 'inplace'; read is 'batchnorm'"),
        ({"decoder_use_norm": {"type": "batchnorm", "eps": 0.01}}, "decoder_use_norm"),
        ({"upsampling": 8}, "upsampling 8; read is 4"),
    ],
)
def test_settings_of_smp_that_no_tensor_shows(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    place = smp_folder(tmp_path / "theirs")
    change_json(place / "config.json", **change)
    with pytest.raises(UserError) as caught:
        read_foreign([place])
    assert says in str(caught.value)
    assert str(caught.value).startswith(str(place / "model.safetensors"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"upsampling": 4, "upsampling": 8}', "names 'upsampling' twice"),
        ("[4]", "holds a list; expected a mapping"),
        ("{", "no readable JSON"),
        ("[" * 100_000, "no readable JSON"),
        (" " * (2**24 + 1), "is longer than"),
    ],
)
def test_settings_that_are_none(tmp_path: Path, text: str, says: str) -> None:
    place = smp_folder(tmp_path / "theirs")
    (place / "config.json").write_text(text)
    with pytest.raises(WorkError) as caught:
        read_foreign([place])
    line = str(caught.value)
    assert line.startswith(f"{place / 'config.json'}: {says}")
    assert "\n" not in line


@pytest.mark.parametrize("name", ["tu-resnet50", "tu-resnet50.a1_in1k"])
def test_encoders_of_smp_that_tensors_show(tmp_path: Path, name: str) -> None:
    place = smp_folder(tmp_path / "theirs")
    change_json(place / "config.json", encoder_name=name, drop_path_rate=0.1, decoder_use_norm=True)
    assert read_foreign([place])[1].config.backbone == "resnet50"


def test_arguments_of_smp_that_change_no_answer(tmp_path: Path) -> None:
    place = smp_folder(tmp_path / "theirs")
    idle = {"proj_drop_rate": 0.1, "attn_drop_rate": 0.1, "patch_drop_rate": 0.1, "pretrained": False}
    change_json(place / "config.json", encoder_name="tu-resnet50", act_layer="relu", **idle)
    assert read_foreign([place])[1].config.backbone == "resnet50"


@pytest.mark.parametrize("built", [{}, {"img_size": 128}, {"always_partition": True}])
def test_a_swin_of_smp_answers_as_timms(tmp_path: Path, built: dict[str, Any]) -> None:
    """At a size that windows do not fill; at 128 pixels the last stage is one window, which timm does not shift."""
    config = ModelConfig(
        backbone=SWIN_NAME,
        backbone_args={**SWIN, "shift_first": True, "always_partition": False} | built,
        width=8,
        level_norm=True,
        logits_align_corners=True,
    )
    model, tasks = network(config, auxiliary=False)
    place = tmp_path / "theirs"
    write_foreign(place, "smp", model, tasks, InferenceConfig())
    said = json.loads((place / "config.json").read_text())
    assert {"always_partition": False} | built == {k: said[k] for k in ("always_partition", *built)}
    again = upernet.load(place).model
    assert same(model, again) and again.config == config
    theirs = timm.create_model(SWIN_NAME, features_only=True, strict_img_size=False, **SWIN, **built).eval()
    theirs.load_state_dict(again.backbone.body.state_dict())
    x = torch.rand(1, 3, 72, 104)
    with torch.inference_mode():
        for a, b in zip(again.backbone(x), theirs(x), strict=True):
            torch.testing.assert_close(a, b.permute(0, 3, 1, 2))


def test_a_swin_that_pads_first_is_nothing_for_smp(tmp_path: Path) -> None:
    config = replace(toolbox("swin"), level_norm_eps=1e-6, logits_align_corners=True, pool_scales=(1, 2, 3, 6))
    with pytest.raises(UserError, match=r"written are ResNet, ConvNeXt, and Swin with backbone_args\.shift_first"):
        write_foreign(tmp_path / "theirs", "smp", *network(config, auxiliary=False), InferenceConfig())


@pytest.mark.parametrize("to", ["mmseg", "huggingface"])
def test_a_swin_that_shifts_first_is_for_smp_only(tmp_path: Path, to: str) -> None:
    config = replace(toolbox("swin"), backbone_args={**SWIN, "shift_first": True})
    with pytest.raises(UserError, match=r"cannot hold backbone .*'shift_first': True"):
        write_foreign(tmp_path / "theirs.pth", to, *network(config), InferenceConfig())


def test_sharded_files_of_the_hub(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model, tasks = network(toolbox("plain"))
    assert main(["convert", str(saved(tmp_path, model, tasks)), str(tmp_path / "hub"), "--to", "huggingface"]) == 0
    whole = load_file(tmp_path / "hub" / "model.safetensors")
    (tmp_path / "hub" / "model.safetensors").unlink()
    names = sorted(whole)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for name, keys in shards.items():
        save_file({k: whole[k] for k in keys}, tmp_path / "hub" / name)
    index = {"weight_map": {k: name for name, keys in shards.items() for k in keys}}
    (tmp_path / "hub" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert same(model, upernet.load(tmp_path / "hub").model)
    index["weight_map"][names[0]] = "../elsewhere.safetensors"
    (tmp_path / "hub" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WorkError, match="names no weight files beside it"):
        upernet.load(tmp_path / "hub")


@pytest.mark.parametrize(
    ("kind", "wrong", "says"),
    [
        ("plain", ("backbone.layer2.0.conv1.weight", (16, 8, 1, 1)), "is [16, 8, 1, 1] instead of [16, 8, 3, 3]"),
        ("deep", ("decode_head.lateral_convs.1.conv.weight", (8, 3, 1, 1)), "is [8, 3, 1, 1] instead of [8, 64, 1, 1]"),
        ("swin", ("backbone.stages.0.blocks.0.ffn.layers.1.bias", None), "is missing"),
        ("plain", ("backbone.layer3.0.conv2.weight", None), "the backbone is incomplete: no "),
    ],
)
def test_tensors_that_do_not_fit_go_by_their_names_in_the_file(
    tmp_path: Path, kind: str, wrong: tuple[str, tuple[int, ...] | None], says: str
) -> None:
    theirs, meta = mmseg.write(*network(toolbox(kind)), InferenceConfig())
    name, shape = wrong
    del theirs[name]
    if shape:
        theirs[name] = torch.zeros(shape)
    torch.save({"state_dict": theirs, "meta": meta}, tmp_path / "wrong.pth")
    with pytest.raises(UserError) as caught:
        upernet.load(tmp_path / "wrong.pth")
    line = str(caught.value)
    assert line.startswith(f"{tmp_path / 'wrong.pth'}: ") and says in line and name in line
    assert "backbone.body" not in line and "\n" not in line


def test_names_of_the_hub_in_lines(tmp_path: Path) -> None:
    theirs, said = huggingface.write(*network(toolbox("swin")), InferenceConfig())
    name = "backbone.encoder.layers.1.blocks.1.attention.self.{}.weight"
    for part in ("query", "key", "value"):
        del theirs[name.format(part)]
    reading = huggingface.read(Checkpoint("hub", theirs, settings=said))
    assert reading.named("backbone.body.layers_1.blocks.1.attn.qkv.weight") == name.format("{query,key,value}")


def test_entries_that_are_no_tensors_are_named(tmp_path: Path) -> None:
    """Among tensors, that is; beside the state dict training loops keep what they like."""
    theirs, meta = mmseg.write(*network(toolbox("plain")), InferenceConfig())
    torch.save({"state_dict": theirs | {"decode_head.scale": 2.0}, "meta": meta, "epoch": 3}, tmp_path / "odd.pth")
    with pytest.raises(WorkError, match=r"1 of \d+ entries .* are no tensors: decode_head\.scale \(float\)"):
        read_foreign([tmp_path / "odd.pth"])


@pytest.mark.parametrize(
    ("meta", "says"),
    [
        ({"config": "img_norm_cfg = dict(mean=[1, 2, 3], std=[1, 0, 1])"}, "img_norm_cfg.std [1, 0, 1] is not three"),
        ({"config": "img_norm_cfg = dict(mean=[1, 2, 3], std=[-1, 1, 1])"}, "img_norm_cfg.std [-1, 1, 1] is not three"),
        ({"config": "model = dict(data_preprocessor=dict(mean=[1, 2], std=[1, 1, 1]))"}, "mean [1, 2] is not three"),
        ({"config": "model = dict(decode_head=dict(pool_scales=(0, 2)))"}, "pool_scales (0, 2) are no numbers of bins"),
        ({"config": "model = dict(auxiliary_head=dict(in_index=9))"}, "auxiliary_head.in_index 9 is no level; valid"),
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


def test_names_cannot_move_the_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_foreign(tmp_path / "hub", "huggingface", *network(toolbox("plain")), InferenceConfig())
    change_json(tmp_path / "hub" / "config.json", id2label={"0": "\x1b[2Jsky", "1": "a\nroad", "2": "car\u202e"})
    tasks = read_foreign([tmp_path / "hub"])[1].tasks
    assert tasks["semantic"].classes.names == ("\\x1b[2Jsky", "a road", "car\\u202e")
    model, _ = network(toolbox("plain"), auxiliary=False)
    odd: dict[str, Task] = {"a\x1b[2Jb\n": Semantic(labels=LABELS)}
    save_model(tmp_path / "odd", build_model(model.config, odd), odd, InferenceConfig())
    assert main(["convert", str(tmp_path / "odd"), str(tmp_path / "again")]) == 0
    out = capsys.readouterr().out
    assert "a\\x1b[2Jb\\n (3 classes)" in out and out.count("\n") == 1


@pytest.mark.parametrize(
    ("backbone", "args"),
    [
        ("resnet18.a1_in1k", {"drop_path_rate": 0.1}),
        ("resnet50c.gluon_in1k", {"drop_rate": 0.1, "stem_width": 4}),
        ("resnext50_32x4d", {"channels": [16, 32, 64, 128], "drop_block_rate": 0.1}),
    ],
)
def test_aliases_and_what_acts_in_training_only_are_written(
    tmp_path: Path, backbone: str, args: dict[str, Any]
) -> None:
    model, tasks = network(ModelConfig(backbone=backbone, backbone_args=RESNET | args, width=8))
    write_foreign(tmp_path / "theirs.pth", "mmseg", model, tasks, InferenceConfig(short_side=64))
    again = upernet.load(tmp_path / "theirs.pth").model
    assert same(model, again)
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model(x)["semantic"], again(x)["semantic"])


def test_a_foreign_model_parses(tmp_path: Path) -> None:
    text = "model = dict(decode_head=dict(pool_scales=(1, 2)))"
    path = toolbox_file(tmp_path / "old.pth", toolbox("plain"), text)
    prediction = upernet.load(path)(torch.rand(3, 70, 50))
    assert prediction["semantic"].shape == (70, 50)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address under which it is served."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()


def published_file(folder: Path) -> Path:
    """A checkpoint named as published ones are, by the first digits of its hash."""
    text = "model = dict(decode_head=dict(pool_scales=(1, 2)))\ntest_pipeline = [dict(type='Resize', scale=(128, 64))]"
    path = toolbox_file(folder / "upernet.pth", toolbox("plain"), text)
    return path.rename(folder / f"upernet_r18-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth")


def test_a_photograph_parsed_by_a_published_model(
    tmp_path: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By name through a mirror, and by address: downloaded, verified, opened, run."""
    folder, address = server
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    path = published_file(folder)
    row = Published(
        name="upernet_r18",
        dataset="ade20k",
        backbone="R-18",
        classes="ade20k",
        addresses=(f"https://weights.invalid/{path.name}",),
        sha256=path.stem[-8:],
    )
    monkeypatch.setattr("upernet.store.loading.find_published", {"upernet_r18": row}.get)
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)).save(photo)
    words = ["predict", str(photo), "--out", str(tmp_path / "out")]
    assert main([*words, "--model", "upernet_r18", "--mirror", address]) == 0
    assert (tmp_path / "cache" / "hub" / "checkpoints" / path.name).read_bytes() == path.read_bytes()
    with Image.open(tmp_path / "out" / "photo.semantic.png") as picture:
        assert picture.size == (60, 40)
    path.unlink()  # from now on the cache must do
    assert main([*words, "--model", f"{address}/{path.name}"]) == 0
    assert main(["convert", f"{address}/{path.name}", str(tmp_path / "ours")]) == 0
    assert main([*words, "--model", f"{address}/other-12345678.pth"]) == 1
    assert "404" in capsys.readouterr().err


def test_backbones_are_told_from_their_tensors() -> None:
    from upernet.model.backbone import Backbone

    for name in (
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
    ):
        with torch.device("meta"):
            backbone = Backbone(name, {})
        tensors = {f"backbone.{k}": v for k, v in backbone.state_dict().items()}
        assert identify(tensors, "x") == (name, {}, backbone.channels)


def test_key_tables_go_both_ways() -> None:
    table = KeyTable([("a.{i}.x.*", "b.{i}.*"), ("c.{x}", "d.{x}")], dropped=["*.index"])
    there = {"a.3.x.conv.weight": torch.zeros(1), "c.bias": torch.ones(1), "a.index": torch.zeros(1)}
    ours = table.to_ours(there, "file")
    assert set(ours) == {"b.3.conv.weight", "d.bias"}
    assert set(table.to_theirs(ours, "file")) == {"a.3.x.conv.weight", "c.bias"}
    with pytest.raises(WorkError, match=r"file: 1 tensors have no place in this network: c\.x\.y"):
        table.to_ours({"c.x.y": torch.zeros(1)}, "file")


def test_a_real_file_of_the_toolbox(fixtures_dir: Path) -> None:
    """Its answers on a BGR image, as the toolbox reads it, and on one of odd size."""
    path = fixtures_dir / "mmseg_tiny" / "checkpoint.pth"
    network = upernet.load(path).model
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


@pytest.mark.parametrize("folder", ["mmseg_tiny", "mmseg_tiny_11"])
def test_real_files_of_the_toolbox_there_and_back(fixtures_dir: Path, tmp_path: Path, folder: str) -> None:
    path = fixtures_dir / folder / "checkpoint.pth"
    assert read_foreign([path])[0] == "mmseg"
    assert main(["convert", str(path), str(tmp_path / "ours")]) == 0
    assert main(["convert", str(tmp_path / "ours"), str(tmp_path / "again.pth"), "--to", "mmseg"]) == 0
    before, after = open_checkpoint([path]).tensors, open_checkpoint([tmp_path / "again.pth"]).tensors
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
