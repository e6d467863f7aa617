"""Batch norms of modules that have two names, or share their weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upernet.fused.folding import fold_batch_norms


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.norm.running_mean = torch.randn(4)
        self.norm.running_var = torch.rand(4) + 0.5


class TwoNames(_Net):
    def __init__(self) -> None:
        super().__init__()
        self.same_conv, self.same_norm = self.conv, self.norm

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.same_norm(self.conv(x))
        return out


class ReadWeight(_Net):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x)) + F.conv2d(x, self.conv.weight, padding=1)
        return out


class SharedWeight(_Net):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(3, 4, 3, padding=1)
        self.other.weight = self.conv.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x)) + self.other(x)
        return out


@pytest.mark.parametrize(("kind", "folded"), [(TwoNames, True), (ReadWeight, False), (SharedWeight, False)])
def test_answers_stay(kind: type[_Net], folded: bool) -> None:
    torch.manual_seed(0)
    network, x = kind().eval(), torch.randn(2, 3, 9, 8)
    with torch.no_grad():
        expected = network(x)
        fold_batch_norms(network)
        torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-5)
    assert isinstance(network.norm, nn.Identity) is folded
    assert all(value.device.type == "cpu" for value in network.state_dict().values())
