"""Parameters and multiply-adds, against the specification."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_networks import semantic
from torch import Tensor, nn

from upernet.config import ModelConfig
from upernet.model.build import build_model
from upernet.model.counts import count_multiply_adds, count_parameters

R18C = {"backbone": "resnet18", "backbone_args": {"stem_type": "deep", "stem_width": 32}}


@pytest.mark.parametrize(
    ("backbone", "data", "total", "parts"),
    [
        ({"backbone": "resnet50c"}, "ade20k", 66_516_108, (23_527_264, 40_590_486, 2_398_358)),
        ({"backbone": "resnet50c"}, "cityscapes", 66_415_238, (23_527_264, 40_523_283, 2_364_691)),
        ({"backbone": "resnet50c"}, "voc", 66_416_778, (23_527_264, 40_524_309, 2_365_205)),
        ({"backbone": "resnet101c"}, "ade20k", 85_508_236, (42_519_392, 40_590_486, 2_398_358)),
        ({"backbone": "resnet101c"}, "cityscapes", 85_407_366, (42_519_392, 40_523_283, 2_364_691)),
        ({"backbone": "resnet101c"}, "voc", 85_408_906, (42_519_392, 40_524_309, 2_365_205)),
        (R18C, "ade20k", 41_503_372, (11_195_744, 29_678_742, 628_886)),
    ],
)
def test_parameters_are_those_of_the_specification(
    backbone: dict[str, Any], data: str, total: int, parts: tuple[int, int, int]
) -> None:
    with torch.device("meta"):
        found = count_parameters(build_model(ModelConfig(**backbone), semantic(data)))
    assert found["total"] == total
    assert (found["backbone"], found["decoder"] + found["heads"], found["auxiliary"]) == parts


@pytest.mark.parametrize(
    ("backbone", "data", "size", "giga"),
    [
        ("resnet50c", "ade20k", (512, 512), "237.9"),
        ("resnet50c", "cityscapes", (512, 1024), "473.5"),
        ("resnet50c", "cityscapes", (769, 769), "540.8"),
        ("resnet50c", "cityscapes", (1024, 2048), "1893.7"),
        ("resnet101c", "ade20k", (512, 512), "257.3"),
        ("resnet101c", "cityscapes", (512, 1024), "512.3"),
        ("resnet101c", "cityscapes", (769, 769), "586.2"),
        ("resnet101c", "cityscapes", (1024, 2048), "2048.9"),
    ],
)
def test_multiply_adds_are_those_of_the_specification(
    backbone: str, data: str, size: tuple[int, int], giga: str
) -> None:
    with torch.device("meta"):
        network = build_model(ModelConfig(backbone=backbone, align_corners=size == (769, 769)), semantic(data)).eval()
    found = count_multiply_adds(network, size)
    assert f"{found['total'] / 1e9:.1f}" == giga
    assert found["total"] == found["backbone"] + found["decoder"] + found["heads"]


def test_multiply_adds_of_matrix_products_count_except_those_of_pooling() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.line = nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.line(self.conv(x).mean(dim=(2, 3)))
            return y

    assert count_multiply_adds(Two(), (6, 7)) == {"total": 6 * 7 * 3 * 4 + 4 * 5}
