"""PNG files decompressed by themselves: the pixels are Pillow's, whatever the file and however few rows are wanted."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from upernet.data.config import AugmentConfig
from upernet.data.images import Photograph, open_image, read_image
from upernet.data.masks import read_mask
from upernet.data.png import Png
from upernet.data.transforms import Augment
from upernet.errors import UserError

Chunks = list[tuple[bytes, bytes]]


def written(chunks: Chunks) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in [*chunks, (b"IEND", b"")])


def header(width: int, height: int, depth: int = 8, colour: int = 2, interlaced: int = 0) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)


def rgb(width: int, height: int, seed: int = 0) -> bytes:
    """Scan lines of 8-bit RGB, filtered in all five ways."""
    rng = np.random.default_rng(seed)
    lines = rng.integers(0, 256, (height, 1 + 3 * width), dtype=np.uint8)
    lines[:, 0] = rng.integers(0, 5, height)
    return lines.tobytes()


def pillow(file: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(file)))


@settings(deadline=None, max_examples=60)
@given(width=st.integers(1, 40), height=st.integers(1, 40), seed=st.integers(0, 2**31), data=st.data())
def test_any_number_of_first_rows(width: int, height: int, seed: int, data: st.DataObject) -> None:
    """Of a stream in several chunks; the size is that of the whole."""
    rows = data.draw(st.integers(1, height))
    packed = zlib.compress(rgb(width, height, seed), data.draw(st.integers(0, 9)))
    cut = data.draw(st.integers(0, len(packed)))
    file = written(
        [header(width, height), (b"gAMA", b"\0\0\xb1\x8f"), (b"IDAT", packed[:cut]), (b"IDAT", packed[cut:])]
    )
    png = Png.parse(file)
    assert png is not None and png.is_plain and png.size == (height, width)
    stored = png.stored(rows)
    assert stored is not None
    np.testing.assert_array_equal(pillow(stored), pillow(file)[:rows])


def test_rows_that_are_not_wanted_are_black(tmp_path: Path) -> None:
    """More than one stored block; and no row more is decompressed than is wanted, whatever comes later."""
    path, lines = tmp_path / "a.png", rgb(300, 200)
    path.write_bytes(written([header(300, 200), (b"IDAT", zlib.compress(lines))]))
    whole = read_image(path)
    np.testing.assert_array_equal(whole, pillow(path.read_bytes()))
    photograph = open_image(path)
    for rows in (1, 73, 199):
        pixels = photograph.decode(rows)
        np.testing.assert_array_equal(pixels[:rows], whole[:rows])
        assert pixels.shape == (200, 300, 3)
        assert not pixels[rows:].any()
    np.testing.assert_array_equal(photograph.pixels, whole)
    path.write_bytes(written([header(300, 200), (b"IDAT", zlib.compress(lines)[: 110 * 901])]))
    np.testing.assert_array_equal(open_image(path).decode(100)[:100], whole[:100])
    with pytest.raises(UserError, match=r"a\.png: "):
        open_image(path).decode(120)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(64, 48), (37, 5), (1, 1)])
def test_every_kind_of_pixel_is_stored_as_it_was(mode: str, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, size[::-1], dtype=np.uint16))
    else:
        image = Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).convert(mode)
    said = PngImagePlugin.PngInfo()
    said.add_text("Software", "a test")
    for bits in (1, 2, 4, 8) if mode == "P" else (8,):
        file = io.BytesIO()
        image.save(file, "PNG", pnginfo=said, bits=bits)
        png = Png.parse(file.getvalue())
        stored = None if png is None else png.stored()
        assert stored is not None
        again, before = Image.open(io.BytesIO(stored)), Image.open(file)
        assert (again.mode, again.info, again.tile[0][3]) == (before.mode, before.info, before.tile[0][3])
        np.testing.assert_array_equal(np.array(again), np.array(before))
        assert again.getpalette() == before.getpalette()
        assert stored.count(b"a test") == 1


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"eXIf", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")],  # turned by a quarter
        [(b"tRNS", b"\0\x01\0\x02\0\x03")],
        [(b"tEXt", b"Comment\0who knows")],
        [(b"iDOT", b"whatever this is")],
    ],
)
def test_what_might_change_pixels_is_left_to_pillow(chunks: Chunks, tmp_path: Path) -> None:
    """Wherever it stands."""
    pixels = (b"IDAT", zlib.compress(rgb(6, 4)))
    for order in ([*chunks, pixels], [pixels, *chunks]):
        png = Png.parse(written([header(6, 4), *order]))
        assert png is not None and not png.is_plain
    (tmp_path / "a.png").write_bytes(written([header(6, 4), *chunks, pixels]))
    assert read_image(tmp_path / "a.png").shape == ((6, 4, 3) if chunks[0][0] == b"eXIf" else (4, 6, 3))


LINES = zlib.compress(rgb(6, 4))
PLAIN = written([header(6, 4), (b"IDAT", LINES)])


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"\xff\xd8\xff\xe0" + b"\0" * 40,
        PLAIN[:-4],
        PLAIN[:-12],
        PLAIN[:60],
        PLAIN[:60] + b"\0" + PLAIN[61:],  # a wrong checksum: damage is told at once, wherever it is
        written([header(6, 4), (b"IDAT", LINES[:9]), (b"gAMA", b"\0\0\xb1\x8f"), (b"IDAT", LINES[9:])]),
        written([header(6, 4)]),
        written([(b"IDAT", LINES)]),
        written([(b"IHDR", b"\0" * 12), (b"IDAT", LINES)]),
        written([header(6, 4, colour=5), (b"IDAT", LINES)]),
        written([header(6, 4, interlaced=1), (b"IDAT", LINES)]),
        written([header(6, 4), (b"acTL", b"\0" * 8), (b"IDAT", LINES)]),
    ],
)
def test_other_files_are_none_of_it(file: bytes) -> None:
    assert Png.parse(file) is None


@pytest.mark.parametrize(
    "stream",
    [LINES[:20], b"no zlib stream at all", zlib.compress(b"\x05" + rgb(6, 4)[1:]), b""],
)
def test_damage_is_told_by_pillow(stream: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = written([header(6, 4), (b"IDAT", stream)])
    png = Png.parse(file)
    assert png is not None and png.stored() is None
    (tmp_path / "a.png").write_bytes(file)
    for read in (read_image, read_mask):
        with pytest.raises(UserError, match=r"a\.png: cannot be read as an image"):
            read(tmp_path / "a.png")
    assert capfd.readouterr().err == ""


def profile(space: bytes) -> bytes:
    """The head of an ICC profile for a space of colours."""
    return struct.pack(">I8x4s4s4s16x4s88x", 132, b"mntr", space, b"XYZ ", b"acsp")


@pytest.mark.parametrize("space", [b"RGB ", b"CMYK", b"GRAY"])
@pytest.mark.parametrize("late", [True, False])
def test_nobody_hears_of_chunks_without_effect(
    space: bytes, late: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """libpng would say on the screen what it thinks of them."""
    others = [(b"iCCP", b"a\0\0" + zlib.compress(profile(space))), (b"gAMA", b"\0\0\0\0"), (b"bKGD", b"\0")]
    chunks = [(b"IDAT", LINES), *others] if late else [*others, (b"IDAT", LINES)]
    path = tmp_path / "a.png"
    path.write_bytes(written([header(6, 4), *chunks]))
    png = Png.parse(path.read_bytes())
    assert png is not None and png.is_plain
    np.testing.assert_array_equal(read_image(path), pillow(PLAIN))
    np.testing.assert_array_equal(open_image(path).decode(2)[:2], pillow(PLAIN)[:2])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("size", [(1_000_001, 1), (1, 1_000_001)])
def test_pillow_decodes_what_libpng_refuses(
    size: tuple[int, int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.png"
    lines = b"\0\1\2\3" * size[1] if size[0] == 1 else b"\0" + b"\1\2\3" * size[0]
    path.write_bytes(written([header(*size), (b"IDAT", zlib.compress(lines))]))
    pixels = read_image(path)
    assert pixels.shape == (*size[::-1], 3)
    assert (pixels == [1, 2, 3]).all()
    assert capfd.readouterr().err == ""


def test_a_photograph_can_be_sent_to_another_process(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        Image.fromarray(pillow(PLAIN)).save(tmp_path / name)
        photograph = open_image(tmp_path / name)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(photograph)).pixels, photograph.pixels)


def test_rows_that_are_missing_are_black_as_pillow_has_it(tmp_path: Path) -> None:
    file = written([header(6, 4), (b"IDAT", zlib.compress(rgb(6, 3)))])
    (tmp_path / "a.png").write_bytes(file)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), pillow(file))


@pytest.mark.parametrize(
    "options", [{"short_side": 60, "aspect": 1.5}, {"box": (160, 120), "cat_max_ratio": 0.75, "photometric": True}]
)
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("size", [(90, 120), (120, 90), (300, 20)])
def test_a_view_needs_no_row_that_is_not_decoded(
    options: dict, labelled: bool, size: tuple[int, int], tmp_path: Path
) -> None:
    """Cut from a file it is what is cut from all its pixels, but often fewer rows have been decoded."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    maps = {"mask": torch.from_numpy(rng.integers(-1, 5, size).astype(np.int16))} if labelled else {}
    augment = Augment(AugmentConfig(crop=(32, 48), scale=(0.5, 2.0), **options))
    file, asked = open_image(tmp_path / "a.png"), []
    watched = Photograph(file.size, lambda rows: asked.append(rows) or file.decode(rows))  # type: ignore[func-returns-value]
    for seed in range(60):
        torch.manual_seed(seed)
        view, cut, padding = augment(watched, maps)
        torch.manual_seed(seed)
        expected, targets, place = augment(Photograph.from_pixels(pixels), maps)
        assert torch.equal(view, expected) and padding == place
        assert all(torch.equal(cut[name], targets[name]) for name in maps)
    assert len(asked) == 60
    assert max(asked) > size[0] * 0.9
    assert min(asked) < size[0] * 3 / 4
