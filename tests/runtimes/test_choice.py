"""Which engine runs a network. Engines and graphs are stand-ins here, so that nothing need be installed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_model
import torch
from torch import Tensor, nn

from upernet.errors import UserError, WorkError
from upernet.model import UPerNet
from upernet.runtimes import choice
from upernet.runtimes.choice import engine_of, on_engine
from upernet.runtimes.engine import GRAPH, EngineNetwork
from upernet.runtimes.kept import graphs_folder
from upernet.runtimes.onnxruntime import open_graph
from upernet.runtimes.pytorch import TorchNetwork
from upernet.tasks import Semantic

CPU = torch.device("cpu")
IMAGE = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(1))


class Fast(nn.Module):
    """Stands for the rewritten network, which takes longer to make than all the rest here."""

    def __init__(self, network: UPerNet, winograd: bool = True, in_place: bool = False) -> None:
        super().__init__()
        self.network, self.winograd, self.tasks = network, winograd, network.tasks
        self.upsampling_align_corners = network.upsampling_align_corners

    def forward(self, image: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        logits: dict[str, Tensor] = self.network(image, tasks)
        return logits


class StandIn:
    """An engine that runs the networks that were written, in PyTorch."""

    name = "openvino"
    packages: tuple[str, ...] = ("torch",)
    devices = ("cpu",)

    def __init__(self) -> None:
        self.written: list[tuple[nn.Module, list[str]]] = []
        self.opened: list[tuple[list[str], int]] = []
        self.change: Callable[[np.ndarray], np.ndarray] = lambda logits: logits
        self.refuses = ""

    def write(self, network: nn.Module, path: Path, tasks: Sequence[str]) -> None:
        self.written.append((network, list(tasks)))
        path.write_text(str(len(self.written) - 1))

    def open(self, folder: Path, outputs: Sequence[int], threads: int, device: torch.device) -> Any:
        if self.refuses:
            raise RuntimeError(self.refuses)
        network, tasks = self.written[int((folder / GRAPH).read_text())]
        names = [tasks[i] for i in outputs]
        self.opened.append((names, threads))

        def run(image: np.ndarray) -> list[np.ndarray]:
            with torch.inference_mode():
                return [self.change(logits.numpy()) for logits in network(torch.from_numpy(image), names).values()]

        return run


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    engine = StandIn()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(choice, "ENGINES", {"openvino": engine})
    monkeypatch.setattr(choice, "write_graph", engine.write)
    monkeypatch.setattr(choice, "fuse", Fast)
    monkeypatch.setattr(choice, "version", lambda package: "1.0")
    monkeypatch.setattr(choice, "LEAST", 0)
    return engine


def network(seed: int = 0) -> UPerNet:
    return tiny_model.network(seed, auxiliary=Semantic(labels=["a"], level="c4", auxiliary=True, width=8)).eval()


def kept() -> list[Path]:
    return [path for path in graphs_folder().iterdir() if path.is_dir()]


def test_the_first_use_is_told_and_the_next_finds_the_graph(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    with torch.inference_mode():
        expected = network()(IMAGE)
    found = on_engine(network(), "openvino", CPU)
    (folder,) = kept()
    told = capsys.readouterr().err
    assert told.startswith("upernet: preparing the graph for openvino: ") and told.count("\n") == 1
    assert told.endswith(f" s, kept in {folder}, once per model\n")
    again = on_engine(network(), "openvino", CPU)
    assert capsys.readouterr().err == "" and len(engine.written) == 1
    for one in (found, again):
        assert engine_of(one) == "openvino"
        assert one.upsampling_align_corners == network().upsampling_align_corners
        logits = one(IMAGE, list(expected))
        assert list(logits) == list(expected) == ["scene", "object", "part"]
        for name, own in logits.items():
            torch.testing.assert_close(own, expected[name], rtol=0, atol=1e-4 * expected[name].std().item())
    with pytest.raises(UserError, match="unknown task 'materials'; valid tasks: scene, object, part"):
        found(IMAGE, ["materials"])


def test_what_changes_the_answers_changes_the_graph(engine: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    on_engine(network(), "openvino")
    on_engine(network(seed=1), "openvino")
    other = network()
    other.config = replace(other.config, mean=(0.0, 0.0, 0.0))
    on_engine(other, "openvino")
    monkeypatch.setattr(choice, "version", lambda package: "2.0" if package == "torch" else "1.0")
    on_engine(network(), "openvino")
    assert len(kept()) == len(engine.written) == 4


def test_a_damaged_graph_is_prepared_again(engine: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    on_engine(network(), "openvino")
    (kept()[0] / GRAPH).write_text("7")
    on_engine(network(), "openvino")(IMAGE, ["object"])
    assert len(engine.written) == 2 and capsys.readouterr().err.count("preparing") == 2


def wrong(engine: StandIn) -> str:
    engine.change = lambda logits: logits * 1.01
    return "engine openvino does not give the network's answers: logits of 'scene' differ by 0."


def not_a_number(engine: StandIn) -> str:
    engine.change = lambda logits: logits * np.float32("nan")
    return "engine openvino does not give the network's answers: logits of 'scene' differ by inf"


def unknown(engine: StandIn) -> str:
    engine.refuses = "no operation\n'Pad'" + 300 * "!"
    return "engine openvino fails on this network (no operation 'Pad'!!"


def unwritable(engine: StandIn) -> str:
    graphs_folder().parents[1].write_text("a file")
    return f"engine openvino: cannot keep its graph in {graphs_folder()}"


@pytest.mark.parametrize("fault", [wrong, not_a_number, unknown, unwritable])
def test_an_engine_that_fails(
    engine: StandIn, capsys: pytest.CaptureFixture[str], fault: Callable[[StandIn], str]
) -> None:
    told = fault(engine)
    with pytest.raises(WorkError) as error:
        on_engine(network(), "openvino", CPU)
    assert str(error.value).startswith(told) and "\n" not in str(error.value) and len(str(error.value)) < 400
    assert not graphs_folder().is_dir() or kept() == []
    assert capsys.readouterr().err == ""
    # Under auto it is told, and PyTorch computes.
    found = on_engine(network(), "auto", CPU, images=10**9)
    assert isinstance(found, Fast) and engine_of(found) == "torch"
    line = capsys.readouterr().err
    assert line.startswith(f"upernet: {told}") and line.endswith("; PyTorch computes instead\n")


def test_auto_prepares_a_graph_for_long_work_only(engine: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    work = choice.count_multiply_adds(network(), choice.SIZE)["total"]
    monkeypatch.setattr(choice, "PAYS", 10 * work)
    assert isinstance(on_engine(network()), Fast)
    assert isinstance(on_engine(network(), images=9), Fast) and not graphs_folder().exists()
    assert isinstance(on_engine(network(), images=10), EngineNetwork)
    assert isinstance(on_engine(network()), EngineNetwork)  # the graph is there
    assert isinstance(on_engine(network(seed=1)), Fast)
    assert isinstance(on_engine(network(), "torch", images=10), Fast)


def test_auto_takes_pytorch_for_small_networks(engine: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    on_engine(network(), "openvino")
    monkeypatch.setattr(choice, "LEAST", choice.count_multiply_adds(network(), choice.SIZE)["total"])
    assert isinstance(on_engine(network(), images=10**9), EngineNetwork)
    monkeypatch.setattr(choice, "LEAST", choice.LEAST + 1)
    assert isinstance(on_engine(network(), images=10**9), Fast)


def test_an_engine_that_is_not_installed(engine: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    engine.packages = ("torch", "no_such_engine")
    with pytest.raises(UserError) as error:
        on_engine(network(), "openvino")
    assert str(error.value) == "engine openvino is not installed; pip install 'upernet[openvino]'"
    assert isinstance(on_engine(network(), images=10**9), Fast) and capsys.readouterr().err == ""


def test_devices(engine: StandIn) -> None:
    with pytest.raises(UserError, match="engine openvino does not compute on cuda; valid: --device cpu"):
        on_engine(network(), "openvino", torch.device("cuda"))
    # On a device that the engine does not know, auto is PyTorch with the plain network.
    found = on_engine(network(), "auto", torch.device("meta"), images=10**9)
    assert isinstance(found, UPerNet) and next(found.parameters()).device.type == "meta"


@pytest.mark.parametrize("reference", [True, False])
def test_precisions(engine: StandIn, reference: bool) -> None:
    # Only PyTorch computes in 16 bits, and Winograd's algorithm does not bear it.
    found = on_engine(network(), precision="bf16", images=10**9, reference=reference)
    assert isinstance(found, TorchNetwork) and found.precision == "bf16" and engine.written == []
    assert isinstance(found.network, UPerNet if reference else Fast)
    assert reference or not found.network.winograd
    logits = found(IMAGE, ["object"])
    assert logits["object"].dtype == torch.float32 and engine_of(found) == "torch"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("openvino", CPU, "bf16"), "engine openvino computes in float32 only; leave it out, or precision 'bf16'"),
        (("auto", CPU, "tf32"), "precision tf32: cpu has no such arithmetic; valid: float32, bf16, fp16"),
        (("auto", torch.device("cuda"), "bf16"), "precision bf16: Old GPU lacks it; valid: float32, tf32, fp16"),
    ],
)
def test_precisions_that_cannot_be(engine: StandIn, monkeypatch: pytest.MonkeyPatch, arguments: Any, told: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old GPU")
    name, device, precision = arguments
    with pytest.raises(UserError) as error:
        on_engine(network(), name, device, precision=precision)
    assert str(error.value) == told


def test_on_a_gpu_the_rewritten_form_runs_in_pytorch(engine: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Module, "to", lambda self, device: self)  # there is none
    found = on_engine(network(), device=torch.device("cuda"), images=10**9)
    assert isinstance(found, TorchNetwork) and found.precision == "float32"
    assert isinstance(found.network, Fast) and not found.network.winograd
    plain = network()
    assert on_engine(plain, device=torch.device("cuda"), reference=True) is plain


def test_onnx_runtime_without_support_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    options = SimpleNamespace(add_session_config_entry=lambda key, value: None)
    stand_in = SimpleNamespace(SessionOptions=lambda: options, get_available_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setitem(sys.modules, "onnxruntime", stand_in)
    with pytest.raises(UserError, match="the installed package computes on CPUs only; pip install onnxruntime-gpu"):
        open_graph(b"", [0], 1, torch.device("cuda"))


def test_the_reference_is_the_plain_network(engine: StandIn) -> None:
    plain = network()
    assert on_engine(plain, reference=True, images=10**9) is plain
    assert on_engine(plain, "torch", reference=True) is plain
    with pytest.raises(UserError, match="reference is the plain network in PyTorch; leave it out, or engine 'openv"):
        on_engine(plain, "openvino", reference=True)


def test_networks_of_others_are_used_as_they_are(engine: StandIn) -> None:
    class Theirs:
        upsampling_align_corners = False

        def __call__(self, image: Any, tasks: Any) -> dict[str, Any]:
            return {}

    theirs, module = Theirs(), nn.Identity()
    with pytest.raises(UserError, match="precision bf16: this network computes in its own; valid: float32"):
        on_engine(theirs, precision="bf16")
    assert on_engine(theirs, images=10**9) is theirs and engine_of(theirs) == "torch"
    assert on_engine(module, images=10**9) is module  # type: ignore[arg-type]


def test_a_graph_is_opened_for_tasks_and_threads(engine: StandIn) -> None:
    found = on_engine(network(), "openvino")
    engine.opened.clear()
    before = torch.get_num_threads()
    try:
        found(IMAGE, ["part", "object", "part"])
        found(IMAGE, ["part", "object"])
        torch.set_num_threads(before + 1)
        found(IMAGE, ["part", "object"])
        torch.set_num_threads(before)
        found(IMAGE, ["part", "object"])
        assert engine.opened == [(["part", "object"], before), (["part", "object"], before + 1)]
        found(IMAGE, ["scene"])  # the third; the one that was not used for longest is closed
        found(IMAGE, ["part", "object"])
        torch.set_num_threads(before + 1)
        found(IMAGE, ["part", "object"])
    finally:
        torch.set_num_threads(before)
    assert engine.opened[2:] == [(["scene"], before), (["part", "object"], before + 1)]
    assert found(IMAGE, []) == {}


def test_errors_while_it_runs(engine: StandIn) -> None:
    found = on_engine(network(), "openvino")

    def fail(text: str) -> Callable[[np.ndarray], np.ndarray]:
        def change(logits: np.ndarray) -> np.ndarray:
            raise RuntimeError(text)

        return change

    engine.change = fail("std::bad_alloc")
    with pytest.raises(MemoryError):
        found(IMAGE, ["scene"])
    engine.change = fail("shapes\ndiffer")
    with pytest.raises(WorkError) as error:
        found(IMAGE, ["scene"])
    shown = "engine openvino failed on images of shape (2, 3, 48, 64) (shapes differ); try --engine torch"
    assert str(error.value) == shown
