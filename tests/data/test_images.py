"""Photographs: every mode and orientation against known pixels."""

from __future__ import annotations

import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from upernet.data.images import read_image, to_rgb

UPRIGHT = np.array([[[250, 0, 0], [0, 250, 0], [0, 0, 250]], [[0, 0, 0], [128, 128, 128], [255, 255, 255]]], np.uint8)
"""2 rows, 3 columns: red green blue / black grey white."""

STORED = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.transpose(1, 0, 2),
    6: np.rot90(UPRIGHT, 1),  # to be turned clockwise, so stored turned the other way
    7: UPRIGHT.transpose(1, 0, 2)[::-1, ::-1],
    8: np.rot90(UPRIGHT, -1),
}


@pytest.mark.parametrize("suffix", ["png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied(tmp_path, orientation, suffix):
    image = Image.fromarray(np.ascontiguousarray(STORED[orientation]))
    exif = image.getexif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    image.save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    np.testing.assert_array_equal(read_image(path), UPRIGHT)


def test_exif_orientation_of_a_jpeg(tmp_path):
    wide = np.zeros((16, 32, 3), np.uint8)
    wide[:, :16] = 255
    image = Image.fromarray(wide)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "phone.jpg", exif=exif)
    turned = read_image(tmp_path / "phone.jpg")
    assert turned.shape == (32, 16, 3)
    assert turned[:12].min() > 240 and turned[20:].max() < 15  # the left half has come up


def test_a_broken_exif_block_does_not_lose_the_photograph(tmp_path):
    Image.fromarray(UPRIGHT).save(tmp_path / "a.png", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), UPRIGHT)


def palette_image() -> Image.Image:
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette([10, 20, 30, 200, 100, 50])
    return image


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(np.array([[0, 77]], np.uint8)), [(0, 0, 0), (77, 77, 77)]),
        (Image.fromarray(np.array([[False, True]])), [(0, 0, 0), (255, 255, 255)]),
        (palette_image(), [(10, 20, 30), (200, 100, 50)]),
        (Image.fromarray(np.array([[[9, 8, 7, 255], [9, 8, 7, 0]]], np.uint8)), [(9, 8, 7), (255, 255, 255)]),
        # Half black over white: 255 × (1 - 102 / 255) = 153.
        (Image.fromarray(np.array([[[0, 255], [0, 102]]], np.uint8), "LA"), [(0, 0, 0), (153, 153, 153)]),
        (Image.fromarray(np.array([[0, 65535]], np.uint16)), [(0, 0, 0), (255, 255, 255)]),
        (Image.fromarray(np.array([[257, 300 * 100]], np.uint16)), [(1, 1, 1), (117, 117, 117)]),
        (Image.fromarray(np.array([[257 * 200, -5]], np.int32)), [(200, 200, 200), (0, 0, 0)]),
        (Image.fromarray(np.array([[2**30, 2**29]], np.int32)), [(255, 255, 255), (128, 128, 128)]),
        (Image.fromarray(np.array([[0.2, 1.0]], np.float32)), [(51, 51, 51), (255, 255, 255)]),
        (Image.fromarray(np.array([[np.nan, 200]], np.float32)), [(0, 0, 0), (200, 200, 200)]),
        (Image.fromarray(np.array([[500, 1000]], np.float32)), [(128, 128, 128), (255, 255, 255)]),
        (Image.new("CMYK", (2, 1), (0, 255, 255, 0)), [(255, 0, 0), (255, 0, 0)]),
        (Image.new("HSV", (2, 1), (0, 255, 255)), [(255, 0, 0), (255, 0, 0)]),
        (Image.new("I;16B", (2, 1), 257 * 3), [(3, 3, 3), (3, 3, 3)]),
        (Image.new("La", (2, 1), (0, 0)), [(255, 255, 255), (255, 255, 255)]),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_modes(image, expected):
    rgb = to_rgb(image)
    assert rgb.mode == "RGB"
    assert [rgb.getpixel((x, 0)) for x in range(2)] == expected


@pytest.mark.parametrize("transparency", [1, b"\xff\x00"])
def test_a_transparent_palette_entry_shows_white(tmp_path, transparency):
    palette_image().save(tmp_path / "a.png", transparency=transparency)
    assert read_image(tmp_path / "a.png").tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_a_transparent_colour_of_an_rgb_png_shows_white(tmp_path):
    Image.fromarray(UPRIGHT).save(tmp_path / "a.png", transparency=(0, 250, 0))
    assert read_image(tmp_path / "a.png")[0].tolist() == [[250, 0, 0], [255, 255, 255], [0, 0, 250]]


def test_16_bit_png(tmp_path):
    Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0, :, 0].tolist() == [0, 100, 255]


def test_cmyk_jpeg_of_adobe(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=95)
    red = read_image(tmp_path / "print.jpg")[8, 8].astype(int)
    assert abs(red - [255, 0, 0]).max() <= 4


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.gif")[0, 0].tolist() == [255, 0, 0]


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_lossless_rgb_comes_back_as_it_was(seed, height, width):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    np.testing.assert_array_equal(np.asarray(to_rgb(Image.open(buffer))), pixels)


def test_the_result_may_be_written_to(tmp_path):
    Image.fromarray(UPRIGHT).save(tmp_path / "a.png")
    read_image(tmp_path / "a.png")[0, 0] = 1


def test_reading_in_threads_leaves_the_filters_of_warnings_alone(tmp_path: Path) -> None:
    """Python keeps them for the whole process."""
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "one.png")
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as threads:
        shapes = list(threads.map(lambda _: read_image(tmp_path / "one.png").shape, range(200)))
    assert set(shapes) == {(40, 50, 3)}
    assert warnings.filters == before
