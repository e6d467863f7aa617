"""The same network in other software: a stand-in for one library everywhere, the real ones where they are installed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_networks import Theirs, semantic, stand_in_library, tiny, trial
from torch import Tensor

import upernet
from upernet.compare.ours import seeded_network
from upernet.compare.peers import PEERS, peer_implementation
from upernet.config import ModelConfig
from upernet.model.counts import count_multiply_adds
from upernet.tasks import Object, Task


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    return stand_in_library(monkeypatch)


def test_a_peer_has_our_weights_and_answers_the_same(library: Any) -> None:
    tasks = semantic()
    model = seeded_network(tiny(), tasks)
    peer = peer_implementation("smp", model, tasks, trial())
    assert (peer.name, peer.version) == ("smp", "9.9")
    changed = ("logits_align_corners True, not False", "level_norm True, not False")
    assert peer.differences == (*changed, "no auxiliary head")
    assert peer.disagreement is not None
    assert peer.disagreement < 1e-4
    theirs: Any = peer.network
    assert torch.equal(theirs.network.decoder.fusion.conv.weight, model.decoder.fusion.conv.weight)
    assert peer.multiply_adds == count_multiply_adds(theirs, (64, 96))["total"]
    with torch.inference_mode():
        labels: Any = peer.run()
    assert labels.shape == (1, 64, 96)


def test_a_peer_that_answers_otherwise_is_found_out(library: Any) -> None:
    class Wrong(Theirs):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.flip(1))  # BGR

    library.from_pretrained = Wrong
    tasks = semantic(auxiliary=False)
    peer = peer_implementation("smp", seeded_network(tiny(), tasks), tasks, trial())
    assert peer.disagreement is not None
    assert peer.disagreement > 0.01


REAL = {"mmseg": "mmseg", "transformers": "transformers", "smp": "segmentation_models_pytorch"}


@pytest.mark.parametrize("name", PEERS)
def test_real_peers_answer_the_same(name: str) -> None:
    pytest.importorskip("mmengine" if name == "mmseg" else REAL[name])
    tasks = semantic()
    peer = peer_implementation(name, seeded_network(ModelConfig(backbone="resnet18", width=16), tasks), tasks, trial())
    assert peer.disagreement is not None
    assert peer.disagreement < 1e-4


def test_other_networks_have_no_peer(library: Any) -> None:
    tasks: dict[str, Task] = {"object": Object(labels=["c", "d"], width=8)}
    with pytest.raises(upernet.UserError, match="object"):
        peer_implementation("smp", seeded_network(tiny(), tasks), tasks, trial())
    tasks = semantic()
    windows = trial(window=(64, 64), stride=(32, 32))
    with pytest.raises(upernet.UserError, match="has no sliding windows"):
        peer_implementation("smp", seeded_network(tiny(), tasks), tasks, windows)
