"""Label maps: ids are what a file stores, or the file is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from fake_data import write_png
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from upernet.data.masks import read_mask
from upernet.errors import UserError


def refused(path: Path) -> str:
    """The line that refuses a file."""
    with pytest.raises(UserError) as caught:
        read_mask(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and "\n" not in line
    return line


def palette_image() -> Image.Image:
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette([10, 20, 30, 200, 100, 50])
    return image


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
    path = write_png(tmp_path / "a.png", 2, 1, depth, 0, bytes([0, row]))
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
    line = refused(tmp_path / "a.png")
    assert "(128, 64, 128) at row 0, column 1" in line
    Image.new("CMYK", (2, 2)).save(tmp_path / "b.tiff")
    assert "CMYK" in refused(tmp_path / "b.tiff")
    Image.fromarray(np.array([[0.5]], np.float32)).save(tmp_path / "c.tiff")
    assert "fractions" in refused(tmp_path / "c.tiff")


CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
"""Samples of a pixel, by a PNG's colour type: grey, RGB, grey with alpha, RGB with alpha."""


@given(
    kind=st.sampled_from([(depth, 0) for depth in (1, 2, 4, 8, 16)] + [(d, c) for d in (8, 16) for c in (2, 4, 6)]),
    width=st.integers(1, 5),
    height=st.integers(1, 4),
    equal=st.booleans(),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_ids_are_what_a_png_stores(
    tmp_path_factory: pytest.TempPathFactory,
    kind: tuple[int, int],
    width: int,
    height: int,
    equal: bool,
    data: st.DataObject,
) -> None:
    """Over bit depth, colour type and value: read as stored, and colours are refused."""
    depth, colour = kind
    samples = st.integers(0, 2**depth - 1)
    pixels = data.draw(st.lists(samples, min_size=width * height * 4, max_size=width * height * 4))
    stored = np.array(pixels).reshape(height, width, 4)
    if equal:
        stored[..., 1:3] = stored[..., :1]
    channels = {1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[CHANNELS[colour]]
    rows = b""
    for line in stored[..., channels].reshape(height, -1):
        bits = "".join(f"{v:0{depth}b}" for v in line)
        bits += "0" * (-len(bits) % 8)
        rows += b"\0" + int(bits, 2).to_bytes(len(bits) // 8)
    path = write_png(tmp_path_factory.mktemp("mask") / "a.png", width, height, depth, colour, rows)
    if colour in (2, 6) and (stored[..., 1:3] != stored[..., :1]).any():
        assert "holds colour (" in refused(path)
    else:
        mask = read_mask(path)
        assert mask.tolist() == stored[..., 0].tolist()
        assert mask.dtype == (np.int32 if depth == 16 else np.int16)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_label_maps_that_opencv_writes(tmp_path: Path, channels: int, dtype: type) -> None:
    values = np.array([[0, 1, 254], [255, 256, 65535]]).astype(dtype)
    pixels = np.repeat(values[..., None], channels, -1)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    assert read_mask(tmp_path / "a.png").tolist() == values.tolist()


def test_a_colour_of_16_bits_is_told(tmp_path: Path) -> None:
    pixels = np.full((2, 3, 3), 300, np.uint16)
    pixels[1, 2] = (1, 2, 300)  # blue, green, red; of upper bytes alone, only one differs
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    assert "holds colour (300, 2, 1) at row 1, column 2" in refused(tmp_path / "a.png")


def test_a_damaged_png_of_16_bit_colours_is_told(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (40, 40, 1), dtype=np.uint16).repeat(3, -1)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    assert "cannot be read as an image" in refused(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["tiff", "ppm", "jp2"])
def test_16_bit_colours_of_other_formats_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    lossless = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000] if suffix == "jp2" else []
    cv2.imwrite(str(path), np.full((64, 64, 3), 300, np.uint16), lossless)
    line = refused(path)
    assert line.endswith("which cannot be read as stored; save the label map as a grey or palette PNG")
    assert "16" in line or "65535" in line


@pytest.mark.parametrize("suffix", ["tiff", "ppm", "jp2"])
@pytest.mark.parametrize(("channels", "dtype"), [(3, np.uint8), (1, np.uint8), (1, np.uint16)])
def test_other_formats_whose_samples_come_as_stored(tmp_path: Path, suffix: str, channels: int, dtype: type) -> None:
    path = tmp_path / f"a.{'pgm' if suffix == 'ppm' and channels == 1 else suffix}"
    values = np.arange(64 * 64).reshape(64, 64).astype(dtype)
    lossless = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000] if suffix == "jp2" else []
    cv2.imwrite(str(path), np.repeat(values[..., None], channels, -1), lossless)
    assert read_mask(path).tolist() == values.tolist()


@pytest.mark.parametrize(
    ("content", "held"),
    [(b"P5 3 1 15\n\0\3\17", "15"), (b"P2 3 1 3\n0 1 3\n", "3"), (b"P5 1 1 1000\n\0\3", "1000")],
)
def test_samples_that_pillow_would_stretch_are_refused(tmp_path: Path, content: bytes, held: str) -> None:
    (tmp_path / "a.pgm").write_bytes(content)
    assert f"holds samples from 0 to {held}, which cannot be read as stored" in refused(tmp_path / "a.pgm")


def test_5_bit_colours_of_a_bitmap_are_refused(tmp_path: Path) -> None:
    header = struct.pack("<2sIHHI", b"BM", 58, 0, 0, 54) + struct.pack(
        "<IiiHHIIiiII", 40, 1, 1, 1, 16, 0, 4, 0, 0, 0, 0
    )
    (tmp_path / "a.bmp").write_bytes(header + struct.pack("<HH", 0b00011_00011_00011, 0))
    assert "holds colours of 5 or 6 bits" in refused(tmp_path / "a.bmp")


def test_colours_of_an_avif_are_read_only_at_8_bits(tmp_path: Path) -> None:
    pixels = np.full((16, 16, 3), 5, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.avif", quality=100)
    assert (read_mask(tmp_path / "a.avif") == 5).all()
    if not cv2.imwrite(str(tmp_path / "a.avif"), np.full((16, 16, 3), 300, np.uint16), [cv2.IMWRITE_AVIF_DEPTH, 10]):
        pytest.skip("this OpenCV writes no AVIF of 10 bits")
    assert "holds samples of 10 or 12 bits" in refused(tmp_path / "a.avif")


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_tiff_of_few_bits_is_not_stretched(tmp_path: Path, bits: int) -> None:
    """Written by hand: Pillow writes none."""
    fields = [(256, 2), (257, 1), (258, bits), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 1)]
    packed = (1 << 8 - bits | 3 << 8 - 2 * bits).to_bytes()
    table = struct.pack("<H", len(fields)) + b"".join(struct.pack("<HHII", key, 4, 1, value) for key, value in fields)
    (tmp_path / "a.tiff").write_bytes(b"II*\0" + struct.pack("<I", 10) + packed + b"\0" + table + bytes(4))
    assert read_mask(tmp_path / "a.tiff").tolist() == [[1, 3]]
