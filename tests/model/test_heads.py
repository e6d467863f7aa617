"""`model/heads.py`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from upernet.model.heads import DenseHead, ImageHead


def test_image_head_averages_after_its_convolution() -> None:
    head = ImageHead(6, 8, 5).eval()
    x = torch.randn(2, 6, 3, 7)
    expected = head.conv(x).flatten(2).mean(2) @ head.classifier.weight.T + head.classifier.bias
    torch.testing.assert_close(head(x), expected)
    assert head(x).shape == (2, 5)


@pytest.mark.parametrize("convs", [0, 1, 4])
def test_dense_head(convs: int) -> None:
    head = DenseHead(6, 5, convs=convs, width=8, dropout=0.1)
    assert head(torch.randn(2, 6, 3, 7)).shape == (2, 5, 3, 7)
    assert [m.kernel_size for m in head.modules() if isinstance(m, nn.Conv2d)] == [(3, 3)] * convs + [(1, 1)]
    assert head.classifier.in_channels == (8 if convs else 6)


def test_dense_head_drops_whole_channels_in_training_only() -> None:
    head = DenseHead(4, 4, convs=0, width=0, dropout=0.5)
    nn.init.eye_(head.classifier.weight[:, :, 0, 0])
    x = torch.ones(8, 4, 3, 3)
    torch.manual_seed(0)
    seen = head.train()(x)
    assert {v.item() for v in seen.detach().amin((2, 3)).unique()} == {0.0, 2.0}
    assert torch.equal(seen.amin((2, 3)), seen.amax((2, 3)))
    assert torch.equal(head.eval()(x), x)


@pytest.mark.parametrize("head", [ImageHead(4, 512, 400), DenseHead(512, 400, convs=0, width=0, dropout=0.0)])
def test_classifier_starts_near_zero(head: ImageHead | DenseHead) -> None:
    assert head.classifier.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert head.classifier.bias is not None
    assert head.classifier.bias.eq(0).all()


def test_image_head_trains_on_one_position() -> None:
    head = ImageHead(6, 8, 5).train()
    head(torch.randn(1, 6, 1, 1)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
