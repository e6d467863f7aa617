"""Outlines and run lengths of COCO files, drawn as label maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_data import compress
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import told_by

from upernet.data.coco import Shape, decode_runs, draw, fill_polygon, read_coco


def filled(points: list[tuple[float, float]], size: tuple[int, int] = (4, 4)) -> list[list[int]]:
    mask = np.zeros(size, bool)
    fill_polygon(mask, np.array(points, np.float32))
    return mask.astype(int).tolist()


# --- outlines -------------------------------------------------------------------------------------------------------


def test_a_square_covers_its_pixels_and_no_border() -> None:
    assert filled([(1, 1), (3, 1), (3, 3), (1, 3)]) == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


def test_a_pixel_belongs_where_its_centre_is() -> None:
    assert filled([(0.4, 0), (1.6, 0), (1.6, 1), (0.4, 1)], (1, 3)) == [[1, 1, 0]]
    assert filled([(0.6, 0), (1.4, 0), (1.4, 1), (0.6, 1)], (1, 3)) == [[0, 0, 0]]
    assert filled([(0, 0.4), (1, 0.4), (1, 1.6), (0, 1.6)], (3, 1)) == [[1], [1], [0]]


def test_a_triangle() -> None:
    assert filled([(0, 0), (4, 0), (0, 4)]) == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_an_outline_that_crosses_itself_is_filled_by_the_even_odd_rule() -> None:
    twice = [(0, 0), (4, 0), (4, 4), (0, 4), (0, 0), (4, 0), (4, 4), (0, 4)]
    assert not np.any(filled(twice))


def test_outlines_may_reach_beyond_the_image_or_lie_outside() -> None:
    assert filled([(-5, -5), (9, -5), (9, 9), (-5, 9)]) == [[1] * 4] * 4
    assert filled([(2, -3), (9, -3), (9, 2), (2, 2)]) == [[0, 0, 1, 1]] * 2 + [[0] * 4] * 2
    assert filled([(-2, 1), (1, 1), (1, 2), (-2, 2)]) == [[0] * 4, [1, 0, 0, 0], [0] * 4, [0] * 4]
    for points in ([(5, 5), (9, 5), (9, 9)], [(-9, 1), (-5, 1), (-5, 3)], [(1, -9), (3, -9), (3, -5)]):
        assert not np.any(filled(points))  # type: ignore[arg-type]


POINT = st.tuples(st.floats(-2, 8, width=32), st.floats(-2, 7, width=32))


@settings(deadline=None, max_examples=150)
@given(st.lists(POINT, min_size=3, max_size=7))
def test_the_rule_holds_at_every_pixel(points: list[tuple[float, float]]) -> None:
    """A ray from the centre to the left crosses the outline an odd number of times."""
    drawn = filled(points, (6, 7))
    for y in range(6):
        for x in range(7):
            crossings = 0
            for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
                if (y0 <= y + 0.5) != (y1 <= y + 0.5):
                    crossings += x0 + (y + 0.5 - y0) * (x1 - x0) / (y1 - y0) <= x + 0.5
            assert drawn[y][x] == crossings % 2


@settings(deadline=None, max_examples=80)
@given(st.tuples(st.floats(0, 7, width=32), st.floats(0, 6, width=32)))
def test_neighbours_share_no_pixel_and_leave_none_out(middle: tuple[float, float]) -> None:
    corners = [(0.0, 0.0), (7.0, 0.0), (7.0, 6.0), (0.0, 6.0)]
    total = np.zeros((6, 7), int)
    for one, other in zip(corners, [*corners[1:], corners[0]], strict=True):
        total += np.array(filled([one, other, middle], (6, 7)))
    np.testing.assert_array_equal(total, 1)


def test_a_region_is_the_union_of_its_outlines() -> None:
    left, both = np.array([[0, 0], [2, 0], [2, 2], [0, 2]]), np.array([[1, 0], [3, 0], [3, 1], [1, 1]])
    assert Shape("a", 0, (left, both)).mask((2, 3)).astype(int).tolist() == [[1, 1, 1], [1, 1, 0]]


# --- run lengths ----------------------------------------------------------------------------------------------------


def test_run_lengths_go_down_the_columns_and_start_with_0() -> None:
    assert decode_runs([1, 3, 2], (2, 3)).astype(int).tolist() == [[0, 1, 0], [1, 1, 0]]
    assert decode_runs([0, 6], (2, 3)).all()


def test_the_compressed_writing_worked_by_hand() -> None:
    """Lengths 5, 40, 3, 2 and 50: 40 takes two characters, the fourth is 2 - 40 = -38, the fifth 50 - 3 = 47."""
    text = "".join(chr(48 + bits) for bits in (5, 8 | 32, 1, 3, 26 | 32, 30, 15 | 32, 1))
    expected = np.repeat([False, True, False, True, False], [5, 40, 3, 2, 50]).reshape(10, 10).T
    np.testing.assert_array_equal(decode_runs(text, (10, 10)), expected)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 9), st.integers(1, 90), st.integers(0, 2**31))
def test_what_is_compressed_is_decoded(height: int, width: int, seed: int) -> None:
    mask = np.kron(np.random.default_rng(seed).random((height, width)) < 0.5, np.ones((1, 7))).astype(bool)
    np.testing.assert_array_equal(decode_runs(compress(mask), mask.shape), mask)  # type: ignore[arg-type]


@pytest.mark.parametrize("runs", [(3, 2), (7, -1), "3", "~", "X"])
def test_runs_that_do_not_fill_the_image_are_refused(runs: Any) -> None:
    with pytest.raises(ValueError, match="run lengths"):
        decode_runs(runs, (2, 3))


# --- files ----------------------------------------------------------------------------------------------------------

SQUARE = [0, 0, 2, 0, 2, 2, 0, 2]


def write(path: Path, **changes: Any) -> Path:
    content: dict[str, Any] = {
        "categories": [{"id": 3, "name": "cat"}, {"id": 1, "name": "dog"}],
        "images": [{"id": 9, "file_name": "x\\n01_1.JPEG", "height": 2, "width": 3}],
        "annotations": [
            {"image_id": 9, "category_id": 3, "segmentation": [SQUARE, [0, 0, 3, 2]], "area": 4},
            {"image_id": 9, "category_id": 1, "segmentation": {"counts": [4, 2], "size": [2, 3]}},
        ],
    }
    path.write_text(json.dumps(content | changes))
    return path


def test_a_file_is_read_without_outlines_that_enclose_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json")
    (image,) = read_coco(path).values()
    assert (image.file, image.size, [*read_coco(path)]) == ("n01_1.JPEG", (2, 3), ["n01_1"])
    assert [(s.category, s.area, len(s.polygons)) for s in image.shapes] == [("cat", 4, 1), ("dog", 0, 0)]
    assert draw(image.shapes, image.size, {"dog": 5, "cat": 0}, path).tolist() == [[0, 0, 5], [0, 0, 5]]


def test_later_shapes_hide_earlier_ones() -> None:
    shapes = [Shape("a", 0, runs=(0, 4)), Shape("b", 0, runs=(1, 1, 2))]
    ids = {"a": 0, "b": 1}
    assert draw(shapes, (2, 2), ids, Path()).tolist() == [[0, 0], [1, 0]]
    assert draw(shapes[::-1], (2, 2), ids, Path()).tolist() == [[0, 0], [0, 0]]


def test_a_file_that_has_changed_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json")
    assert len(read_coco(path)) == 1
    write(path, images=[])
    import os

    os.utime(path, ns=(1, 1))
    assert len(read_coco(path)) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"categories": None},
        {"images": [{"id": 9}]},
        {"images": [{"id": 9, "file_name": "a.jpg", "height": 0, "width": 3}]},
        {"images": [{"id": 9, "file_name": "a.jpg", "height": 10**6, "width": 10**6}]},
        {"annotations": [{"image_id": 9, "category_id": 2, "segmentation": []}]},
        {"annotations": [{"image_id": 9, "category_id": 3, "segmentation": [[1, 2, 3]]}]},
        {"annotations": [{"image_id": 9, "category_id": 3, "segmentation": [["a"] * 6]}]},
    ],
    ids=str,
)
def test_a_file_of_another_kind_is_told(changes: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", **changes)
    line = told_by(lambda: read_coco(path))
    assert line.startswith(f"{path}: no annotations of COCO (")
    assert line.endswith("); expected images, annotations and categories")


def test_no_file_and_no_json_are_told(tmp_path: Path) -> None:
    assert told_by(lambda: read_coco(tmp_path / "a.json")) == f"{tmp_path}/a.json: no such file"
    (tmp_path / "b.json").write_text("{")
    assert "no annotations of COCO (JSONDecodeError" in told_by(lambda: read_coco(tmp_path / "b.json"))


def test_unknown_categories_and_bad_regions_are_told() -> None:
    path = Path("a.json")
    shapes = [Shape("cow", 0, runs=(4,))]
    assert (
        told_by(lambda: draw(shapes, (2, 2), {"cat": 0}, path)) == "a.json: category 'cow' is no label; valid: cat, …"
    )
    line = told_by(lambda: draw(shapes, (3, 3), {"cow": 0}, path))
    assert line == "a.json: a region of 'cow' cannot be drawn (run lengths of 4 pixels for 3×3)"
