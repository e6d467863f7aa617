"""The network run on batches of images: what it is shown, in which windows, and its logits brought to any size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import upernet.inference.views
from upernet.config import InferenceConfig
from upernet.inference.upsample import resize
from upernet.inference.views import Network, View, network_input, run_network


def photo(height: int, width: int, count: int = 1) -> Tensor:
    """(B, 3, H, W) uint8."""
    generator = torch.Generator().manual_seed(height)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


# --- what the network is shown --------------------------------------------------------------------------------------


def test_an_image_of_the_right_size_is_only_scaled_to_1() -> None:
    images = photo(40, 50, 2)
    assert torch.equal(network_input(images, InferenceConfig()), images.float() / 255)


@pytest.mark.parametrize("antialias", [False, True])
def test_an_image_is_resized_bilinearly(antialias: bool) -> None:
    """White dots that a fourth of the rows and columns have: without a filter they fall between the samples."""
    images = torch.zeros(1, 3, 128, 128, dtype=torch.uint8)
    images[..., ::4, ::4] = 255
    x = network_input(images, InferenceConfig(short_side=32, antialias=antialias))
    assert (x.shape, x.dtype) == ((1, 3, 32, 32), torch.float32)
    assert torch.equal(x.amax() > 0, torch.tensor(antialias))
    assert 0 <= x.min() <= x.max() <= 1


def test_resampling_stays_within_0_and_1() -> None:
    images = torch.randint(0, 2, (1, 3, 64, 64), dtype=torch.uint8) * 255
    for side in (37, 63, 90):
        x = network_input(images, InferenceConfig(short_side=side, antialias=True))
        assert 0 <= x.min() <= x.max() <= 1


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_images_of_a_batch_are_shown_as_each_alone_with_channels_innermost(dtype: torch.dtype, antialias: bool) -> None:
    images, config = photo(50, 70, 3).to(dtype), InferenceConfig(short_side=40, antialias=antialias)
    together = network_input(images, config)
    assert together.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(together, torch.cat([network_input(image[None], config) for image in images]))


# --- windows and views ----------------------------------------------------------------------------------------------


class PerPixel:
    """Logits that are a 1×1 function of the image, at its own size, and an answer about the image as a whole.

    No module of PyTorch: anything with the call of `Network` will do.
    """

    upsampling_align_corners = False

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, image: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        self.batches.append(len(image))
        red, green, blue = (image * 9 - 4).unbind(1)
        logits = {"semantic": torch.stack([red, green - blue, blue], 1), "scene": image.mean((2, 3))[:, :2]}
        return {name: logits[name] for name in tasks}


class Strided(nn.Module):
    """Logits at a quarter of the size that depend on everything in reach, borders included."""

    def __init__(self, align_corners: bool) -> None:
        super().__init__()
        self.upsampling_align_corners = align_corners
        self.conv = nn.Conv2d(3, 4, 7, stride=4, padding=3)
        nn.init.normal_(self.conv.weight, generator=torch.Generator().manual_seed(0))

    def forward(self, image: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        return {"semantic": self.conv(image)}


def logits_of(view: View, size: tuple[int, int], rows: int = 7) -> Tensor:
    """(B, K, H, W) logits of the task `semantic`, put together from a few rows at a time."""
    starts = range(0, size[0], rows)
    return torch.cat([view.rows("semantic", size, start, min(start + rows, size[0])) for start in starts], 2)


@torch.inference_mode()
def whole(network: Network, images: Tensor, config: InferenceConfig, size: tuple[int, int] | None = None) -> Tensor:
    """(B, K, H, W) logits of the only view."""
    (view,) = run_network(network, images, config, ["semantic"])
    return logits_of(view, size or (images.shape[2], images.shape[3]))


def test_a_function_of_each_pixel_gives_the_same_map_whole_sliding_and_mirrored() -> None:
    images = photo(75, 90, 2)
    expected = PerPixel()(images.float() / 255, ["semantic"])["semantic"]
    assert torch.equal(whole(PerPixel(), images, InferenceConfig()), expected)
    for change in (
        {"window": (32, 40), "stride": (20, 17)},
        {"window": (200, 40), "stride": (100, 40)},
        {"flip": True},
        {"flip": True, "window": (40, 32), "stride": (13, 32)},
    ):
        views = run_network(PerPixel(), images, InferenceConfig(**change), ["semantic"])  # type: ignore[arg-type]
        assert [view.mirrored for view in views] == [False, True][: len(views)]
        for view in views:
            torch.testing.assert_close(logits_of(view, (75, 90)), expected, rtol=1e-5, atol=1e-5)


def test_each_shorter_side_is_shown_in_turn() -> None:
    seen: list[tuple[int, ...]] = []

    class Seeing(PerPixel):
        def __call__(self, image: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
            seen.append(tuple(image.shape[2:]))
            return super().__call__(image, tasks)

    config = InferenceConfig(short_sides=(40, 70, 100), max_side=110, multiple=32, flip=True)
    views = run_network(Seeing(), photo(50, 80), config, ["semantic"])
    assert [view.size for view in views] == seen == [size for size in ((64, 64), (96, 128), (96, 128)) for _ in "lr"]


@pytest.mark.parametrize("align_corners", [False, True])
def test_windows_and_both_resizes_as_in_a_plain_reading(align_corners: bool) -> None:
    """SPEC C1: logits of each window up to its size, summed, divided by the count, then to the photograph's size."""
    model, images = Strided(align_corners), photo(60, 80)
    config = InferenceConfig(short_side=93, window=(64, 48), stride=(40, 31))
    with torch.inference_mode():
        x = network_input(images, config)
        assert x.shape == (1, 3, 93, 124)
        total, count = torch.zeros(1, 4, 93, 124), torch.zeros(93, 124)
        for top in (0, 29):
            for left in (0, 31, 62, 76):
                crop = x[:, :, top : top + 64, left : left + 48]
                logits = resize(model(crop, [])["semantic"], (64, 48), align_corners)
                total[:, :, top : top + 64, left : left + 48] += logits
                count[top : top + 64, left : left + 48] += 1
        met = total / count
        sliding = resize(met, (60, 80), align_corners)
        said = model(x, [])["semantic"]
        twice = resize(resize(said, (93, 124), align_corners), (60, 80), align_corners)
        straight = resize(said, (60, 80), align_corners)
    close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)
    close(whole(model, images, config), sliding)
    close(whole(model, images, replace(config, resize_twice=False)), sliding)
    close(whole(model, images, config, size=(93, 124)), met)
    config = InferenceConfig(short_side=93)
    close(whole(model, images, config), twice)
    close(whole(model, images, replace(config, resize_twice=False)), straight)
    assert (twice - straight).abs().max() > 1e-3


@pytest.mark.parametrize("size", [(60, 80), (45, 31), (100, 130)])
def test_an_answer_may_have_another_size_than_the_image(size: tuple[int, int]) -> None:
    model, images = Strided(False), photo(60, 80)
    with torch.inference_mode():
        logits = model(images.float() / 255, [])["semantic"]
        for resize_twice in (False, True):
            config = InferenceConfig(resize_twice=resize_twice)
            expected = resize(resize(logits, (60, 80), False) if resize_twice else logits, size, False)
            torch.testing.assert_close(whole(model, images, config, size), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2])
def test_windows_may_go_through_the_network_together(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images, config = photo(64, 160, count), InferenceConfig(window=(32, 32), stride=(32, 32))
    network, names = PerPixel(), ["semantic", "scene"]
    (one,) = run_network(network, images, config, names)
    monkeypatch.setitem(upernet.inference.views.PIXELS, "cpu", 4 * 32 * 32)
    (several,) = run_network(network, images, config, names)
    assert network.batches == [count] * 10 + ([4, 4, 2] if count == 1 else [4] * 5)
    assert several.windows == one.windows
    for name, pieces in one.logits.items():
        assert [piece.shape[0] for piece in several.logits[name]] == [count] * 10
        torch.testing.assert_close(torch.stack(pieces), torch.stack(several.logits[name]))


@pytest.mark.parametrize("change", [{}, {"window": (64, 48), "stride": (40, 31)}], ids=str)
@pytest.mark.parametrize(("room", "whole_batches", "window_batches"), [(0, [2] * 2, [2] * 16), (3, [4], [6] * 5 + [2])])
def test_windows_and_mirror_images_go_through_the_network_together(
    change: dict[str, Any],
    room: int,
    whole_batches: list[int],
    window_batches: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As many as fit into the budget, here that of a CPU that is taken for a larger device."""
    images, config = photo(93, 124, 2), InferenceConfig(flip=True, **change)
    size = config.window or (93, 124)
    model, batches = Strided(True), []
    model.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
    with torch.inference_mode():
        alone = run_network(model, images, config, ["semantic"])
        batches.clear()
        monkeypatch.setitem(upernet.inference.views.PIXELS, "cpu", room * 2 * size[0] * size[1])
        together = run_network(model, images, config, ["semantic"])
    assert batches == (window_batches if change else whole_batches)
    assert [(view.mirrored, view.windows) for view in together] == [(view.mirrored, view.windows) for view in alone]
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(torch.stack(one.logits["semantic"]), torch.stack(other.logits["semantic"]))
        torch.testing.assert_close(logits_of(one, (93, 124)), logits_of(other, (93, 124)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(200, 70), (31, 60), (93, 124)])
def test_a_row_at_the_size_of_the_input_is_computed_once(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Larger, smaller and the same; the bands share rows of the input, and reading again begins anew."""
    rows: list[int] = []
    real = View._rows_of_input

    def spy(view: View, name: str, start: int, stop: int) -> Tensor:
        rows.extend(range(start, stop))
        return real(view, name, start, stop)

    config = InferenceConfig(short_side=93, window=(64, 48), stride=(40, 31))
    with torch.inference_mode():
        (view,) = run_network(Strided(False), photo(93, 124), config, ["semantic"])
        once = logits_of(view, size, rows=size[0])
        monkeypatch.setattr(View, "_rows_of_input", spy)
        for _ in range(2):
            rows.clear()
            assert torch.equal(logits_of(view, size, rows=3), once)
            assert sorted(set(rows)) == rows
        backwards = [view.rows("semantic", size, start, start + 1) for start in reversed(range(size[0]))]
    assert torch.equal(torch.cat(backwards[::-1], 2), once)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"resize_twice": False},
        {"window": (64, 48), "stride": (40, 31)},
        {"scales": (0.75, 1.0), "flip": True},
        {"window": (64, 48), "stride": (40, 31), "scales": (0.75, 1.25), "flip": True},
    ],
    ids=str,
)
def test_a_batch_says_what_its_images_say_alone(change: dict[str, Any]) -> None:
    model, images, config = Strided(True), photo(60, 80, 3), InferenceConfig(short_side=93, **change)
    with torch.inference_mode():
        together = run_network(model, images, config, ["semantic"])
        alone = [run_network(model, image[None], config, ["semantic"]) for image in images]
        for i, view in enumerate(together):
            expected = torch.cat([logits_of(views[i], (60, 80)) for views in alone])
            torch.testing.assert_close(logits_of(view, (60, 80)), expected, rtol=1e-4, atol=1e-4)
    assert (logits_of(together[0], (60, 80))[0] - logits_of(together[0], (60, 80))[1]).abs().max() > 1
