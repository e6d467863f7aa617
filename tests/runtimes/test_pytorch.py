"""The network in a precision, and captured in CUDA graphs, without a GPU."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest
import tiny_model
import torch
from small_networks import semantic, tiny
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from upernet.compare.ours import seeded_network
from upernet.fused import fuse
from upernet.fused.taps import EnlargedConv
from upernet.model import constants
from upernet.runtimes import pytorch
from upernet.runtimes.pytorch import LARGEST, REPEATS, SIZES, TorchNetwork

NAMES = ["scene", "object", "part"]


def image(seed: int = 0, size: tuple[int, int] = (48, 64), batch: int = 1) -> Tensor:
    shown = torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(seed))
    return shown.contiguous(memory_format=torch.channels_last)


def network() -> nn.Module:
    return fuse(tiny_model.network().eval(), winograd=False)


def tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


class Graph:
    """Stands for a CUDA graph: operations on fixed memory, done again with whatever the memory holds by then."""

    made: ClassVar[list[Graph]] = []

    def __init__(self) -> None:
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.shared: Any = None
        self.replays = 0
        self.made.append(self)

    def pool(self) -> Any:
        return self.shared or id(self)

    def replay(self) -> None:
        self.replays += 1
        with torch.inference_mode():
            for func, args, kwargs, out in self.operations:
                for old, new in zip(tensors(out), tensors(func(*args, **kwargs)), strict=True):
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)


class Capture(TorchDispatchMode):
    """Stands for `torch.cuda.graph`. Captured memory holds nothing before the first replay."""

    refuses = ""

    def __init__(self, graph: Graph, pool: Any = None, capture_error_mode: str = "global") -> None:
        super().__init__()
        assert capture_error_mode == "thread_local"
        self.graph, graph.shared = graph, pool

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.refuses:
            raise RuntimeError(self.refuses)
        assert func is not torch.ops.aten._local_scalar_dense.default, "a captured operation is waited for"
        out = func(*args, **(kwargs or {}))
        self.graph.operations.append((func, args, kwargs or {}, out))
        return out

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for _, args, kwargs, out in self.graph.operations:
            read = {t.untyped_storage().data_ptr() for t in tensors((args, kwargs))}
            for tensor in tensors(out):
                if tensor.untyped_storage().data_ptr() not in read:
                    tensor.fill_(float("nan") if tensor.is_floating_point() else 0)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    monkeypatch.setattr(pytorch, "CAPTURING", "cpu")
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", Capture)
    monkeypatch.setattr(Graph, "made", [])
    return Graph.made


@pytest.mark.parametrize("inference", [True, False])
def test_a_size_that_repeats_is_captured(graphs: list[Graph], inference: bool) -> None:
    plain = network()
    captured = TorchNetwork(plain, "float32")
    answers = []
    with torch.inference_mode(inference):
        for number in range(REPEATS + 3):
            assert len(graphs) == (number >= REPEATS), number
            answers.append(captured(image(number), NAMES))
    assert [graph.replays for graph in graphs] == [4]
    with torch.inference_mode():
        for number, logits in enumerate(answers):  # later calls have not changed them
            for name, expected in plain(image(number), NAMES).items():
                torch.testing.assert_close(logits[name], expected)
                assert logits[name].dtype == torch.float32


def test_threads_take_turns(graphs: list[Graph]) -> None:
    plain = network()
    captured = TorchNetwork(plain, "float32")
    shown = [image(number) for number in range(12)]
    with torch.inference_mode():
        expected = [plain(one, ["object"])["object"] for one in shown]

    def run(one: Tensor) -> Tensor:
        with torch.inference_mode():
            return captured(one, ["object"])["object"]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(run, shown))
    assert len(graphs) == 1 and graphs[0].replays == len(shown) - REPEATS + 1
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other)


def test_other_sizes_and_tasks_have_their_own(graphs: list[Graph]) -> None:
    plain = network()
    captured = TorchNetwork(plain, "float32")
    with torch.inference_mode():
        for number in range(REPEATS + 1):  # in turns, as the windows of an image and the rest of them come
            for size, batch, names in (((48, 64), 1, NAMES), ((64, 48), 1, NAMES), ((48, 64), 2, ["object"])):
                shown = image(number, size, batch)
                found = captured(shown, names)
                assert list(found) == names
                for name, expected in plain(shown, names).items():
                    torch.testing.assert_close(found[name], expected)
    assert [graph.replays for graph in graphs] == [2, 2, 2]
    assert graphs[0].shared is None and {graph.pool() for graph in graphs[1:]} == {graphs[0].pool()}


def test_few_graphs_are_kept(graphs: list[Graph]) -> None:
    captured = TorchNetwork(network(), "float32")
    with torch.inference_mode():
        for width in range(32, 32 + SIZES + 1):
            for _ in range(REPEATS):
                captured(image(size=(32, width)), ["object"])
        assert len(graphs) == SIZES + 1 and len(captured._seen) == SIZES
        captured(image(size=(32, 32)), ["object"])  # the first is forgotten
        assert graphs[0].replays == 1
        captured.to(torch.float32)  # tensors may have moved
    assert not captured._seen


def test_what_is_large_is_not_captured(graphs: list[Graph], monkeypatch: pytest.MonkeyPatch) -> None:
    assert LARGEST == 1024 * 2048
    monkeypatch.setattr(pytorch, "LARGEST", 48 * 64)
    captured = TorchNetwork(network(), "float32")
    with torch.inference_mode():
        for _ in range(REPEATS):
            captured(image(batch=2), ["object"])
            captured(image(), ["object"])
    assert len(graphs) == 1 and len(captured._seen) == 1


def test_where_capturing_fails(
    graphs: list[Graph], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = network()
    captured = TorchNetwork(plain, "float32")
    monkeypatch.setattr(Capture, "refuses", "operation not permitted\nwhen stream is capturing")
    with torch.inference_mode():
        for number in range(REPEATS + 2):
            found = captured(image(number), NAMES)
            for name, expected in plain(image(number), NAMES).items():
                torch.testing.assert_close(found[name], expected, rtol=0, atol=0)
    told = "CUDA graphs are not used, which may cost time (operation not permitted when stream is capturing)"
    assert capsys.readouterr().err == f"upernet: {told}\n"
    assert len(graphs) == 1


def test_a_graph_keeps_the_constants_that_it_reads(graphs: list[Graph]) -> None:
    captured = TorchNetwork(network(), "float32")
    with torch.inference_mode():
        for _ in range(REPEATS):
            captured(image(), ["object"])
        (seen,) = captured._seen.values()
        assert seen.captured is not None and len(seen.captured.constants) == 2 * 4  # the pyramid pooling's matrices
        constants._constant.cache_clear()
        first, again = captured(image(), ["object"]), network()(image(), ["object"])
    torch.testing.assert_close(first["object"], again["object"])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_is_that_of_autocast(precision: str) -> None:
    plain = fuse(seeded_network(tiny(), semantic()), winograd=False)
    mixed = TorchNetwork(copy.deepcopy(plain), precision)  # type: ignore[arg-type]
    weights = [module for module in mixed.modules() if isinstance(module, (nn.Conv2d, EnlargedConv))]
    halved = {parameter.dtype for module in weights for parameter in module.parameters()}
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert halved == {dtype} and mixed.network.mean.dtype == torch.float32
    with torch.inference_mode(), torch.autocast("cpu", dtype):
        expected = plain(image())["semantic"]
    with torch.inference_mode():
        found, exact = (one(image())["semantic"] for one in (mixed, plain))
    assert found.dtype == torch.float32 and torch.equal(found, expected.float())
    assert 0 < (found - exact).abs().max() < 0.1 * exact.abs().max()


class HostWork(TorchDispatchMode):
    """Collects what makes a GPU's host copy or wait."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        devices = {t.device.type for t in tensors((args, kwargs or {}, out))}
        if len(devices) > 1 or func is torch.ops.aten._local_scalar_dense.default:
            self.found.append(str(func))
        return out


@pytest.fixture
def fake_gpu() -> Iterator[FakeTensorMode]:
    """Tensors on a GPU that hold nothing. Operations that mix devices raise."""
    constants._constant.cache_clear()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode
    constants._constant.cache_clear()


def move(network: nn.Module) -> None:
    """Put a network's tensors on the fake GPU; `Module.to` cannot."""
    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                moved = torch.empty_strided(parameter.shape, parameter.stride(), dtype=parameter.dtype, device="cuda")
                module._parameters[name] = nn.Parameter(moved, requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty_like(buffer, device="cuda")


@pytest.mark.parametrize("form", ["fused", "plain"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_nothing_is_copied_or_waited_for_on_a_gpu(
    fake_gpu: FakeTensorMode, monkeypatch: pytest.MonkeyPatch, form: str, precision: Any
) -> None:
    monkeypatch.setattr(pytorch, "CAPTURING", "none")
    # Without a GPU, PyTorch would turn mixed precision off.
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *args: True)
    with unset_fake_temporarily():
        plain = tiny_model.network().eval()
        made = TorchNetwork(fuse(plain, winograd=False) if form == "fused" else plain, precision)
    move(made)
    shown = torch.empty(2, 3, 48, 64, device="cuda")
    with torch.inference_mode():
        made(shown, NAMES)  # constants are copied once
        with HostWork() as work:
            logits = made(shown, NAMES)
    assert work.found == []
    assert {name: (x.device.type, x.dtype) for name, x in logits.items()} == dict.fromkeys(
        NAMES, ("cuda", torch.float32)
    )
    assert logits["object"].shape == (2, 2, 12, 16)
