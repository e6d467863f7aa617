"""From a photograph of any size to the network and back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import upernet.inference.views
from upernet.config import InferenceConfig
from upernet.errors import UserError
from upernet.inference.views import (
    MAX_ASPECT,
    MIN_SIDE,
    Views,
    network_input,
    network_size,
    order_tasks,
    resize,
    window_spans,
    windows_of,
)
from upernet.tasks import Object, Part, Scene, Semantic, Task


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


@pytest.mark.parametrize(
    ("image", "box", "expected"),
    [
        ((512, 683), (512, 2048), (512, 683)),
        ((375, 500), (512, 2048), (512, 683)),
        ((683, 1024), (512, 2048), (512, 768)),
        ((1024, 2048), (1025, 2049), (1025, 2049)),
    ],
)
def test_sizes_of_the_published_boxes(image: tuple[int, int], box: tuple[int, int], expected: tuple[int, int]) -> None:
    """SPEC C1; the last one is a half that Python's own rounding would take down to 1024."""
    assert network_size(*image, InferenceConfig(short_side=box[0], max_side=box[1])) == expected


@pytest.mark.parametrize(
    ("image", "ratio", "published", "recent"),
    [
        ((375, 500), 0.5, (256, 341), (188, 250)),  # 500·256/375 = 341.33; 187.5 becomes 188
        ((375, 500), 1.75, (896, 1195), (656, 875)),  # 1194.67; 656.25
        ((512, 683), 0.75, (384, 512), (384, 512)),  # 512.25 either way
        ((101, 300), 1.25, (640, 1901), (126, 374)),  # 1900.99; 126.25 becomes 126, so that 300·126/101 = 374.26
    ],
)
def test_sizes_at_other_scales(
    image: tuple[int, int], ratio: float, published: tuple[int, int], recent: tuple[int, int]
) -> None:
    """SPEC D2: the box times the ratio, or the photograph's own size times the ratio, whatever the box."""
    config = InferenceConfig(short_side=512, max_side=2048)
    assert network_size(*image, config, ratio) == published
    assert network_size(*image, replace(config, scale_of="image"), ratio) == recent
    assert network_size(*image, InferenceConfig(max_side=None), 2.0) == (2 * image[0], 2 * image[1])


def test_the_769_rows_box_at_half_size_is_cut_to_whole_pixels() -> None:
    assert network_size(1024, 2048, InferenceConfig(short_side=1025, max_side=2049), 0.5) == (512, 1024)


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


# --- windows and passes ---------------------------------------------------------------------------------------------


def test_windows_by_hand() -> None:
    """SPEC C1: 8 windows of 769 every 513 over 1025×2049."""
    rows, columns = [(0, 769), (256, 1025)], [(0, 769), (513, 1282), (1026, 1795), (1280, 2049)]
    assert window_spans(1025, 769, 513) == rows
    assert window_spans(2049, 769, 513) == columns
    windows = windows_of((1025, 2049), InferenceConfig(window=(769, 769), stride=(513, 513)))
    assert windows == [(top, left, bottom, right) for top, bottom in rows for left, right in columns]
    assert len(windows) == 8
    assert windows_of((512, 1024), InferenceConfig(window=(769, 769), stride=(513, 513))) == [
        (0, 0, 512, 769),
        (0, 255, 512, 1024),
    ]
    assert windows_of((50, 60), InferenceConfig()) == [(0, 0, 50, 60)]


@given(st.integers(1, 300), st.integers(1, 100), st.data())
def test_windows_cover_everything_and_leave_nothing(length: int, window: int, data: st.DataObject) -> None:
    spans = window_spans(length, window, data.draw(st.integers(1, window)))
    assert (spans[0][0], spans[-1][1]) == (0, length)
    assert {end - start for start, end in spans} == {min(window, length)}
    assert all(a < b <= a_end for (a, a_end), (b, _) in pairwise(spans))


class PerPixel(nn.Module):
    """Logits that are a 1×1 function of the image, at its own size, and an answer about the image as a whole."""

    upsampling_align_corners = False

    def forward(self, image: Tensor, tasks: list[str] | None = None) -> dict[str, Tensor]:
        red, green, blue = (image * 9 - 4).unbind(1)
        return {"semantic": torch.stack([red, green - blue, blue], 1), "scene": image.mean((2, 3))[:, :2]}


class Strided(nn.Module):
    """Logits at a quarter of the size that depend on everything in reach, borders included."""

    def __init__(self, align_corners: bool) -> None:
        super().__init__()
        self.upsampling_align_corners = align_corners
        self.conv = nn.Conv2d(3, 4, 7, stride=4, padding=3)
        nn.init.normal_(self.conv.weight, generator=torch.Generator().manual_seed(0))

    def forward(self, image: Tensor, tasks: list[str] | None = None) -> dict[str, Tensor]:
        return {"semantic": self.conv(image)}


TASKS: dict[str, Task] = {"scene": Scene(labels=["in", "out"]), "semantic": Semantic(labels=["a", "b", "c"])}


def photo(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def probabilities(model: nn.Module, image: Tensor, config: InferenceConfig, straight: bool = False) -> Tensor:
    """(1, K, H, W) of the task `semantic`."""
    with torch.inference_mode():
        views = Views(model, image, config, TASKS, straight=straight)  # type: ignore[arg-type]
        return torch.cat([tile["semantic"] for _, _, tile in views.tiles(["semantic"])], 2)


def test_a_function_of_each_pixel_gives_the_same_map_whole_sliding_and_flipped() -> None:
    image = photo(75, 90)
    expected = TASKS["semantic"].probabilities(PerPixel()(image[None].float() / 255)["semantic"])
    whole = probabilities(PerPixel(), image, InferenceConfig())
    assert torch.equal(whole, expected)
    for change in (
        {"window": (32, 40), "stride": (20, 17)},
        {"window": (200, 40), "stride": (100, 40)},
        {"flip": True},
        {"flip": True, "window": (40, 32), "stride": (13, 32)},
    ):
        shown = probabilities(PerPixel(), image, InferenceConfig(**change))  # type: ignore[arg-type]
        torch.testing.assert_close(shown, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("tile", [4 * 80 * 5, 2**19])
def test_windows_and_both_resizes_as_in_a_plain_reading(
    align_corners: bool, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SPEC C1: logits of each window up to its size, summed, divided by the count, then to the photograph's size."""
    monkeypatch.setattr(upernet.inference.views, "TILE", tile)
    model, image = Strided(align_corners), photo(60, 80)
    config = InferenceConfig(short_side=93, window=(64, 48), stride=(40, 31))
    with torch.inference_mode():
        x = network_input(image, config)
        assert x.shape == (1, 3, 93, 124)
        total, count = torch.zeros(1, 4, 93, 124), torch.zeros(93, 124)
        for top in (0, 29):
            for left in (0, 31, 62, 76):
                crop = x[:, :, top : top + 64, left : left + 48]
                logits = resize(model(crop)["semantic"], (64, 48), align_corners)
                total[:, :, top : top + 64, left : left + 48] += logits
                count[top : top + 64, left : left + 48] += 1
        expected = resize(total / count, (60, 80), align_corners).softmax(1)
        whole = resize(resize(model(x)["semantic"], (93, 124), align_corners), (60, 80), align_corners).softmax(1)
        straight = resize(model(x)["semantic"], (60, 80), align_corners).softmax(1)
    close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)
    close(probabilities(model, image, config), expected)
    close(probabilities(model, image, config, straight=True), expected)
    config = InferenceConfig(short_side=93)
    close(probabilities(model, image, config), whole)
    close(probabilities(model, image, config, straight=True), straight)
    close(probabilities(model, image, replace(config, resize_twice=False)), straight)
    assert (whole - straight).abs().max() > 1e-3


def test_windows_may_go_through_the_network_together(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []

    class Counting(PerPixel):
        def forward(self, image: Tensor, tasks: list[str] | None = None) -> dict[str, Tensor]:
            batches.append(image.shape[0])
            return super().forward(image, tasks)

    image, config = photo(64, 160), InferenceConfig(window=(32, 32), stride=(32, 32))
    one = Views(Counting(), image, config, TASKS)  # type: ignore[arg-type]
    monkeypatch.setitem(upernet.inference.views.PIXELS, "cpu", 4 * 32 * 32)
    four = Views(Counting(), image, config, TASKS)  # type: ignore[arg-type]
    assert batches == [1] * 10 + [4, 4, 2]
    assert four.views[0].windows == one.views[0].windows
    for name, pieces in one.views[0].logits.items():
        torch.testing.assert_close(torch.cat(pieces), torch.cat(four.views[0].logits[name]))


class Sided(nn.Module):
    """Says the left half of what it sees is the first class, with a certainty that depends on the size it sees."""

    upsampling_align_corners = False

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []

    def forward(self, image: Tensor, tasks: list[str] | None = None) -> dict[str, Tensor]:
        self.seen.append((image.shape[2], image.shape[3]))
        certainty = {64: 0.5, 32: 0.75, 128: 0.625}[image.shape[2]]
        logits = torch.tensor([[certainty, 1 - certainty]]).log()
        left = logits[:, :, None, None].expand(1, 2, 1, 2).clone()
        left[0, :, 0, 1] = logits[0].flip(0)
        scene = logits if image[0, 0, 0, 0] < 0.5 else logits.flip(1)
        return {"semantic": left.repeat_interleave(image.shape[2], 2).repeat_interleave(32, 3), "scene": scene}


def test_passes_by_hand() -> None:
    """Scales 0.5, 1 and 2 with certainties 3/4, 1/2 and 5/8; flipped, the left half is said of the right one.

    The picture is dark on its left and bright on its right, which turns the answer about the whole in flipped passes.
    """
    tasks: dict[str, Task] = {"scene": Scene(labels=["x", "y"]), "semantic": Semantic(labels=["x", "y"])}
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    image[:, :, 32:] = 255
    for flip, left, whole in ((False, (0.75 + 0.5 + 0.625) / 3, (0.75 + 0.5 + 0.625) / 3), (True, 0.5, 0.5)):
        model = Sided()
        config = InferenceConfig(short_side=64, scales=(0.5, 1, 2), flip=flip)
        views = Views(model, image, config, tasks, tasks)  # type: ignore[arg-type]
        p = torch.cat([tile["semantic"] for _, _, tile in views.tiles()], 2)
        assert model.seen == [(side, side) for side in (32, 64, 128) for _ in range(1 + flip)]
        assert p[0, 0, 0, 0].item() == pytest.approx(left)
        assert p[0, 0, -1, -1].item() == pytest.approx(1 - left)
        assert views.answer("scene")[0].tolist() == pytest.approx([whole, 1 - whole])
        assert views.image_probabilities("semantic")[0].tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"window": (16, 64), "stride": (8, 8)}, r"inference.window: \[16, 64\] is no height and width from 32 pixels"),
        ({"window": (64, 64), "stride": (0, 8)}, r"inference.stride: \[0, 8\] is no height and width from 1 pixels"),
        ({"window": (64, 64)}, r"inference.window: \[64, 64\] needs inference.stride too"),
        ({"stride": (64, 64)}, r"inference.stride: \[64, 64\] needs inference.window too"),
        (
            {"window": (64, 64), "stride": (65, 8)},
            r"inference.stride: \[65, 8\] leaves gaps between windows of \[64, 64\]",
        ),
        ({"scales": ()}, r"inference.scales: \[\] are not ratios from 0.05 to 20; for example \[1.0\]"),
        ({"scales": (1.0, 0.0)}, r"inference.scales: \[1.0, 0.0\] are not ratios"),
        ({"scale_of": "moon"}, "inference.scale_of: 'moon' is none of box, image"),
    ],
)
def test_wrong_procedures_are_told(values: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line) as caught:
        InferenceConfig(**values)
    assert "\n" not in str(caught.value)


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
