"""One random geometry for an image and its maps, then colour for the image alone."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fake_data import blocks, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import upernet.data.transforms as transforms
from upernet.data.config import AugmentConfig
from upernet.data.images import Photograph
from upernet.data.sample import Batch, Padding, Sample
from upernet.data.transforms import PAD_GREY, Augment, is_varied
from upernet.errors import UserError
from upernet.labels import IGNORE
from upernet.resize import resize_image, resize_labels

STILL: dict[str, Any] = {"scale": (1.0, 1.0), "flip": 0.0}


def cutter(**options: Any) -> Callable[[Tensor, dict[str, Tensor]], tuple[Tensor, dict[str, Tensor], Padding | None]]:
    """Cuts views from decoded images (3, H, W)."""
    cut = Augment(AugmentConfig(**options))
    return lambda image, maps: cut(Photograph.from_pixels(image.permute(1, 2, 0).numpy()), maps)


def augment(image: Tensor, mask: Tensor, seed: int = 0, **options: Any) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    view, maps, _ = cutter(**options)(image, {"mask": mask})
    return view, maps["mask"]


def coded(mask: np.ndarray) -> tuple[Tensor, Tensor]:
    """An image whose colours tell the labels of its mask."""
    return torch.from_numpy(picture(mask)).permute(2, 0, 1), torch.from_numpy(mask)


@pytest.mark.parametrize("seed", range(8))
def test_every_pixel_stays_with_its_label_in_crops_and_flips(seed: int) -> None:
    """Each pixel has a label and a colour of its own; crops smaller, and in one axis larger, than the image."""
    image, mask = coded(np.arange(48 * 80).reshape(48, 80))
    view, cut = augment(image, mask, seed, crop=(64, 40), scale=(1.0, 1.0), flip=0.5)
    inside = cut != IGNORE
    assert inside.sum() == 48 * 40
    assert torch.equal(view[:, inside], torch.from_numpy(picture(cut[inside].numpy())).T)
    # A crop, not a shuffle: neighbours stay neighbours, in one direction or the other.
    rows = cut[inside].view(48, 40)
    assert (rows.diff(dim=1) == rows[0, 1] - rows[0, 0]).all()
    assert (rows.diff(dim=0) == 80).all()


@pytest.mark.parametrize("seed", range(12))
def test_image_and_mask_share_their_geometry_when_scaled(seed: int) -> None:
    """Away from the borders of its block, a pixel's colour tells its label, whatever scale, stretch and flip."""
    image, mask = coded(blocks("scaled", range(40), (192, 256), block=32))
    view, cut = augment(image, mask, seed, crop=(96, 96), scale=(0.4, 2.5), aspect=1.5)
    maps = cut[None].float()
    middle = -F.max_pool2d(-maps, 9, 1, 4) == F.max_pool2d(maps, 9, 1, 4)  # one label within 4 pixels
    middle = middle[0] & (cut != IGNORE)
    assert middle.sum() > 500
    difference = view[:, middle].int() - torch.from_numpy(picture(cut[middle].numpy())).T
    assert difference.abs().max() <= 1


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    crop=st.tuples(st.integers(32, 70), st.integers(32, 70)),
    short_side=st.one_of(st.none(), st.integers(1, 100)),
    aspect=st.floats(1, 2),
    seed=st.integers(0, 2**31),
)
def test_any_image_gives_the_size_asked_for_and_padding_is_grey_and_ignored(
    size: tuple[int, int], crop: tuple[int, int], short_side: int | None, aspect: float, seed: int
) -> None:
    # Laid out as a decoded photograph: torch 2.15 fails to shrink a contiguous uint8 image to a single pixel.
    image, mask = torch.full((*size, 3), 10, dtype=torch.uint8).permute(2, 0, 1), torch.full(size, 334)
    view, cut = augment(image, mask, seed, crop=crop, short_side=short_side, aspect=aspect)
    assert (view.shape, view.dtype, type(view)) == ((3, *crop), torch.uint8, Tensor)
    assert (cut.shape, cut.dtype, type(cut)) == (crop, torch.int64, Tensor)
    assert set(cut.unique().tolist()) <= {IGNORE, 334}
    assert (cut == 334).any()
    assert torch.equal((view == PAD_GREY).all(0), cut == IGNORE)
    assert (view[:, cut == 334] == 10).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.floats(0.2, 4), st.floats(1, 2))
def test_labels_are_never_mixed(seed: int, scale: float, aspect: float) -> None:
    """Between 0 and 334 lies 167, a label that is not there."""
    mask = torch.from_numpy(blocks("never mixed", [0, 100, 255, 256, 334], (70, 90), block=3))
    image = torch.zeros(3, 70, 90, dtype=torch.uint8)
    _, cut = augment(image, mask, seed, crop=(64, 64), scale=(scale, scale), aspect=aspect)
    assert set(cut.unique().tolist()) <= {IGNORE, 0, 100, 255, 256, 334}


def test_unlabelled_stays_unlabelled() -> None:
    mask = torch.full((64, 64), IGNORE)
    mask[:, 32:] = 3
    _, cut = augment(torch.zeros(3, 64, 64, dtype=torch.uint8), mask, crop=(96, 96), scale=(1.5, 1.5), flip=0.0)
    assert torch.equal(cut[:, :47].unique(), torch.tensor([IGNORE]))
    assert torch.equal(cut[:, 49:].unique(), torch.tensor([3]))


COLOUR = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.2, "grey": 0.3}


@pytest.mark.parametrize("name", COLOUR)
def test_colour_leaves_maps_alone(name: str) -> None:
    rng = np.random.default_rng(0)
    image, mask = torch.from_numpy(rng.integers(0, 256, (3, 64, 64), dtype=np.uint8)), torch.arange(4096).view(64, 64)
    changed = 0
    for seed in range(6):
        plain, plain_cut = augment(image, mask, seed, crop=(48, 48))
        view, cut = augment(image, mask, seed, crop=(48, 48), **{name: COLOUR[name]})
        assert torch.equal(cut, plain_cut)
        changed += not torch.equal(view, plain)
    assert changed > 0


def test_grey_drops_all_colour() -> None:
    image, mask = coded(blocks("grey", range(40)))
    view, _ = augment(image, mask, crop=(32, 32), grey=1.0, **STILL)
    assert torch.equal(view[0], view[1])
    assert torch.equal(view[0], view[2])
    assert len(view.unique()) > 1


def test_padding_stays_grey_under_all_colours() -> None:
    image, mask = coded(blocks("small", range(40), (32, 32)))
    for seed in range(4):
        view, cut = augment(image, mask, seed, crop=(48, 48), **STILL, **COLOUR)
        assert view[:, cut == IGNORE].eq(PAD_GREY).all()


def test_flip_mirrors() -> None:
    image, mask = coded(np.arange(48 * 64).reshape(48, 64))
    view, cut = augment(image, mask, crop=(48, 64), scale=(1.0, 1.0), flip=1.0)
    assert torch.equal(view, image.flip(2))
    assert torch.equal(cut, mask.flip(1))


def test_nothing_random_is_the_identity() -> None:
    image, mask = coded(np.arange(48 * 64).reshape(48, 64))
    view, cut = augment(image, mask, crop=(48, 64), **STILL)
    assert torch.equal(view, image)
    assert torch.equal(cut, mask)


def test_short_side_brings_the_whole_image_to_size() -> None:
    mask = torch.arange(4).view(2, 2).repeat_interleave(64, 0).repeat_interleave(96, 1)  # 128 × 192 in four quarters
    _, cut = augment(torch.zeros(3, 128, 192, dtype=torch.uint8), mask, crop=(64, 96), short_side=64, **STILL)
    assert torch.equal(cut, mask[::2, ::2])


def test_maps_are_sampled_in_the_middle_of_the_pixels_that_the_image_averages() -> None:
    """A third of the size: the map keeps the centre of each 3 × 3, not its corner, half a pixel beside the image."""
    image, mask = coded(np.arange(96 * 96).reshape(96, 96))
    _, cut = augment(image, mask, crop=(32, 32), scale=(1 / 3, 1 / 3), flip=0.0)
    assert torch.equal(cut, mask[1::3, 1::3])


@settings(deadline=None, max_examples=40)
@given(size=st.tuples(st.integers(1, 90), st.integers(1, 90)), aspect=st.floats(1, 2), seed=st.integers(0, 2**31))
def test_an_image_with_one_label_fills_the_crop(size: tuple[int, int], aspect: float, seed: int) -> None:
    """Its label would cover the padding too."""
    torch.manual_seed(seed)
    view, _, _ = cutter(crop=(40, 64), scale=(0.5, 2.0), aspect=aspect)(
        torch.full((3, *size), 10, dtype=torch.uint8), {}
    )
    assert view.shape == (3, 40, 64)
    assert (view == 10).all()


def test_scale_is_uniform_in_its_logarithm_and_stretch_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    draw = transforms._draw_span
    monkeypatch.setattr(
        transforms, "_draw_span", lambda size, crop, scale: seen.append(scale) or draw(size, crop, scale)
    )
    torch.manual_seed(0)
    view = cutter(crop=(32, 32), scale=(0.5, 2.0), aspect=1.5)
    for _ in range(400):
        view(torch.zeros(3, 32, 32, dtype=torch.uint8), {"mask": torch.zeros(32, 32, dtype=torch.int64)})
    down, across = torch.tensor(seen).view(400, 2).T
    logarithm, ratio = (down * across).log2() / 2, down / across
    assert ((logarithm >= -1) & (logarithm <= 1)).all()
    quarters = torch.histc(logarithm, 4, -1, 1)
    assert ((quarters > 65) & (quarters < 135)).all()
    assert ratio.min() >= 1 / 1.5 - 1e-6
    assert ratio.max() <= 1.5 + 1e-6
    assert (ratio.min() < 0.72) & (ratio.max() > 1.4)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 300), st.integers(32, 200), st.floats(0.5, 8))
def test_a_span_lies_in_the_image_and_magnifies_as_asked(size: int, crop: int, scale: float) -> None:
    start, length, scaled, before = transforms._draw_span(size, crop, scale)
    assert 0 <= start <= start + length <= size
    assert 0 <= before <= before + scaled <= crop
    assert length > 0
    assert scaled > 0
    assert abs(scaled - length * scale) <= max(1, scale) / 2 + 1e-6
    assert length == size or scaled == crop  # nothing is cut off that would have fitted


def test_every_position_is_reached() -> None:
    """Spans at both ends of the image, and images at both ends of the padding."""
    torch.manual_seed(0)
    cuts = {transforms._draw_span(36, 32, 1.0).start for _ in range(100)}
    pads = {transforms._draw_span(28, 32, 1.0).padding for _ in range(100)}
    assert cuts == pads == {0, 1, 2, 3, 4}


def test_the_same_seed_gives_the_same_view_and_another_another() -> None:
    image, mask = coded(blocks("seeded", range(40), (90, 120)))
    one, again, other = (augment(image, mask, seed, crop=(64, 64), **COLOUR)[0] for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


PHOTO: dict[str, Any] = {"crop": (320, 320), "short_side": 352, "scale": (0.6, 1.7), "aspect": 1.2, "brightness": 0.3}
PHOTO |= {"contrast": 0.3, "saturation": 0.3, "grey": 0.05}


@pytest.mark.parametrize(
    ("options", "maps", "means"),
    [
        (
            PHOTO,
            [2560334106, 1735802303, 1940579988],
            [[82.34, 23.47, 17.09], [136.02, 14.89, 2.41], [109.57, 18.34, 8.89]],
        ),
        (
            {"crop": (64, 96)},
            [88694777, 220812297, 3152899786],
            [[110.27, 18.89, 8.0], [112.67, 17.98, 8.0], [106.92, 19.89, 8.0]],
        ),
    ],
)
def test_views_are_those_of_earlier_versions(
    options: dict[str, Any], maps: list[int], means: list[list[float]]
) -> None:
    """Recorded before there was a second geometry: the maps to the last label, the images' channel means."""
    image, mask = coded(blocks("recorded", range(40), (90, 120)))
    for seed, (checksum, mean) in enumerate(zip(maps, means, strict=True)):
        view, cut = augment(image, mask, seed, **options)
        assert zlib.crc32(cut.contiguous().numpy().tobytes()) == checksum
        assert view.float().mean((1, 2)).tolist() == pytest.approx(mean, abs=0.05)


# --- the geometry of the published recipes --------------------------------------------------------------------------


class Seen:
    """Sizes of resized images, which are made up: nothing is computed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.images: list[tuple[int, int]] = []
        self.maps: list[tuple[int, int]] = []
        monkeypatch.setattr(transforms, "resize_image", self.image)
        monkeypatch.setattr(transforms, "resize_labels", self.map)

    def image(self, image: Tensor, size: Any, window: Any) -> Tensor:
        self.images.append(size)
        return torch.zeros(3, *window.size, dtype=torch.uint8)

    def map(self, labels: Tensor, size: Any, window: Any) -> Tensor:
        self.maps.append(size)
        return torch.zeros(window.size, dtype=torch.int64)


def test_one_scale_is_drawn_uniformly_for_both_sides_of_the_box(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(monkeypatch)
    torch.manual_seed(0)
    view = cutter(crop=(32, 32), box=(200_000, 100_000))
    maps = {"mask": torch.zeros(1024, 2048, dtype=torch.int64)}
    for _ in range(2000):
        view(torch.zeros(3, 1024, 2048, dtype=torch.uint8), maps)
    sizes = np.array(seen.images)
    ratio = sizes[:, 0] / 100_000
    assert np.abs(sizes[:, 1] - 2 * sizes[:, 0]).max() <= 2
    assert abs(ratio.mean() - 1.25) < 0.039  # four deviations
    assert abs(ratio.std() - 1.5 / 12**0.5) < 0.02
    assert 0.5 <= ratio.min() < 0.505
    assert 1.995 < ratio.max() <= 2.0
    assert seen.images == seen.maps


def test_crops_are_uniform_and_half_of_them_flipped(monkeypatch: pytest.MonkeyPatch) -> None:
    image, mask = coded(np.arange(40 * 36).reshape(40, 36))
    options: dict[str, Any] = {"crop": (32, 32), "box": (40, 36), "scale": (1.0, 1.0)}
    torch.manual_seed(0)
    view = cutter(**options)
    tops, lefts, flips = np.zeros(9), np.zeros(5), 0
    for _ in range(1800):
        cut = view(image, {"mask": mask})[1]["mask"]
        first = int(cut.min())
        tops[first // 36] += 1
        lefts[first % 36] += 1
        flips += int(cut[0, 0] > cut[0, 1])
    assert tops.min() > 145  # 200 expected, deviation 13
    assert tops.max() < 255
    assert lefts.min() > 290  # 360 expected, deviation 17
    assert lefts.max() < 430
    assert abs(flips / 1800 - 0.5) < 0.048


@pytest.mark.parametrize("seed", range(8))
def test_the_crop_is_cut_from_the_resized_image(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the steps one by one, on whole images."""
    image, mask = coded(blocks("fitted", range(40), (90, 120), block=3))
    seen: list[Any] = []
    monkeypatch.setattr(transforms, "resize_labels", lambda *given: seen.append(given[1:]) or resize_labels(*given))
    view, cut = augment(
        image, mask, seed, crop=(48, 80), box=(100, 75), flip=float(seed % 2), pad_colour=(0.0, 1.0, 0.5)
    )
    ((size, window),) = seen
    height, width = window.size
    assert (height, width) == (min(48, size[0]), min(80, size[1]))
    whole = resize_image(image, size)[:, window.rows, window.columns]
    labels = resize_labels(mask, size)[window.rows, window.columns]
    if seed % 2:
        whole, labels = whole.flip(-1), labels.flip(-1)
    assert torch.equal(view[:, :height, :width], whole)
    assert torch.equal(cut[:height, :width], labels)
    assert (cut[height:] == IGNORE).all()
    assert (cut[:, width:] == IGNORE).all()
    assert (view.shape, cut.shape) == ((3, 48, 80), (48, 80))


def test_crops_that_show_little_but_one_label_are_drawn_again() -> None:
    """Label 1 in the last 32 of 128 columns: 15 of the 97 crops of 32 columns have 9 to 23 of them."""
    mask = torch.zeros(32, 128, dtype=torch.int64)
    mask[:, 96:] = 1
    mask[:4] = IGNORE  # counts nowhere
    image = torch.zeros(3, 32, 128, dtype=torch.uint8)
    options: dict[str, Any] = {"crop": (32, 32), "box": (128, 32), "scale": (1.0, 1.0)}
    good = {}
    for ratio in (1.0, 0.75):
        torch.manual_seed(0)
        view = cutter(cat_max_ratio=ratio, **options)
        cuts = [view(image, {"mask": mask})[1]["mask"] for _ in range(1000)]
        good[ratio] = np.mean([9 <= int((cut[4] == 1).sum()) <= 23 for cut in cuts])
    assert abs(good[1.0] - 15 / 97) < 0.046
    assert abs(good[0.75] - (1 - (82 / 97) ** 11)) < 0.046


def test_ten_more_crops_are_tried_and_the_last_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = torch.arange(64 * 64).view(64, 64)
    tried: list[int] = []
    monkeypatch.setattr(transforms, "is_varied", lambda cut, ratio: bool(tried.append(int(cut[0, 0]))))
    torch.manual_seed(0)
    options: dict[str, Any] = {"crop": (32, 32), "box": (64, 64), "cat_max_ratio": 0.75} | STILL
    cut = cutter(**options)(torch.zeros(3, 64, 64, dtype=torch.uint8), {"mask": mask})[1]["mask"]
    assert len(tried) == 10
    torch.manual_seed(0)
    torch.rand(())
    drawn = [(int(torch.randint(33, ())), int(torch.randint(33, ()))) for _ in range(11)]
    assert [*tried, int(cut[0, 0])] == [64 * top + left for top, left in drawn]


@pytest.mark.parametrize(
    ("labels", "varied"),
    [
        ([3, 3, 3, 3], False),
        ([3, 3, 3, 0], False),  # three of four are not less than 3/4
        ([3, 3, 0, 0], True),
        ([3, 3, IGNORE, 0], True),
        ([3, IGNORE, IGNORE, IGNORE], False),
        ([IGNORE] * 4, False),
    ],
)
def test_what_is_varied(labels: list[int], varied: bool) -> None:
    assert is_varied(torch.tensor(labels).view(2, 2), 0.75) is varied


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 60), st.integers(1, 60), st.floats(0.1, 1), st.integers(0, 2**31))
def test_whether_a_map_is_varied_is_what_its_counts_say(height: int, width: int, ratio: float, seed: int) -> None:
    """Few labels with shares of any kind, some unlabelled."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(rng.choice([0.1, 1, 10], 5))
    labels = rng.choice([IGNORE, 0, 1, 7, 300], (height, width), p=shares).astype(np.int32)
    _, counts = np.unique(labels[labels != IGNORE], return_counts=True)
    assert is_varied(torch.from_numpy(labels), ratio) is (len(counts) > 1 and bool(counts.max() / counts.sum() < ratio))


@pytest.mark.parametrize("options", [{"box": (90, 60), "cat_max_ratio": 0.75}, {}])
def test_narrow_maps_give_the_same_views(options: dict[str, Any]) -> None:
    """As sources hand them out; what leaves is 64 bits wide."""
    image, mask = coded(blocks("narrow", range(40), (60, 90), block=3))
    for seed in range(4):
        view, cut = augment(image, mask, seed, crop=(48, 64), **options)
        again, narrow = augment(image, mask.int(), seed, crop=(48, 64), **options)
        assert narrow.dtype == torch.int64
        assert torch.equal(cut, narrow)
        assert torch.equal(view, again)


def test_padding_is_exactly_zero_for_the_network_and_unlabelled() -> None:
    """At the bottom and right, in a colour no byte has: 123.675, 116.28, 103.53 of 255."""
    mean = (0.485, 0.456, 0.406)
    image = torch.full((40, 60, 3), 200, dtype=torch.uint8).permute(2, 0, 1)
    torch.manual_seed(0)
    options: dict[str, Any] = {"crop": (48, 96), "box": (60, 40), "scale": (0.5, 1.0), "photometric": True}
    view = cutter(pad_colour=mean, **options)
    samples = []
    for number in range(4):
        pixels, maps, padding = view(image, {"mask": torch.ones(40, 60, dtype=torch.int64)})
        samples.append(Sample(pixels, maps, "s", str(number), padding))
    batch = Batch.stack(samples)
    assert (batch.pixels.dtype, batch.image.dtype) == (torch.uint8, torch.float32)
    normal = (batch.image - torch.tensor(mean).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    inside = batch.targets["mask"] == 1
    assert 0.2 < inside.float().mean() < 0.6
    assert (normal.permute(0, 2, 3, 1)[~inside] == 0).all()
    assert (normal.permute(0, 2, 3, 1)[inside] != 0).all()
    assert torch.equal((batch.image * 255).round().to(torch.uint8).permute(0, 2, 3, 1)[inside],
                       batch.pixels.permute(0, 2, 3, 1)[inside])  # fmt: skip
    for number, sample in enumerate(samples):
        assert sample.padding is not None
        corner = inside[number, : sample.padding.height, : sample.padding.width]
        assert corner.all()
        assert corner.sum() == inside[number].sum()


def test_padding_without_a_colour_is_grey() -> None:
    image, mask = torch.zeros(3, 32, 32, dtype=torch.uint8), torch.ones(32, 32, dtype=torch.int64)
    options: dict[str, Any] = {"crop": (40, 48), "box": (32, 32), "photometric": True} | STILL
    view, maps, padding = cutter(**options)(image, {"mask": mask})
    assert padding is None
    assert torch.equal((view == PAD_GREY).all(0), maps["mask"] == IGNORE)
    _, _, padding = cutter(pad_colour=(0.0, 0.5, 1.0), **options)(image, {"mask": mask})
    assert padding == Padding(32, 32, (0.0, 0.5, 1.0))


def test_colour_of_either_kind_follows_either_geometry() -> None:
    image, mask = coded(blocks("coloured", range(40), (64, 64)))
    for options in (
        {"box": (64, 64), "brightness": 0.4},
        {"photometric": True},
        {"box": (64, 64), "photometric": True},
    ):
        changed = 0
        for seed in range(6):
            view, cut = augment(image, mask, seed, crop=(64, 64), **STILL, **options)
            assert torch.equal(cut, mask)
            changed += not torch.equal(view, image)
        assert changed > 3


@settings(deadline=None, max_examples=30)
@given(size=st.tuples(st.integers(1, 90), st.integers(1, 90)), seed=st.integers(0, 2**31))
def test_an_image_with_one_label_fills_the_crop_from_a_box_too(size: tuple[int, int], seed: int) -> None:
    torch.manual_seed(seed)
    view, maps, padding = cutter(crop=(40, 64), box=(80, 60), pad_colour=(0.0, 0.0, 0.0))(
        torch.full((3, *size), 10, dtype=torch.uint8), {}
    )
    assert (view.shape, maps, padding) == ((3, 40, 64), {}, None)
    assert (view == 10).all()


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1)])
def test_a_line_of_pixels_fills_the_crop_and_not_the_memory(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any part of the line may be seen."""
    sizes: list[Any] = []
    monkeypatch.setattr(transforms, "resize_image", lambda *given: sizes.append(given[1]) or resize_image(*given))
    line = torch.arange(3000).div(3000 / 256, rounding_mode="floor").to(torch.uint8).expand(3, -1).reshape(3, *size)
    seen = []
    for seed in range(40):
        torch.manual_seed(seed)
        view, _, _ = cutter(crop=(40, 64), box=(80, 60))(line, {})
        assert view.shape == (3, 40, 64)
        seen.append(view.float().mean().item())
    assert max(max(size) for size in sizes) < 10 * 64
    assert min(seen) < 50
    assert max(seen) > 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": (2.0, 0.5)}, r"augment\.scale: \[2\.0, 0\.5\] is not a range; for example"),
        ({"scale": (0.0, 1.0)}, r"augment\.scale"),
        ({"crop": (512, 31)}, r"augment\.crop: 31 is not at least 32; for example \[512, 512\]"),
        ({"aspect": 0.5}, r"augment\.aspect: 0\.5 is not at least 1"),
        ({"hue": 0.6}, r"augment\.hue: 0\.6 is not from 0 to 0\.5"),
        ({"flip": -0.1}, r"augment\.flip: -0\.1 is not from 0 to 1"),
        ({"brightness": -1.0}, r"augment\.brightness: -1\.0 is not at least 0"),
        ({"box": (0, 512)}, r"augment\.box: 0 is not at least 1; for example \[2048, 512\]"),
        ({"box": (9, 9), "short_side": 5}, r"augment\.short_side: 5 has no place beside box \[9, 9\]; valid: null"),
        ({"box": (9, 9), "aspect": 1.2}, r"augment\.aspect: 1\.2 has no place beside box \[9, 9\]; valid: 1\.0"),
        (
            {"cat_max_ratio": 1.5, "box": (9, 9)},
            r"augment\.cat_max_ratio: 1\.5 is not from 1e-09 to 1; for example 0\.75",
        ),
        (
            {"cat_max_ratio": 0.75},
            r"augment\.cat_max_ratio: 0\.75 needs a box; for example augment\.box: \[2048, 512\]",
        ),
        (
            {"pad_colour": (0.0, 0.0, 0.0)},
            r"augment\.pad_colour: \(0\.0, 0\.0, 0\.0\) needs a box or short_sides; for example",
        ),
        (
            {"pad_colour": (124.0, 0.5, 0.5), "box": (9, 9)},
            r"augment\.pad_colour: 124\.0 is not from 0 to 1; for example",
        ),
        ({"photometric": True, "hue": 0.1}, r"augment\.hue: 0\.1 has no place beside photometric: true; valid: 0"),
    ],
)
def test_bad_augmentation_is_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        AugmentConfig(**options)


# --- whole images, as the authors' code shows them -------------------------------------------------------------------

WHOLE: dict[str, Any] = {"short_sides": (32,), "long_side": 1200, "flip": 0.0}


@pytest.mark.parametrize(
    ("size", "short", "long", "expected"),
    [
        ((100, 150), 50, 1200, (50, 75)),
        ((683, 512), 300, 1200, (400, 300)),  # 683 · 300 / 512 = 400.2
        ((150, 100), 64, 80, (80, 53)),  # the longer side decides; 53.3 is cut
        ((40, 41), 75, 76, (74, 76)),
    ],
)
def test_sides_are_cut_to_whole_pixels(size: tuple[int, int], short: int, long: int, expected: tuple[int, int]) -> None:
    view, cut = augment(*coded(np.zeros(size, int)), short_sides=(short,), long_side=long, flip=0.0)
    assert tuple(view.shape) == (3, *expected)
    assert tuple(cut.shape) == expected


def test_a_whole_image_is_resized_as_by_opencv_and_its_labels_as_by_pillow() -> None:
    from PIL import Image

    image, mask = coded(blocks("whole", range(200), (49, 83), block=2))  # of odd sides: no tie
    view, cut = augment(image, mask, short_sides=(36,), long_side=1200, flip=0.0)
    assert torch.equal(view, resize_image(image, (36, 60)))
    pillow = Image.fromarray(mask.numpy().astype(np.uint8)).resize((60, 36), Image.Resampling.NEAREST)
    assert cut.tolist() == np.asarray(pillow).tolist()


def test_labels_are_thinned_to_the_pixel_after_the_middle() -> None:
    """Of every 4 × 4 pixels the third of the third row, as Pillow's nearest filter takes it from the padded map."""
    from PIL import Image

    mask = np.arange(34 * 45).reshape(34, 45) % 251
    image, labels = coded(mask)
    view, cut, _ = cutter(short_sides=(34,), long_side=1200, flip=0.0, label_stride=4, multiple=32)(
        image, {"mask": labels}
    )
    assert torch.equal(cut["mask"], labels[2::4, 2::4])
    batch = Batch.stack([Sample(view, cut, "s", "one")], multiple=32, label_stride=4)
    assert tuple(batch.pixels.shape[-2:]) == (64, 64)
    padded = np.full((64, 64), 255, np.uint8)
    padded[:34, :45] = mask
    expected = np.asarray(Image.fromarray(padded).resize((16, 16), Image.Resampling.NEAREST)).astype(int)
    assert batch.targets["mask"][0].tolist() == np.where(expected == 255, IGNORE, expected).tolist()


def test_crops_may_have_thin_labels_too() -> None:
    image, mask = coded(np.arange(48 * 64).reshape(48, 64))
    for options in ({}, {"box": (64, 48)}):
        _, cut = augment(image, mask, crop=(48, 64), label_stride=4, **STILL, **options)
        assert torch.equal(cut, mask[2::4, 2::4])


def test_a_whole_image_is_flipped_before_anything_else() -> None:
    """To shrink a map and to mirror it is not the same where three pixels become two."""
    image, mask = coded(np.arange(48 * 72).reshape(48, 72))
    view, cut = augment(image, mask, short_sides=(32,), long_side=1200, flip=1.0)
    mirrored, labels = augment(image.flip(-1), mask.flip(-1), **WHOLE)
    assert torch.equal(view, mirrored)
    assert torch.equal(cut, labels)
    assert not torch.equal(cut, augment(image, mask, **WHOLE)[1])


def test_images_of_one_batch_are_padded_to_the_largest_with_the_mean_exactly() -> None:
    colour = (0.4814576470588235, 0.4546921568627451, 0.40384352941176466)
    cut = cutter(**WHOLE, multiple=32, label_stride=4, pad_colour=colour)
    samples = []
    for size in ((40, 60), (50, 45)):
        view, maps, padding = cut(*((coded(np.ones(size, int))[0]), {"mask": torch.ones(size, dtype=torch.int64)}))
        samples.append(Sample(view, {**maps, "scene": torch.tensor(3)}, "s", "one", padding))
    batch = Batch.stack(samples, {"other": True, "level": False}, multiple=32, label_stride=4)
    assert tuple(batch.pixels.shape) == (2, 3, 64, 64)  # 32×48 and 35×32, each side rounded up
    shown = torch.zeros(2, 64, 64, dtype=torch.bool)
    shown[0, :32, :48] = shown[1, :35, :32] = True
    mean = torch.tensor(colour)[:, None]
    for image, inside, target in zip(batch.image, shown, batch.targets["mask"], strict=True):
        assert (image[:, ~inside] - mean).unique().tolist() == [0]
        assert (image[:, inside] != mean).all()
        assert torch.equal(target == 1, inside[2::4, 2::4])
        assert target.unique().tolist() == [IGNORE, 1]
    assert batch.targets["scene"].tolist() == [3, 3]
    assert batch.targets["other"].unique().tolist() == [IGNORE]
    assert tuple(batch.targets["other"].shape) == (2, 16, 16)
    assert batch.targets["level"].tolist() == [IGNORE, IGNORE]


def test_the_shorter_side_is_one_of_those_named_and_may_be_given() -> None:
    cut = Augment(AugmentConfig(short_sides=(32, 40, 48), long_side=1200))
    assert {cut.draw_short_side() for _ in range(60)} == {32, 40, 48}
    photograph = Photograph.from_pixels(np.zeros((64, 96, 3), np.uint8))
    assert {cut(photograph, {}, 40)[0].shape[-2:] for _ in range(5)} == {(40, 60)}
    assert Augment(AugmentConfig()).draw_short_side() is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"short_sides": (300,)}, r"augment\.short_sides \[300\] needs a long_side; for example augment\.long_side"),
        ({"crop": (64, 64)}, r"augment\.crop: \(64, 64\) has no place beside short_sides \[300\]; valid: \(512, 512\)"),
        (
            {"scale": (1.0, 1.0)},
            r"augment\.scale: \(1\.0, 1\.0\) has no place beside short_sides \[300\]; valid: \(0\.5",
        ),
        ({"box": (64, 64)}, r"augment\.box: \(64, 64\) has no place beside short_sides \[300\]; valid: null"),
        ({"short_side": 64}, r"augment\.short_side: 64 has no place beside short_sides \[300\]; valid: null"),
        ({"aspect": 1.5}, r"augment\.aspect: 1\.5 has no place beside short_sides \[300\]; valid: 1\.0"),
        ({"cat_max_ratio": 0.5}, r"augment\.cat_max_ratio: 0\.5 has no place beside short_sides"),
        ({"short_sides": (300, 8)}, r"augment\.short_sides: 8 is not at least 32"),
        ({"multiple": 32, "label_stride": 5}, r"augment\.label_stride: 5 does not divide multiple 32"),
        ({"short_sides": (), "crop": (66, 64), "label_stride": 4}, r"label_stride: 4 does not divide crop 66 × 64"),
        ({"short_sides": ()}, r"augment\.long_side: 1200 needs short_sides; for example"),
        ({"short_sides": (), "long_side": None, "multiple": 32}, r"augment\.multiple: 32 needs short_sides"),
        ({"multiple": 0}, r"augment\.multiple: 0 is not at least 1"),
    ],
)
def test_options_of_whole_images_that_contradict_are_told(options: dict[str, Any], message: str) -> None:
    given = {"short_sides": (300,), "long_side": 1200}
    if options == {"short_sides": (300,)}:
        given = {}
    if "crop" in options and options.get("short_sides") == ():
        given = {}
    with pytest.raises(UserError, match=message) as caught:
        AugmentConfig(**(given | options))
    assert "\n" not in str(caught.value)
