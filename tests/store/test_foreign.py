"""Whether the tensors of a file are those of the network that it describes, and a written one gives the same again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_files import RESNET, SWIN, network, same, toolbox, toolbox_file

import upernet
from upernet.config import InferenceConfig, ModelConfig
from upernet.errors import UserError, WorkError
from upernet.model import UPerNet
from upernet.store.dialects import mmseg
from upernet.store.foreign import read_foreign, write_foreign


def test_a_claim_of_a_giant_costs_nothing(tmp_path: Path) -> None:
    """A width of 2,500 would be a network of gigabytes; the file holds kilobytes."""
    model, tasks = network(toolbox("plain"))
    theirs, meta = mmseg.write(model, tasks, InferenceConfig())
    theirs["decode_head.fpn_bottleneck.conv.weight"] = torch.zeros(25_000, 1, 1, 1)
    torch.save({"state_dict": theirs, "meta": meta}, tmp_path / "giant.pth")
    with pytest.raises(WorkError, match="do not fit the network"):
        upernet.load(tmp_path / "giant.pth")


def test_counts_of_batches_may_be_missing(tmp_path: Path) -> None:
    model, tasks = network(toolbox("plain"))
    theirs, meta = mmseg.write(model, tasks, InferenceConfig())
    kept = {k: v for k, v in theirs.items() if not k.endswith("num_batches_tracked")}
    torch.save({"state_dict": kept, "meta": meta}, tmp_path / "old.pth")
    found = upernet.load(tmp_path / "old.pth", reference=True).model
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
        UserError, match=r"its tensors \(fc\.weight\) are not those of a UPerNet; valid: files of MMSegmentation, Hug"
    ):
        upernet.load(tmp_path / "x.pth")
    torch.save({"epoch": 3}, tmp_path / "y.pth")
    with pytest.raises(WorkError, match="no state dict"):
        upernet.load(tmp_path / "y.pth")


@pytest.mark.parametrize("to", ["huggingface", "mmseg"])
def test_own_size_goes_there_and_back(tmp_path: Path, to: str) -> None:
    write_foreign(tmp_path / "x.pth", to, *network(toolbox("plain")), InferenceConfig())
    assert read_foreign([tmp_path / "x.pth"])[1].inference == InferenceConfig()


@pytest.mark.parametrize("to", ["mmseg", "huggingface"])
def test_a_swin_that_shifts_first_is_for_smp_only(tmp_path: Path, to: str) -> None:
    config = replace(toolbox("swin"), backbone_args={**SWIN, "shift_first": True})
    with pytest.raises(UserError, match=r"cannot hold backbone .*'shift_first': True"):
        write_foreign(tmp_path / "theirs.pth", to, *network(config), InferenceConfig())


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
    again = upernet.load(tmp_path / "theirs.pth", reference=True).model
    assert same(model, again)
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model(x)["semantic"], again(x)["semantic"])


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


def test_a_foreign_model_parses(tmp_path: Path) -> None:
    text = "model = dict(decode_head=dict(pool_scales=(1, 2)))"
    path = toolbox_file(tmp_path / "old.pth", toolbox("plain"), text)
    prediction = upernet.load(path)(torch.rand(3, 70, 50))
    assert prediction["semantic"].shape == (70, 50)
