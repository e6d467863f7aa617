"""Class names and other values of foreign files."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from upernet.errors import UserError
from upernet.screen import printable
from upernet.store.dialects.base import class_names, pool_scales, rgb_values


def test_class_names_follow_the_count_where_a_file_says_none() -> None:
    assert list(class_names(19, None))[:2] == ["road", "sidewalk"]
    assert len(class_names(150, ["too", "few"])) == 150
    assert class_names(2, None) == ["class 0", "class 1"]
    assert class_names(2, ["a", "b"], [[0, 0, 0], [255, 0, 10]]) == {"a": "#000000", "b": "#ff000a"}
    assert class_names(2, ["a", "b"], "random") == ["a", "b"]


def test_names_that_occur_again_are_numbered() -> None:
    assert class_names(3, ["door", "wall", "door"]) == ["door", "wall", "door (2)"]
    assert class_names(4, ["door", "door", "door (2)", "door"]) == ["door", "door (3)", "door (2)", "door (4)"]
    assert class_names(2, ["a", "a"], [[0, 0, 0], [1, 1, 1]]) == {"a": "#000000", "a (2)": "#010101"}


def test_many_equal_names_take_no_time() -> None:
    names = class_names(30_000, ["door"] * 30_000)
    assert list(names)[-1] == "door (30000)" and len(set(names)) == 30_000


def test_names_are_made_printable() -> None:
    assert class_names(3, ["a\r\n b", "\x1b]0;x\x07", " "]) == ["a b", "\\x1b]0;x\\x07", "class 2"]
    assert printable("a\nb") == "a\\nb"


COLOURS = np.array([[0, 0, 0], [255, 0, 10]], np.uint8)


@pytest.mark.parametrize("palette", [COLOURS, list(COLOURS), COLOURS.astype(float), torch.from_numpy(COLOURS)])
def test_palettes_of_arrays(palette: object) -> None:
    assert class_names(2, ["a", "b"], palette) == {"a": "#000000", "b": "#ff000a"}


@pytest.mark.parametrize("palette", [[], (), np.zeros((0, 3)), None, "random"])
def test_no_palette_is_nothing_to_tell(palette: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert class_names(2, ["a", "b"], palette) == ["a", "b"]
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    "palette",
    [
        [[0, 0, 0], [0, 0, 300]],
        [[0, 0, 0], [-1, 0, 0]],
        [[0, 0, 0]],
        "blue",
        [[0], 1],
        np.zeros((2, 4)),
        np.full((2, 3), np.nan),
        np.array(3),
    ],
)
def test_a_palette_is_whole_or_left_out(palette: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert class_names(2, ["a", "b"], palette, "x.pth") == ["a", "b"]
    line = capsys.readouterr().err
    assert line.startswith("upernet: x.pth: palette ") and line.count("\n") == 1
    assert "valid: 2 times red, green, blue in 0 … 255" in line


@pytest.mark.parametrize(
    "std", [[1, 1, 0], [1, 1, -1], [1, 1, float("nan")], [1, 1], [1, 1, float("inf")], "abc", None]
)
def test_deviations_are_three_positive_numbers(std: object) -> None:
    with pytest.raises(UserError, match=r"^x.pth: std .* is not three numbers above 0; for example \[0.229, 0.224"):
        rgb_values(std, "std", "x.pth", low=0)


def test_bins_are_numbers() -> None:
    tensors = {f"decoder.ppm.branches.{i}.conv.weight": torch.zeros(1) for i in range(4)}
    assert pool_scales(tensors, None, "x") == (1, 2, 3, 6)
    assert pool_scales(tensors, [1, 2, 4, 8], "x") == (1, 2, 4, 8)
    for wrong in ([0, 1, 2, 3], [], "abc", [1, 2, 3, 10**9]):
        with pytest.raises(UserError, match=r"^x: pool_scales .* is not a list of bins .*; for example \[1, 2, 3, 6\]"):
            pool_scales(tensors, wrong, "x")
