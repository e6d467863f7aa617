"""The rewritten network gives the plain network's answers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from upernet.config import ModelConfig
from upernet.contract import Task
from upernet.fused import fuse
from upernet.fused.folding import fold_batch_norms
from upernet.fused.merging import FusedMergingConv
from upernet.fused.winograd import WinogradConv
from upernet.model import UPerNet
from upernet.model.build import build_model
from upernet.tasks import Material, Object, Part, Scene, Semantic, Texture


def all_tasks(width: int = 72) -> dict[str, Task]:
    names = ["a", "b", "c"]
    return {
        "scene": Scene(labels=names, width=width),
        "object": Object(labels=names, convs=1, width=width),
        "part": Part(parts={"a": ["x", "y"], "c": ["z"]}, convs=1, width=width),
        "material": Material(labels=names, level="p2", convs=2, width=width),
        "texture": Texture(labels=names, level="c2", convs=1, width=8, detach=True),
        "auxiliary": Semantic(labels=names, level="c4", auxiliary=True, width=8),
    }


def network(tasks: dict[str, Task], backbone: str = "test_resnet.r160_in1k", **options: Any) -> UPerNet:
    """A network in float64 whose batch norms have statistics of their own."""
    torch.manual_seed(0)
    model = build_model(ModelConfig(backbone=backbone.partition(".")[0], **options), tasks).eval().double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    for head in model.heads.values():
        nn.init.normal_(head.classifier.weight)
    return model


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-9) -> None:
    assert list(found) == list(expected)
    for name, logits in expected.items():
        assert found[name].shape == logits.shape
        torch.testing.assert_close(found[name], logits, rtol=0, atol=tolerance * logits.abs().max().item(), msg=name)


@settings(max_examples=12, deadline=None)
@given(
    batch=st.integers(1, 3),
    height=st.integers(32, 150),
    width=st.integers(32, 150),
    depth=st.sampled_from([16, 120]),
    align_corners=st.booleans(),
    order=st.sampled_from(["conv_upsample", "upsample_conv"]),
    pooling=st.sampled_from(["adaptive", "precise"]),
    level_norm=st.booleans(),
    winograd=st.booleans(),
    always=st.booleans(),
)
def test_every_decoder_gives_the_same_logits(
    batch: int,
    height: int,
    width: int,
    depth: int,
    align_corners: bool,
    order: str,
    pooling: str,
    level_norm: bool,
    winograd: bool,
    always: bool,
) -> None:
    """`always` has Winograd's algorithm compute also where plain convolutions take less work."""
    model = network(
        all_tasks(),
        width=depth,
        align_corners=align_corners,
        ppm_order=order,
        pooling=pooling,
        level_norm=level_norm,
    )
    image = torch.rand(batch, 3, height, width, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patched, torch.inference_mode():
        if always:
            patched.setattr("upernet.fused.winograd._is_less_work", lambda shape, answers: True)
        fused = fuse(model, winograd)
        expected = model(image)
        for _ in range(2):  # the second time in memory that is kept
            assert_equal(fused(image), expected)


def test_threads_may_share_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upernet.fused.winograd._is_less_work", lambda shape, answers: True)
    model = network(all_tasks(), width=16)
    fused = fuse(model)
    images = [torch.rand(1, 3, 64 + 16 * (i % 3), 80, dtype=torch.float64) for i in range(12)]

    def run(image: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode():
            return fused(image)

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(run, images))
    for image, logits in zip(images, found, strict=True):
        with torch.inference_mode():
            assert_equal(logits, model(image))


def test_what_pays_is_rewritten() -> None:
    fused = fuse(network(all_tasks(), width=120))
    assert isinstance(fused.decoder.fusion, FusedMergingConv) and isinstance(fused.decoder.ppm.out, FusedMergingConv)
    assert isinstance(fused.decoder.fusion.own, WinogradConv)
    assert all(isinstance(smooth, WinogradConv) for smooth in fused.decoder.smooth)
    assert sorted(fused.beginnings) == ["material", "object", "part"]
    plain = fuse(network(all_tasks(), width=120), winograd=False)
    assert not any(isinstance(module, WinogradConv) for module in plain.modules())


def test_no_batch_norm_is_left_where_a_convolution_precedes_it() -> None:
    fused = fuse(network(all_tasks(), width=16))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())


@pytest.mark.parametrize(
    "backbone",
    [
        "test_efficientnet.r160_in1k",
        "test_convnext.r160_in1k",
        "test_vit.r160_in1k",
        "tf_efficientnet_lite0",
        "resnet18d",
        "densenet121",
    ],
)
def test_other_backbones(backbone: str) -> None:
    model = network(all_tasks(), backbone, width=16)
    image = torch.rand(1, 3, 75, 98, dtype=torch.float64)
    with torch.inference_mode():
        assert_equal(fuse(model)(image), model(image), 1e-8)


def test_single_tasks_and_auxiliary_ones() -> None:
    model = network(all_tasks(), width=120)
    fused, image = fuse(model), torch.rand(1, 3, 64, 96, dtype=torch.float64)
    with torch.inference_mode():
        for names in (["part"], ["material", "scene"], ["auxiliary"], ["texture"], []):
            assert_equal(fused(image, names), model(image, names))


def test_float32_is_as_exact_as_the_plain_network() -> None:
    model = network(all_tasks(), width=120)
    image = torch.rand(2, 3, 97, 128, dtype=torch.float64)
    with torch.inference_mode():
        exact, fused = model(image), fuse(model.float())(image.float())
    for name, logits in exact.items():
        assert ((fused[name] - logits).abs().max() / logits.std()).item() < 1e-4, name


def test_the_given_network_stays_as_it_is() -> None:
    model = network(all_tasks(), width=120)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fused = fuse(model)
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    own = {value.data_ptr() for value in model.state_dict().values()}
    assert not own & {parameter.data_ptr() for parameter in fused.parameters()}


class Branching(nn.Module):
    """A convolution that a batch norm and something else read, one that is called twice, and one that can be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.first, self.second = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norms[0](self.shared(self.norms[0](self.shared(x))))
        y = self.first(x)
        return self.norms[1](y) + y + self.norms[2](self.second(x))


def test_only_a_convolution_with_one_reader_is_folded() -> None:
    torch.manual_seed(0)
    module = Branching().eval()
    for norm in module.norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        norm.running_mean.normal_()
    x = torch.rand(1, 3, 5, 5)
    expected = module(x)
    fold_batch_norms(module)
    assert [type(norm) for norm in module.norms] == [nn.BatchNorm2d, nn.BatchNorm2d, nn.Identity]
    torch.testing.assert_close(module(x), expected)
