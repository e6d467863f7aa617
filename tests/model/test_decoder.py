"""`model/decoder.py`: what each level is, and that no more than it needs is computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upernet.config import ModelConfig
from upernet.contract import LEVELS
from upernet.model.decoder import PPM, ConvBNReLU, Decoder

CHANNELS = [3, 4, 5, 6]


def features(batch: int = 2, size: tuple[int, int] = (64, 96)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, c, -(-size[0] // s), -(-size[1] // s), generator=generator)
        for c, s in zip(CHANNELS, (4, 8, 16, 32), strict=True)
    ]


def decoder(**options: Any) -> Decoder:
    torch.manual_seed(1)
    return Decoder(CHANNELS, ModelConfig(width=8, **options))


@contextmanager
def counting(model: nn.Module) -> Iterator[list[str]]:
    """Names of the convolution blocks that ran, in order."""
    ran: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, module in model.named_modules()
        if isinstance(module, ConvBNReLU)
    ]
    yield ran
    for hook in hooks:
        hook.remove()


PPM_RUN = [*(f"ppm.branches.{i}" for i in range(4)), "ppm.out"]
LATERALS = [f"lateral.{i}" for i in (2, 1, 0)]


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (set(), []),
        ({"c2", "c5"}, []),
        ({"ppm"}, PPM_RUN),
        ({"ppm", "c4"}, PPM_RUN),
        ({"p4"}, [*PPM_RUN, "lateral.2", "smooth.2"]),
        ({"p3"}, [*PPM_RUN, "lateral.2", "lateral.1", "smooth.1"]),
        ({"p2"}, [*PPM_RUN, *LATERALS, "smooth.0"]),
        ({"fused"}, [*PPM_RUN, *LATERALS, *(f"smooth.{i}" for i in range(3)), "fusion"]),
    ],
)
def test_only_what_is_needed_runs(levels: set[str], expected: list[str]) -> None:
    model = decoder().eval()
    with counting(model) as ran:
        pyramid = model(features(), levels)
    assert pyramid.keys() == levels
    assert sorted(ran) == sorted(expected)


def test_levels_do_not_depend_on_what_else_is_asked() -> None:
    model = decoder().eval()
    everything = model(features(), set(LEVELS))
    for level in LEVELS:
        assert torch.equal(model(features(), {level})[level], everything[level])


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("order", ["conv_upsample", "upsample_conv"])
def test_levels_are_the_papers(order: str, align_corners: bool) -> None:
    model = decoder(ppm_order=order, align_corners=align_corners).eval()
    c = features(size=(72, 100))

    def up(x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=align_corners)

    branches = []
    for bins, branch in zip((1, 2, 3, 6), model.ppm.branches, strict=True):
        x = F.adaptive_avg_pool2d(c[3], bins)
        branches.append(up(branch(x), c[3]) if order == "conv_upsample" else branch(up(x, c[3])))
    p5 = model.ppm.out(torch.cat([c[3], *branches], 1))
    l4 = model.lateral[2](c[2]) + up(p5, c[2])
    l3 = model.lateral[1](c[1]) + up(l4, c[1])
    l2 = model.lateral[0](c[0]) + up(l3, c[0])
    p2, p3, p4 = (smooth(x) for smooth, x in zip(model.smooth, (l2, l3, l4), strict=True))
    fused = model.fusion(torch.cat([p2, up(p3, p2), up(p4, p2), up(p5, p2)], 1))

    pyramid = model(c, set(LEVELS))
    for level, expected in {"ppm": p5, "p4": p4, "p3": p3, "p2": p2, "fused": fused}.items():
        torch.testing.assert_close(pyramid[level], expected, rtol=1e-5, atol=1e-5)
    assert all(pyramid[f"c{i + 2}"] is c[i] for i in range(4))


def test_the_orders_of_a_branch_differ() -> None:
    first, second = decoder(ppm_order="conv_upsample").eval(), decoder(ppm_order="upsample_conv").eval()
    second.load_state_dict(first.state_dict())
    c = features(size=(128, 128))
    assert not torch.allclose(first(c, {"ppm"})["ppm"], second(c, {"ppm"})["ppm"], atol=1e-3)


def test_pooling_is_configurable() -> None:
    first, second = decoder(pooling="adaptive").eval(), decoder(pooling="precise").eval()
    second.load_state_dict(first.state_dict())
    assert not torch.allclose(first(features(), {"ppm"})["ppm"], second(features(), {"ppm"})["ppm"], atol=1e-3)


def test_pool_scales_are_configurable() -> None:
    ppm = PPM(6, ModelConfig(width=8, pool_scales=(1, 4)))
    assert len(ppm.branches) == 2
    assert ppm.out.conv.in_channels == 6 + 2 * 8


def test_level_norm_is_what_heads_read() -> None:
    model = decoder(level_norm=True).eval()
    c = features()
    for i, norm in enumerate(model.norms):
        nn.init.constant_(norm.weight, i + 1.0)
    for i, x in enumerate(c):
        level = model(c, {f"c{i + 2}"})[f"c{i + 2}"]
        assert level.shape == x.shape
        torch.testing.assert_close(level.mean(1), torch.zeros_like(level[:, 0]), atol=1e-5, rtol=0)
        expected = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt() * (i + 1)
        torch.testing.assert_close(level, expected, atol=1e-4, rtol=1e-4)


def test_caller_keeps_its_features() -> None:
    c = features()
    copies = [x.clone() for x in c]
    decoder(level_norm=True)(c, set(LEVELS))
    assert all(torch.equal(a, b) for a, b in zip(c, copies, strict=True))


@pytest.mark.parametrize("size", [(32, 32), (33, 97)])
@pytest.mark.parametrize("batch", [1, 2])
def test_any_batch_trains(batch: int, size: tuple[int, int]) -> None:
    model = decoder().train()
    x = [f.requires_grad_() for f in features(batch, size)]
    sum(level.square().mean() for level in model(x, set(LEVELS)).values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(f.grad is not None and f.grad.isfinite().all() for f in x)


def test_one_value_per_channel_uses_running_statistics() -> None:
    block = ConvBNReLU(3, 4, 1)
    one = torch.randn(1, 3, 1, 1)
    assert torch.equal(block.train()(one), block.eval()(one))
    assert block.bn.num_batches_tracked == 0
    block.train()(torch.randn(2, 3, 1, 1))
    assert block.bn.num_batches_tracked == 1
    assert not torch.equal(block.bn.running_mean, torch.zeros(4))


def test_gradient_is_exact() -> None:
    model = decoder(level_norm=True, pooling="precise").double().eval()
    c = [f.double().requires_grad_() for f in features(1, (32, 40))]
    assert torch.autograd.gradcheck(lambda *x: model(x, {"fused"})["fused"], c, fast_mode=True)


def test_names() -> None:
    keys = decoder(level_norm=True).state_dict().keys()
    blocks = {key.rsplit(".", 2)[0] for key in keys if key.endswith((".conv.weight", ".bn.running_mean"))}
    assert blocks == {*PPM_RUN, *LATERALS, *(f"smooth.{i}" for i in range(3)), "fusion"}
    assert {key for key in keys if key.startswith("norms.")} == {
        f"norms.{i}.{name}" for i in range(4) for name in ("weight", "bias")
    }
    assert not any(key.startswith("norms.") for key in decoder().state_dict())


def test_channels() -> None:
    assert decoder().channels == {"c2": 3, "c3": 4, "c4": 5, "c5": 6} | dict.fromkeys(LEVELS[4:], 8)


def test_initial_weights() -> None:
    block = ConvBNReLU(64, 128, 3)
    assert block.conv.weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert block.conv.bias is None
    assert block.bn.weight.eq(1).all()
    assert block.bn.bias.eq(0).all()
