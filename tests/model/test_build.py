"""Networks built from a configuration, within limits."""

from __future__ import annotations

import pytest
import torch
from tiny_model import moved, network, tasks

from upernet.config import ModelConfig
from upernet.errors import UserError, WorkError
from upernet.model.build import build_model, build_on_meta, cpu_state_dict, for_inference
from upernet.tasks import Part


def test_parts_need_their_objects() -> None:
    with pytest.raises(UserError, match="reads the objects of task 'object'; tasks: part"):
        build_model(ModelConfig(backbone="test_resnet", width=8), {"part": Part(parts={"car": ["wheel"]})})


def test_modules_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upernet.model.build.MAX_MODULES", 100)
    with pytest.raises(WorkError, match=r"^asks for a network of more than 100 modules; it may be hostile$"):
        build_model(ModelConfig(backbone="resnet18", backbone_args={"layers": [10**9, 1, 1, 1]}), tasks())
    torch.nn.Sequential(*[torch.nn.Identity() for _ in range(200)])  # the limit ends with the building


def test_on_meta_a_network_takes_no_memory() -> None:
    model = build_on_meta(network().config, tasks(), "here")
    assert {value.device.type for value in model.state_dict().values()} == {"meta"}
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in network().state_dict().items()
    }


def test_tables_larger_than_any_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = {"depths": [1, 1, 1, 1], "embed_dim": 8, "num_heads": [1, 1, 1, 1]}
    config = ModelConfig(backbone="swin_tiny_patch4_window7_224", backbone_args=shape, width=8)
    build_on_meta(config, tasks(), "here")
    monkeypatch.setattr("upernet.model.build.MAX_DERIVED_BYTES", 1000)
    with pytest.raises(WorkError, match=r"^here: implies tables of \d+ bytes, the largest 'backbone\.body\."):
        build_on_meta(config, tasks(), "here")


def test_for_inference_channels_lie_innermost() -> None:
    model = for_inference(network().train())
    weight = model.decoder.fusion.conv.weight
    assert not model.training
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    stored = cpu_state_dict(model)
    assert all(value.is_contiguous() and not value.requires_grad for value in stored.values())
    assert not moved(stored, network().state_dict())
