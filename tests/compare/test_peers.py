"""The same network in other software: a stand-in for one library everywhere, the real ones where they are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_networks import semantic, stand_in_library, tiny, trial

import upernet
from upernet.compare.agreement import exact_answers
from upernet.compare.implementation import Implementation
from upernet.compare.ours import seeded_network
from upernet.compare.peers import PEERS
from upernet.compare.twins import peer_contender
from upernet.config import InferenceConfig, ModelConfig
from upernet.model.counts import count_multiply_adds
from upernet.tasks import Object, Task


@torch.inference_mode()
def disagreement(name: str, model: Any, tasks: dict[str, Task], folder: Path) -> tuple[Any, Implementation, float]:
    peer = peer_contender(name, model, tasks, InferenceConfig(), folder)
    implementation = peer.opening(trial())()
    found = exact_answers(peer.exact, trial()).compare(implementation.logits(), implementation.run())
    return peer, implementation, found.disagreement


def test_a_peer_has_our_weights_and_answers_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in_library(tmp_path, monkeypatch)
    tasks = semantic()
    model = seeded_network(tiny(), tasks)
    peer, implementation, found = disagreement("smp", model, tasks, tmp_path)
    assert (peer.name, implementation.version) == ("smp", "9.9")
    changed = ("logits_align_corners True, not False", "level_norm True, not False")
    assert peer.differences == (*changed, "no auxiliary head")
    assert found < 1e-4
    theirs: Any = implementation.network
    assert torch.equal(theirs.network.decoder.fusion.conv.weight, model.decoder.fusion.conv.weight)
    assert count_multiply_adds(theirs, (64, 96))["total"] > 0


def test_a_peer_that_answers_otherwise_is_found_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bgr = "Theirs.right = Theirs.forward; Theirs.forward = lambda self, x: self.right(x.flip(1))"
    stand_in_library(tmp_path, monkeypatch, bgr)
    tasks = semantic(auxiliary=False)
    assert disagreement("smp", seeded_network(tiny(), tasks), tasks, tmp_path)[2] > 0.01


REAL = {"mmseg": "mmseg", "transformers": "transformers", "smp": "segmentation_models_pytorch"}


@pytest.mark.parametrize("name", PEERS)
def test_real_peers_answer_the_same(name: str, tmp_path: Path) -> None:
    pytest.importorskip("mmengine" if name == "mmseg" else REAL[name])
    tasks = semantic()
    model = seeded_network(ModelConfig(backbone="resnet18", width=16), tasks)
    assert disagreement(name, model, tasks, tmp_path)[2] < 1e-4


def test_other_networks_have_no_peer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in_library(tmp_path, monkeypatch)
    tasks: dict[str, Task] = {"object": Object(labels=["c", "d"], width=8)}
    with pytest.raises(upernet.UserError, match="object"):
        peer_contender("smp", seeded_network(tiny(), tasks), tasks, InferenceConfig(), tmp_path)
    tasks = semantic()
    windows = trial(window=(64, 64), stride=(32, 32))
    peer = peer_contender("smp", seeded_network(tiny(), tasks), tasks, windows.inference, tmp_path)
    with pytest.raises(upernet.UserError, match="has no sliding windows"):
        peer.opening(windows)
