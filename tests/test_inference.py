"""From a photograph of any size to the network and back."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from upernet.config import InferenceConfig, UserError
from upernet.inference import MAX_ASPECT, MIN_SIDE, network_input, network_size, order_tasks, resize
from upernet.tasks import Object, Part, Scene, Task


@pytest.mark.parametrize(
    ("size", "short_side", "max_side", "expected"),
    [
        ((683, 512), None, None, (683, 512)),
        ((720, 960), 360, None, (360, 480)),
        ((960, 720), 360, None, (480, 360)),
        ((100, 150), 352, None, (352, 528)),
        ((500, 333), 352, None, (529, 352)),
        ((1000, 4000), 352, 1056, (264, 1056)),
        ((1000, 4000), None, 400, (100, 400)),
        ((100, 200), None, 400, (100, 200)),
        ((20, 200), None, None, (32, 200)),
        ((10, 1000), None, 500, (32, 500)),
        ((8, 8), None, None, (32, 32)),
    ],
)
def test_sizes(size: tuple[int, int], short_side: int | None, max_side: int | None, expected: tuple[int, int]) -> None:
    assert network_size(*size, InferenceConfig(short_side=short_side, max_side=max_side)) == expected


@settings(deadline=None, max_examples=200)
@given(
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.one_of(st.none(), st.integers(32, 1024)),
    st.one_of(st.none(), st.integers(32, 2048)),
)
def test_any_photograph_fits(height: int, width: int, short_side: int | None, max_side: int | None) -> None:
    config = InferenceConfig(short_side=short_side, max_side=max_side)
    h, w = network_size(height, width, config)
    assert min(h, w) >= MIN_SIDE
    assert network_size(width, height, config) == (w, h)
    assert max_side is None or max(h, w) <= max_side
    if min(h, w) > MIN_SIDE:  # the aspect is kept, up to rounding either side
        assert abs(h * width - w * height) <= (height + width) / 2 + 1e-6
    # A 1 px line is not blown up without bound.
    assert max(h, w) <= max(height, width, MAX_ASPECT * max(min(h, w), short_side or MIN_SIDE))


def test_an_image_of_the_right_size_is_only_scaled_to_1() -> None:
    image = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)
    assert torch.equal(network_input(image, InferenceConfig()), image[None].float() / 255)


@pytest.mark.parametrize("antialias", [False, True])
def test_an_image_is_resized_bilinearly(antialias: bool) -> None:
    """White dots that a fourth of the rows and columns have: without a filter they fall between the samples."""
    image = torch.zeros(3, 128, 128, dtype=torch.uint8)
    image[:, ::4, ::4] = 255
    x = network_input(image, InferenceConfig(short_side=32, antialias=antialias))
    assert (x.shape, x.dtype) == ((1, 3, 32, 32), torch.float32)
    assert torch.equal(x.amax() > 0, torch.tensor(antialias))
    assert 0 <= x.min() <= x.max() <= 1


def test_resampling_stays_within_0_and_1() -> None:
    image = torch.randint(0, 2, (3, 64, 64), dtype=torch.uint8) * 255
    for side in (37, 63, 90):
        x = network_input(image, InferenceConfig(short_side=side, antialias=True))
        assert 0 <= x.min() <= x.max() <= 1


@pytest.mark.parametrize("align_corners", [False, True])
def test_logits_are_resized_in_the_networks_own_convention(align_corners: bool) -> None:
    logits = torch.randn(2, 5, 4, 6)
    expected = F.interpolate(logits, (9, 13), mode="bilinear", align_corners=align_corners)
    assert torch.equal(resize(logits, (9, 13), align_corners), expected)
    assert torch.equal(resize(logits, (9, 13), align_corners)[..., 0, 0], logits[..., 0, 0]) or not align_corners


# --- order of tasks -------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Waiting(Scene):
    """Wants to see other tasks' answers first."""

    after: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        return self.after


def test_each_task_comes_after_those_it_needs_and_otherwise_where_it_was() -> None:
    tasks: dict[str, Task] = {
        "part": Part(),
        "scene": Scene(),
        "late": Waiting(after=("part", "scene")),
        "object": Object(),
        "alone": Waiting(after=("not here",)),
    }
    assert list(order_tasks(tasks)) == ["scene", "object", "alone", "part", "late"]
    assert all(order_tasks(tasks)[name] is task for name, task in tasks.items())


def test_tasks_in_a_circle_are_told() -> None:
    tasks: dict[str, Task] = {"a": Waiting(after=("b",)), "b": Waiting(after=("a",)), "c": Scene()}
    with pytest.raises(UserError, match=r"tasks need one another in a circle: a, b$"):
        order_tasks(tasks)
