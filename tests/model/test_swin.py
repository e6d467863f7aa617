"""`model/swin.py`: the blocks that are traced give the answers of timm's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.swin_transformer import PatchMerging, SwinTransformerBlock
from torch import nn

from upernet.model.backbone import Backbone
from upernet.model.swin import set_blocks

SWIN: dict[str, Any] = {"embed_dim": 8, "depths": [2, 2, 2, 2], "num_heads": [1, 1, 2, 2]}


def backbone(shift_first: bool) -> Backbone:
    torch.manual_seed(0)
    made = Backbone("swin_tiny_patch4_window7_224", SWIN | {"shift_first": shift_first}).eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.2)
    return made


def as_timm_has_it(model: nn.Module) -> None:
    for module in model.modules():
        for kind in (SwinTransformerBlock, PatchMerging):
            if isinstance(module, kind):
                module.__class__ = kind


@pytest.mark.parametrize("size", [(32, 32), (97, 250), (224, 224)])
def test_blocks_that_shift_first_are_timms(size: tuple[int, int]) -> None:
    model, image = backbone(True), torch.randn(2, 3, *size)
    with torch.no_grad():
        ours = model(image)
        as_timm_has_it(model)
        theirs = model(image)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_the_order_matters_where_windows_do_not_fill_the_map_and_only_there() -> None:
    model = backbone(False)
    for size, same in (((224, 448), True), ((97, 250), False)):
        image = torch.randn(1, 3, *size)
        with torch.no_grad():
            ours = model(image)
            as_timm_has_it(model)
            theirs = model(image)
            set_blocks(model, shift_first=False)
        assert torch.equal(ours[0], theirs[0]) == same
