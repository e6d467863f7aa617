"""Weights that were read: every tensor has its place, or a line says which has none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import moved, network, save, tasks

from upernet.config import ModelConfig
from upernet.errors import UserError, WorkError
from upernet.model.build import build_model
from upernet.store.native import WEIGHTS
from upernet.store.weights import check_tensors, load_weights
from upernet.tasks import Object, Scene


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "m")


def test_starting_from_a_model_with_other_tasks(folder: Path) -> None:
    """Heads of the same shape are taken; one with other classes, and one that is new, keep their own start."""
    trees = Object(labels=["car", "house", "tree"], width=8)
    model = network(1, object=trees, new=Scene(labels=["a", "b"], width=8), scene=None)
    start, given = {k: v.clone() for k, v in model.state_dict().items()}, load_file(folder / WEIGHTS)
    load_weights(model, load_file(folder / WEIGHTS), str(folder / WEIGHTS), partial=True)
    for name, value in model.state_dict().items():
        fresh = name.startswith(("heads.object.", "heads.new."))
        assert torch.equal(value, start[name] if fresh else given[name]), name


def test_a_head_is_taken_whole_or_not_at_all(folder: Path) -> None:
    """The convolution of the object head would fit, but its classifier has other classes."""
    model = network(1, object=Object(labels=["car", "house", "tree"], width=8))
    before = {k: v.clone() for k, v in model.heads["object"].state_dict().items()}
    load_weights(model, load_file(folder / WEIGHTS), str(folder / WEIGHTS), partial=True)
    assert not moved(before, model.heads["object"].state_dict())


def test_another_backbone_is_no_start(folder: Path) -> None:
    model = build_model(ModelConfig(backbone="test_efficientnet", width=8), tasks())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(UserError, match=r"tensors do not fit the network, width 8 on test_efficientnet: backbone\."):
        load_weights(model, load_file(folder / WEIGHTS), str(folder / WEIGHTS), partial=True)
    assert not moved(before, model.state_dict())


def test_a_start_that_lacks_a_tensor_of_the_network_is_told(folder: Path) -> None:
    """Only heads may be missing."""
    given = load_file(folder / WEIGHTS)
    name = next(name for name in given if name.startswith("decoder.") and name.endswith(".weight"))
    del given[name]
    save_file(given, folder / WEIGHTS)
    with pytest.raises(WorkError, match=rf"1 tensors do not fit .*: {name} is missing"):
        load_weights(network(1, scene=None), load_file(folder / WEIGHTS), str(folder / WEIGHTS), partial=True)


def test_without_partial_every_head_must_fit(folder: Path) -> None:
    with pytest.raises(UserError, match="do not fit the network"):
        load_weights(network(1, scene=None), load_file(folder / WEIGHTS), str(folder / WEIGHTS))


def test_differences_are_told_in_the_names_of_the_file() -> None:
    """Every kind of difference, and the counts of batches that may be missing."""
    model = network()
    state = {k: v for k, v in model.state_dict().items() if not k.endswith(".num_batches_tracked")}
    check_tensors(model, state, "w.pth")
    bias = "heads.object.classifier.bias"
    wrong = {k: v for k, v in state.items() if k != bias} | {
        "more": torch.zeros(1),
        "decoder.fusion.bn.bias": torch.zeros(3),
    }
    with pytest.raises(WorkError) as caught:
        check_tensors(model, wrong, "w.pth", lambda name: f"their.{name}")
    assert str(caught.value) == (
        "w.pth: 3 tensors do not fit the network, width 8 on test_resnet: their.decoder.fusion.bn.bias is [3] instead "
        "of [8], their.heads.object.classifier.bias is missing, their.more has no place"
    )
