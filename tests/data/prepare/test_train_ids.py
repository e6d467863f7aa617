"""Train ids of Cityscapes from polygons, worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from upernet.data.prepare.cityscapes import draw_polygons
from upernet.errors import UserError

# Labels of Cityscapes that are classes, by the id of the class.
ROAD, BUILDING, SKY, PERSON, CAR = 0, 2, 10, 11, 13
X = 255


def draw(tmp_path: Path, *objects: Any, size: int = 8) -> np.ndarray:
    """Objects are (label, polygon), or as a file has them."""
    entries = [o if isinstance(o, dict) else {"label": o[0], "polygon": o[1]} for o in objects]
    path = tmp_path / "aachen_000000_000019_gtFine_polygons.json"
    path.write_text(json.dumps({"imgHeight": size, "imgWidth": size, "objects": entries}))
    return draw_polygons(path)


def test_a_rectangle_covers_its_outline(tmp_path: Path) -> None:
    expected = np.full((8, 8), X)
    expected[1:4, 1:5] = ROAD
    np.testing.assert_array_equal(draw(tmp_path, ("road", [[1, 1], [4, 1], [4, 3], [1, 3]])), expected)


def test_a_triangle(tmp_path: Path) -> None:
    y, x = np.mgrid[:8, :8]
    mask = draw(tmp_path, ("car", [[0, 0], [6, 0], [0, 6]]))
    np.testing.assert_array_equal(mask, np.where(x + y <= 6, CAR, X))
    assert mask.dtype == np.uint8


def test_a_polygon_that_folds_inwards(tmp_path: Path) -> None:
    """A U: two arms of two columns on a floor of two rows."""
    u = [[0, 0], [1, 0], [1, 5], [6, 5], [6, 0], [7, 0], [7, 7], [0, 7]]
    expected = np.full((8, 8), X)
    expected[:, [0, 1, 6, 7]] = BUILDING
    expected[5:] = BUILDING
    np.testing.assert_array_equal(draw(tmp_path, ("building", u)), expected)


def test_later_objects_lie_over_earlier_ones(tmp_path: Path) -> None:
    whole, part = [[0, 0], [7, 0], [7, 7], [0, 7]], [[2, 2], [5, 2], [5, 5], [2, 5]]
    expected = np.full((8, 8), SKY)
    expected[2:6, 2:6] = PERSON
    np.testing.assert_array_equal(draw(tmp_path, ("sky", whole), ("person", part)), expected)
    assert (draw(tmp_path, ("person", part), ("sky", whole)) == SKY).all()


def test_what_no_class_stands_for_hides_what_lies_below(tmp_path: Path) -> None:
    whole, part = [[0, 0], [7, 0], [7, 7], [0, 7]], [[0, 0], [3, 0], [3, 7], [0, 7]]
    expected = np.full((8, 8), ROAD)
    expected[:, :4] = X
    for label in ("ego vehicle", "out of roi", "parking", "polegroup", "caravan"):
        np.testing.assert_array_equal(draw(tmp_path, ("road", whole), (label, part)), expected)


def test_number_plates_and_deleted_objects_are_not_drawn(tmp_path: Path) -> None:
    whole, part = [[0, 0], [7, 0], [7, 7], [0, 7]], [[2, 2], [5, 2], [5, 5], [2, 5]]
    deleted = {"label": "person", "polygon": part, "deleted": 1}
    assert (draw(tmp_path, ("car", whole), ("license plate", part), deleted) == CAR).all()
    assert (draw(tmp_path, {**deleted, "deleted": 0})[2:6, 2:6] == PERSON).all()


def test_groups_count_as_their_members(tmp_path: Path) -> None:
    expected = np.full((8, 8), X)
    expected[:, :2], expected[:, 6:] = CAR, PERSON
    left, right = [[0, 0], [1, 0], [1, 7], [0, 7]], [[6, 0], [7, 0], [7, 7], [6, 7]]
    np.testing.assert_array_equal(draw(tmp_path, ("cargroup", left), ("persongroup", right)), expected)


def test_what_reaches_beyond_the_image_is_cut(tmp_path: Path) -> None:
    expected = np.full((8, 8), X)
    expected[:3] = SKY
    np.testing.assert_array_equal(draw(tmp_path, ("sky", [[-3, -3], [20, -3], [20, 2], [-3, 2]])), expected)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("{", "not a polygon file of Cityscapes (JSONDecodeError: "),
        ("[]", "not a polygon file of Cityscapes (TypeError: "),
        (
            '{"imgWidth": 8, "imgHeight": 8}',
            "not a polygon file of Cityscapes (KeyError: 'objects'); expected imgWidth",
        ),
        ('{"imgWidth": 8, "imgHeight": 8, "objects": [3]}', "not a polygon file of Cityscapes (AttributeError"),
        ('{"imgWidth": 0, "imgHeight": 8, "objects": []}', "size 0×8; valid: 2048×1024, at most 178,956,970 pixels"),
        ('{"imgWidth": 99999, "imgHeight": 99999, "objects": []}', "size 99999×99999; valid: 2048×1024"),
        (
            '{"imgWidth": 8, "imgHeight": 8, "objects": [{"label": "hovercraft", "polygon": [[0, 0], [1, 1]]}]}',
            "Cityscapes has no label 'hovercraft'; valid: for example road, car, cargroup",
        ),
        (
            '{"imgWidth": 8, "imgHeight": 8, "objects": [{"label": "car", "polygon": [[0, 0]]}]}',
            "a polygon of 1 points; expected two or more",
        ),
        (
            '{"imgWidth": 8, "imgHeight": 8, "objects": [{"label": "car", "polygon": [[0, 0], [NaN, 1], [3, 3]]}]}',
            "a polygon of 3 points; expected two or more, within the image",
        ),
    ],
)
def test_wrong_polygon_files_are_told(content: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "a_gtFine_polygons.json"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        draw_polygons(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
