"""The engines give the answers of PyTorch, at every size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_model
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from upernet.inference.views import Network
from upernet.model import UPerNet
from upernet.runtimes import openvino as on_openvino
from upernet.runtimes.choice import ENGINES, on_engine
from upernet.runtimes.engine import EngineNetwork, Run
from upernet.runtimes.openvino import AGAIN, Compiled
from upernet.tasks import Material, Texture

TASKS = ("scene", "object", "part", "material", "texture")


@pytest.fixture(scope="module")
def plain() -> UPerNet:
    """A network with heads of all kinds and levels."""
    names = ["a", "b", "c"]
    return tiny_model.network(
        material=Material(labels=names, level="p2", convs=1, width=8),
        texture=Texture(labels=names, level="c2", convs=1, width=8),
    ).eval()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which the one graph is kept, which takes seconds to prepare."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("TORCH_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module", params=list(ENGINES))
def ours(request: pytest.FixtureRequest, home: Path, plain: UPerNet) -> EngineNetwork:
    for package in ENGINES[request.param].packages:
        pytest.importorskip(package)
    found = on_engine(plain, request.param)
    assert isinstance(found, EngineNetwork) and found.engine.name == request.param
    return found


def assert_equal(network: Network, plain: UPerNet, image: Tensor, tasks: list[str]) -> None:
    with torch.inference_mode():
        found, expected = network(image, tasks), plain(image, tasks)
    assert list(found) == list(expected) == tasks
    for name, logits in expected.items():
        assert found[name].shape == logits.shape and found[name].dtype == torch.float32
        tolerance = 1e-4 * logits.std().item()
        torch.testing.assert_close(found[name], logits, rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


@settings(max_examples=12, deadline=None)
@given(
    batch=st.integers(1, 3),
    height=st.integers(32, 130),
    width=st.integers(32, 130),
    tasks=st.sampled_from([list(TASKS), list(reversed(TASKS))]),
    channels_last=st.booleans(),
)
def test_equal_at_every_size(
    ours: EngineNetwork, plain: UPerNet, batch: int, height: int, width: int, tasks: list[str], channels_last: bool
) -> None:
    image = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(batch))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert_equal(ours, plain, image.contiguous(memory_format=layout), tasks)


@pytest.mark.parametrize("tasks", [["scene"], ["texture"], ["object", "scene"]])
def test_tasks_of_their_own(ours: EngineNetwork, plain: UPerNet, tasks: list[str]) -> None:
    assert_equal(ours, plain, torch.rand(2, 3, 70, 45), tasks)


def test_answers_stay_when_the_next_image_comes(ours: EngineNetwork) -> None:
    first, second = torch.zeros(1, 3, 40, 40), torch.ones(1, 3, 40, 40)
    logits = ours(first, ["object"])["object"]
    before = logits.clone()
    assert not torch.equal(ours(second, ["object"])["object"], before)
    assert torch.equal(logits, before)


def test_both_engines_share_the_graph(ours: EngineNetwork, home: Path) -> None:
    assert len([path for path in (home / "upernet" / "graphs").iterdir() if path.is_dir()]) == 1


@pytest.fixture
def compiled(home: Path, plain: UPerNet) -> Compiled:
    for package in ENGINES["openvino"].packages:
        pytest.importorskip(package)
    found = on_engine(plain, "openvino")
    assert isinstance(found, EngineNetwork)
    run: Run = found._opened(["scene", "object"])
    assert isinstance(run, Compiled)
    return run


def test_openvino_compiles_for_the_first_shape_and_for_one_in_a_row(compiled: Compiled, plain: UPerNet) -> None:
    def show(*sizes: tuple[int, int]) -> list[tuple[int, ...] | None]:
        """The shape for which the graph is compiled after each image."""
        after = []
        for size in sizes:
            image = torch.rand(1, 3, *size)
            with torch.inference_mode():
                expected = plain(image, ["scene", "object"])
            for answer, logits in zip(compiled(image.numpy()), expected.values(), strict=True):
                tolerance = 1e-4 * logits.std().item()
                torch.testing.assert_close(torch.from_numpy(answer), logits, rtol=0, atol=tolerance)
            after.append(compiled.shape)
        return after

    a, b = (40, 64), (64, 40)
    own = (1, 3, *a)
    assert AGAIN == 3
    assert show(a, b, a, b, a, a, a, a) == [own] + [None] * 5 + [own] * 2
    # Another shape ends it, and the next time it takes twice as many.
    assert show(b, a, a, a, a, a, a, b) == [None] * 6 + [own, None]


def test_openvino_compiles_for_large_batches_at_once(compiled: Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_openvino, "LARGE", 2 * 64 * 64)
    compiled(torch.rand(1, 3, 64, 64).numpy())
    compiled(torch.rand(1, 3, 64, 32).numpy())
    assert compiled.shape is None
    compiled(torch.rand(2, 3, 64, 64).numpy())
    assert compiled.shape == (2, 3, 64, 64)
