"""The plain network's graph in engines: those that are installed answer as the network does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_networks import semantic, shown, tiny

from upernet.compare.agreement import exact_answers
from upernet.compare.graphs import ENGINES
from upernet.compare.ours import seeded_network
from upernet.compare.twins import GraphWriter
from upernet.config import InferenceConfig
from upernet.errors import UserError, WorkError
from upernet.store.native import save_model
from upernet.tasks import Object, Task


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> GraphWriter:
    """The graph of a small network, which takes seconds to write."""
    pytest.importorskip("onnxscript")
    tasks: dict[str, Task] = {**semantic(), "object": Object(labels=["c", "d"], width=8)}
    folder = tmp_path_factory.mktemp("model")
    network = seeded_network(tiny(), tasks)
    save_model(folder, network, tasks, InferenceConfig())
    return GraphWriter(network, tasks, folder, [])


@pytest.mark.parametrize("name", ENGINES)
@torch.inference_mode()
def test_an_engine_answers_as_the_network_does(name: str, written: GraphWriter) -> None:
    pytest.importorskip(ENGINES[name].module)
    trial = shown((64, 96), batch=2).trial()
    contender = written.contender(name, shown())
    implementation = contender.opening(trial)()
    found = exact_answers(contender.exact, trial).compare(implementation.logits(), implementation.run())
    assert found.disagreement < (2e-2 if name == "mnn" else 1e-4)
    assert found.equal_classes > (0.98 if name == "mnn" else 0.999)
    assert contender.differences == ("answers decoded by upernet",)
    assert implementation.version[0].isdigit()


def test_what_engines_do_not_compute_is_told(written: GraphWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    with pytest.raises(UserError, match="on a CPU in float32 only"):
        written.contender("openvino", shown(precision="bf16"))

    def refuse(*given: Any) -> None:
        raise RuntimeError("no such\noperation")

    monkeypatch.setattr("upernet.compare.twins.trace", refuse)
    fresh = GraphWriter(seeded_network(tiny(), semantic()), semantic(), Path(), [])
    with pytest.raises(WorkError, match="the network cannot be exported"):
        fresh.contender("openvino", shown())


def test_an_engine_that_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = semantic()
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match="openvino is missing"):
        GraphWriter(seeded_network(tiny(), tasks), tasks, tmp_path, []).contender("openvino", shown())
