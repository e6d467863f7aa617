"""Activation checkpointing: the same losses, gradients and running statistics, with fewer activations kept."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from upernet.config import ModelConfig
from upernet.engine.norms import use_cumulative_norms
from upernet.model.build import build_model
from upernet.model.decoder import MergingConv
from upernet.model.weight_gradients import QuickWeightGradients
from upernet.tasks import Scene, Semantic


def step(checkpoint: Any, context: AbstractContextManager[Any], *, cumulative: bool, frozen: bool) -> Any:
    """Two passes and their gradients, from the same weights and the same decisions of dropout."""
    torch.manual_seed(0)
    labels = ["a", "b"]
    tasks = {"object": Semantic(labels=labels, dropout=0.5), "scene": Scene(labels=labels, width=8)}
    network = build_model(ModelConfig(backbone="test_resnet", backbone_args={"drop_path_rate": 0.5}, width=8), tasks)
    if cumulative:
        use_cumulative_norms(network)
    network.train().to(memory_format=torch.channels_last)
    if frozen:
        network.backbone.eval()
    network.checkpoint = checkpoint
    for module in network.modules():
        if isinstance(module, MergingConv):
            module.taps = True
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.nbytes)
        return tensor

    for _ in range(2):
        image = torch.rand(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), context:
            logits = network(image)
        loss = torch.stack([z.square().mean() for z in logits.values()]).sum()
        loss.backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return loss.detach(), gradients, {name: b.clone() for name, b in network.named_buffers()}, sum(kept)


@pytest.mark.parametrize("options", [{}, {"cumulative": True}, {"frozen": True}], ids=["plain", "cumulative", "frozen"])
@pytest.mark.parametrize("quick", [False, True])
def test_the_same_in_less_memory(options: dict[str, bool], quick: bool) -> None:
    settings = {"cumulative": False, "frozen": False} | options
    known = None
    for checkpoint in ("none", "backbone", "all"):
        context = QuickWeightGradients() if quick else nullcontext()
        found = step(checkpoint, context, **settings)
        if known is not None:
            assert torch.equal(found[0], known[0])
            assert found[1].keys() == known[1].keys()
            for name, gradient in found[1].items():
                torch.testing.assert_close(gradient, known[1][name], rtol=1e-5, atol=1e-6)
            for name, buffer in found[2].items():
                assert torch.equal(buffer, known[2][name]), name
            assert found[3] < known[3]
        known = found


def test_in_evaluation_everything_is_as_it_was() -> None:
    torch.manual_seed(0)
    tasks: dict[str, Any] = {"object": Semantic(labels=["a", "b"])}
    network = build_model(ModelConfig(backbone="test_resnet", width=8), tasks).eval()
    image = torch.rand(1, 3, 32, 32)
    expected = network(image)["object"]
    network.checkpoint = "all"
    assert torch.equal(network(image)["object"], expected)
