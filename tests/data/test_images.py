"""Image files: every mode and orientation against known pixels, and every way a file can be wrong."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from upernet.data.images import MAX_PIXELS, SUFFIXES, find_images, read_image, read_mask, to_rgb
from upernet.errors import UserError


def png(path: Path, width: int, height: int, depth: int, colour: int, rows: bytes) -> Path:
    """A PNG written by hand; `rows` are the scan lines, each with its filter byte."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return path


def one_line(path: Path, read=read_image) -> str:
    """The error of reading `path`: one line that starts with the path, and no warning beside it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError) as caught:
            read(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and "\n" not in line
    return line


# --- photographs ---------------------------------------------------------------------------------------------------

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


# --- files that are wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [read_image, read_mask])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff", "bmp", "gif"])
@pytest.mark.parametrize("part", [0.1, 0.6, 0.95])
def test_a_truncated_file(tmp_path, suffix, part, read):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    one_line(path, read)


@pytest.mark.parametrize("read", [read_image, read_mask])
def test_an_absurd_header_is_refused_before_anything_is_decoded(tmp_path, read):
    path = png(tmp_path / "bomb.png", 60_000, 60_000, 8, 2, b"")
    assert "3,600,000,000 pixels" in one_line(path, read)


def test_the_limit_is_ours_whatever_pillow_is_told(tmp_path, monkeypatch):
    path = png(tmp_path / "large.png", 20_000, 10_000, 8, 2, b"")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    line = one_line(path)
    assert "200,000,000 pixels" in line and f"{MAX_PIXELS:,}" in line


def test_a_large_photograph_warns_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.new("RGB", (15, 10)).save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "a.png").shape == (10, 15, 3)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "empty file"), (b"not a picture\n", "not an image"), (b"%!PS-Adobe-3.0\n", "not an image")],
)
def test_no_image_inside(tmp_path, content, says):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    assert says in one_line(path)


def test_no_file(tmp_path):
    assert "no such file" in one_line(tmp_path / "missing.jpg")
    assert "folder" in one_line(tmp_path)
    one_line(tmp_path / ("n" * 300 + ".jpg"))
    os.mkfifo(tmp_path / "pipe.jpg")
    assert "not a regular file" in one_line(tmp_path / "pipe.jpg")


def test_a_damaged_pillow_image_is_told_in_one_line(tmp_path):
    Image.effect_noise((64, 64), 90).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:900])
    with pytest.raises(UserError, match=r"a\.jpg: cannot be read"):
        to_rgb(Image.open(tmp_path / "a.jpg"))


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\x00", b"GIF89a", b"BM"]),
)
@settings(max_examples=60, deadline=None)
def test_random_bytes_never_raise_anything_else(tmp_path_factory, body, start):
    path = tmp_path_factory.mktemp("noise") / "a.jpg"
    path.write_bytes(start + body)
    for read in (read_image, read_mask):
        try:
            read(path)
        except UserError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)


# --- label maps ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image",
    [
        palette_image(),
        Image.fromarray(np.array([[0, 1]], np.uint8)),
        Image.fromarray(np.array([[0, 1]], np.uint16)),
        Image.fromarray(np.array([[False, True]])),
        Image.fromarray(np.array([[[0, 0, 0], [1, 1, 1]]], np.uint8)),
        Image.fromarray(np.array([[[0, 0, 0, 9], [1, 1, 1, 0]]], np.uint8)),
        Image.fromarray(np.array([[[0, 9], [1, 0]]], np.uint8), "LA"),
    ],
    ids=lambda image: image.mode,
)
def test_label_maps_are_read_as_numbers(tmp_path, image):
    image.save(tmp_path / "a.png")
    mask = read_mask(tmp_path / "a.png")
    assert mask.dtype == (np.int32 if image.mode.startswith("I") else np.int16) and mask.tolist() == [[0, 1]]


def test_label_maps_beyond_8_bits(tmp_path):
    values = np.array([[0, 255, 256, 65535]])
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "a.png")
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "b.tiff")
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "c.tiff")
    for name in ("a.png", "b.tiff", "c.tiff"):
        assert read_mask(tmp_path / name).tolist() == values.tolist()


@pytest.mark.parametrize(
    ("depth", "row", "expected"), [(4, 0x0F, [0, 15]), (4, 0x31, [3, 1]), (2, 0b0110_0000, [1, 2])]
)
def test_stored_samples_of_few_bits_are_not_stretched(tmp_path, depth, row, expected):
    path = png(tmp_path / "a.png", 2, 1, depth, 0, bytes([0, row]))
    assert read_mask(path).tolist() == [expected]


def test_a_palette_with_transparency_is_still_indices(tmp_path):
    palette_image().save(tmp_path / "a.png", transparency=b"\xff\x00")
    assert read_mask(tmp_path / "a.png").tolist() == [[0, 1]]


def test_a_label_map_is_never_turned(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    assert read_mask(tmp_path / "a.png").tolist() == [[0, 1, 2]]


def test_colours_are_no_label_map(tmp_path):
    Image.fromarray(np.array([[[4, 4, 4], [128, 64, 128]]], np.uint8)).save(tmp_path / "a.png")
    line = one_line(tmp_path / "a.png", read_mask)
    assert "(128, 64, 128) at row 0, column 1" in line
    Image.new("CMYK", (2, 2)).save(tmp_path / "b.tiff")
    assert "CMYK" in one_line(tmp_path / "b.tiff", read_mask)
    Image.fromarray(np.array([[0.5]], np.float32)).save(tmp_path / "c.tiff")
    assert "fractions" in one_line(tmp_path / "c.tiff", read_mask)


# --- which files ---------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """photos/{b.jpg,a.PNG,notes.txt,.hidden.jpg,deep/c.jpeg,.cache/d.jpg} and an empty folder, from inside."""
    for name in ("b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "deep/c.jpeg", ".cache/d.jpg", "x[1].jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return Path("photos")


def test_a_folder(tree):
    found, errors = find_images(["photos"])
    assert found == {tree / name: Path(name) for name in ("a.PNG", "b.jpg", "x[1].jpg", "deep/c.jpeg")}
    assert list(found) == [tree / name for name in ("a.PNG", "b.jpg", "x[1].jpg", "deep/c.jpeg")]
    assert errors == []


def test_files_and_globs(tree):
    found, errors = find_images(["photos/notes.txt", "photos/*.jpg", "photos/**/*.jpeg", "photos/x[1].jpg"])
    assert found == {
        tree / "notes.txt": Path("notes.txt"),
        tree / "b.jpg": Path("b.jpg"),
        tree / "x[1].jpg": Path("x[1].jpg"),
        tree / "deep/c.jpeg": Path("deep/c.jpeg"),
    }
    assert errors == []


def test_a_file_met_twice_counts_once(tree):
    found, _ = find_images(["photos/b.jpg", "photos", "./photos/b.jpg"])
    assert [path.name for path in found].count("b.jpg") == 1


def test_one_error_for_each_input_that_holds_nothing(tree):
    found, errors = find_images(["missing.jpg", "empty", "photos/*.gif", "photos/b.jpg", "n" * 5000])
    assert list(found) == [tree / "b.jpg"]
    assert [str(error).split(": ")[0][:20] for error in errors] == ["missing.jpg", "empty", "photos/*.gif", "n" * 20]


def test_places_never_climb(tree):
    found, _ = find_images(["photos/*/../b.jpg"])
    assert all(".." not in place.parts for place in found.values())


def test_every_suffix_is_lower_case():
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in SUFFIXES)


def test_reading_in_threads_leaves_the_filters_of_warnings_alone(tmp_path: Path) -> None:
    """Python keeps them for the whole process."""
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "one.png")
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as threads:
        shapes = list(threads.map(lambda _: read_image(tmp_path / "one.png").shape, range(200)))
    assert set(shapes) == {(40, 50, 3)}
    assert warnings.filters == before
