"""The size at which an image is shown, and the windows that slide over it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upernet.config import PAPER_INFERENCE, InferenceConfig
from upernet.errors import UserError
from upernet.inference.sizes import MAX_ASPECT, MIN_SIDE, network_size, passes, sliding_windows, window_spans


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
    if short_side and max_side is None and max(height, width) <= MAX_ASPECT * min(height, width):
        assert min(h, w) == short_side
    # A 1 px line is not blown up without bound.
    assert max(h, w) <= max(height, width, MAX_ASPECT * max(min(h, w), short_side or MIN_SIDE))


@pytest.mark.parametrize(
    ("image", "longest", "expected"),
    [
        ((333, 500), 1200, (480, 704)),  # 450 and 675.7 to the next multiples
        ((512, 683), 1200, (480, 608)),  # 600.3 is cut to 600, and 608 is 19·32
        ((400, 1600), 1200, (320, 1216)),  # the longer side limits: 300×1200
        ((400, 1600), 1000, (256, 1024)),  # 250×1000, as released
        ((480, 480), 1200, (480, 480)),
        ((450, 513), 1200, (480, 544)),
        ((450, 512), 1200, (480, 512)),
    ],
)
def test_sizes_of_the_paper(image: tuple[int, int], longest: int, expected: tuple[int, int]) -> None:
    """SPEC E6: cut to whole pixels, then up to multiples of 32, which may pass the limit."""
    config = replace(PAPER_INFERENCE, max_side=longest)
    assert network_size(*image, config) == expected
    assert network_size(*image[::-1], config) == expected[::-1]


@given(st.integers(8, 3000), st.integers(8, 3000), st.sampled_from([300, 375, 450, 525, 600]))
def test_sizes_are_the_authors_arithmetic(height: int, width: int, side: int) -> None:
    """To the last bit: whether 448.99 is cut to 448 decides between 448 and 480."""
    scale = min(side / float(min(height, width)), 1200 / float(max(height, width)))
    target = [max(MIN_SIDE, int(length * scale)) for length in (height, width)]
    expected = tuple(((length - 1) // 32 + 1) * 32 for length in target)
    assert network_size(height, width, replace(PAPER_INFERENCE, short_side=side)) == expected


def test_cutting_comes_before_rounding_up() -> None:
    """32.9 is 32; rounded up before it is cut it would be 64."""
    assert network_size(329, 480, InferenceConfig(short_side=None, max_side=48, multiple=16)) == (32, 48)


def test_each_shorter_side_is_a_pass_under_the_same_limit() -> None:
    config = replace(PAPER_INFERENCE, short_sides=(300, 600))
    sizes = [network_size(400, 1200, settings, ratio) for settings, ratio in passes(config)]
    assert sizes == [(320, 928), (416, 1216)]  # 300×900, and 400×1200 instead of 600×1800
    scaled = replace(PAPER_INFERENCE, scales=(0.5, 2.0))
    assert [ratio for _, ratio in passes(scaled)] == [0.5, 2.0]


def test_windows_by_hand() -> None:
    """SPEC C1: 8 windows of 769 every 513 over 1025×2049."""
    rows, columns = [(0, 769), (256, 1025)], [(0, 769), (513, 1282), (1026, 1795), (1280, 2049)]
    assert window_spans(1025, 769, 513) == rows
    assert window_spans(2049, 769, 513) == columns
    windows = sliding_windows((1025, 2049), InferenceConfig(window=(769, 769), stride=(513, 513)))
    assert windows == [(top, left, bottom, right) for top, bottom in rows for left, right in columns]
    assert len(windows) == 8
    assert sliding_windows((512, 1024), InferenceConfig(window=(769, 769), stride=(513, 513))) == [
        (0, 0, 512, 769),
        (0, 255, 512, 1024),
    ]
    assert sliding_windows((50, 60), InferenceConfig()) == [(0, 0, 50, 60)]


@given(st.integers(1, 300), st.integers(1, 100), st.data())
def test_windows_cover_everything_and_leave_nothing(length: int, window: int, data: st.DataObject) -> None:
    spans = window_spans(length, window, data.draw(st.integers(1, window)))
    assert (spans[0][0], spans[-1][1]) == (0, length)
    assert {end - start for start, end in spans} == {min(window, length)}
    assert all(a < b <= a_end for (a, a_end), (b, _) in pairwise(spans))


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"window": (16, 64), "stride": (8, 8)},
            r"inference.window: \[16, 64\] is not a height and width of at least 32 pixels",
        ),
        (
            {"window": (64, 64), "stride": (0, 8)},
            r"inference.stride: \[0, 8\] is not a height and width of at least 1 pixels",
        ),
        ({"window": (64, 64)}, r"inference.window: \[64, 64\] needs inference.stride too"),
        ({"stride": (64, 64)}, r"inference.stride: \[64, 64\] needs inference.window too"),
        (
            {"window": (64, 64), "stride": (65, 8)},
            r"inference.stride: \[65, 8\] leaves gaps between windows of \[64, 64\]",
        ),
        ({"scales": ()}, r"inference.scales: \[\] is not a list of factors from 0.05 to 20; for example \[1.0\]"),
        ({"scales": (1.0, 0.0)}, r"inference.scales: \[1.0, 0.0\] is not a list of factors"),
        ({"scale_of": "moon"}, "inference.scale_of: 'moon' is not one of box, image"),
        ({"multiple": 0}, "inference.multiple: 0 is not at least 1; for example 32"),
        ({"short_sides": (300, 31)}, "inference.short_sides: 31 is not at least 32"),
        (
            {"short_sides": (300,), "scales": (1.0, 2.0)},
            r"inference.short_sides: \[300\] has no place beside scales \[1.0, 2.0\]; valid: \[\]",
        ),
        ({"short_sides": (300,), "scale_of": "image"}, "has no place beside scale_of: image"),
    ],
)
def test_wrong_procedures_are_told(values: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line) as caught:
        InferenceConfig(**values)
    assert "\n" not in str(caught.value)
