"""Images in every form that a user may have, and in none of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from upernet.errors import UserError
from upernet.parse.pictures import in_batches, to_picture


def test_grey_is_spread_over_three_channels():
    grey = np.full((2, 2), 7, np.uint8)
    for image in (grey, grey[..., None], torch.from_numpy(grey)[None], Image.fromarray(grey)):
        assert to_picture(image).tolist() == [[[7, 7], [7, 7]]] * 3


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((3, 4, 5), np.uint8), r"array of shape \(3, 4, 5\); valid: \(H, W, 3\)"),
        (np.zeros((4, 5, 4), np.uint8), r"shape \(4, 5, 4\)"),
        (np.zeros((0, 5, 3), np.uint8), r"shape \(0, 5, 3\)"),
        (np.zeros(5, np.uint8), r"shape \(5,\)"),
        (np.zeros((4, 5, 3), np.int64), r"array of int64; valid: uint8, or float in \[0, 1\]"),
        (np.zeros((4, 5), bool), "array of bool"),
        (np.full((4, 5, 3), 200.0), r"floats from 200 to 200; valid: \[0, 1\]"),
        (np.full((4, 5, 3), np.nan), "floats from nan"),
        (torch.zeros(4, 5, 3), r"tensor of shape \(4, 5, 3\); valid: \(3, H, W\)"),
        (torch.zeros(3, 4, 5, dtype=torch.int32), "tensor of int32"),
        (torch.full((3, 4, 5), -1.0), "floats from -1 to -1"),
        (7, "image of type int; valid: path"),
        (None, "image of type NoneType"),
    ],
)
def test_what_is_no_picture(image, says):
    with pytest.raises(UserError, match=says) as caught:
        to_picture(image)
    assert "\n" not in str(caught.value)


def test_pictures_are_read_when_their_batch_is_asked_for():
    """A bad one behind the first batch is not met before."""
    batches = in_batches([np.zeros((4, 5, 3), np.uint8)] * 3 + [None], 2)
    assert [picture.pixels.shape for picture in next(batches)] == [(3, 4, 5)] * 2
    with pytest.raises(UserError, match="NoneType"):
        next(batches)


def test_a_picture_keeps_the_name_of_its_file(tmp_path):
    Image.new("RGB", (5, 4)).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as opened:
        ((path, text, pil, array),) = in_batches(
            [tmp_path / "a.png", str(tmp_path / "a.png"), opened, np.zeros((4, 5, 3), np.uint8)], 4
        )
    assert [picture.name for picture in (path, text, pil, array)] == [str(tmp_path / "a.png")] * 3 + [""]
