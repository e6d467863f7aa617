"""Models of segmentation_models_pytorch: encoders, settings, and the way there and back."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from foreign_files import RESNET, SWIN, SWIN_NAME, change_json, network, same, saved, toolbox
from safetensors.torch import load_file

import upernet
from upernet.cli import main
from upernet.config import InferenceConfig, ModelConfig
from upernet.errors import UserError
from upernet.store.foreign import read_foreign, write_foreign


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
    assert same(model, upernet.load(theirs, reference=True).model)


def test_old_smp_is_refused(tmp_path: Path) -> None:
    keys = ("segmentation_head.0.weight", "decoder.fpn_stages.0.skip_conv.0.weight", "encoder.conv1.weight")
    torch.save({k: torch.zeros(1) for k in keys}, tmp_path / "old.pth")
    with pytest.raises(UserError, match=r"0\.4"):
        upernet.load(tmp_path / "old.pth")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder, not to be written to, of a network on resnet50."""
    place = tmp_path_factory.mktemp("smp") / "theirs"
    config = ModelConfig(backbone="resnet50", backbone_args=RESNET, width=8, level_norm=True, logits_align_corners=True)
    write_foreign(place, "smp", *network(config, auxiliary=False), InferenceConfig())
    return place


@pytest.fixture
def place(written: Path, tmp_path: Path) -> Path:
    """The same folder, of the test's own."""
    return shutil.copytree(written, tmp_path / "theirs")


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
def test_settings_of_smp_that_no_tensor_shows(place: Path, change: dict[str, Any], says: str) -> None:
    change_json(place / "config.json", **change)
    with pytest.raises(UserError) as caught:
        read_foreign([place])
    assert says in str(caught.value)
    assert str(caught.value).startswith(str(place / "model.safetensors"))


@pytest.mark.parametrize("name", ["tu-resnet50", "tu-resnet50.a1_in1k"])
def test_encoders_of_smp_that_tensors_show(place: Path, name: str) -> None:
    change_json(place / "config.json", encoder_name=name, drop_path_rate=0.1, decoder_use_norm=True)
    assert read_foreign([place])[1].config.backbone == "resnet50"


def test_arguments_of_smp_that_change_no_answer(place: Path) -> None:
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
    again = upernet.load(place, reference=True).model
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
