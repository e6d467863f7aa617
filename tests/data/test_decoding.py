"""Every way an image file can be wrong is told in one line."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from fake_data import write_png
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from refusals import told_by

from upernet.data.decoding import MAX_PIXELS
from upernet.data.images import read_image, to_rgb
from upernet.data.masks import read_mask
from upernet.errors import UserError


def one_line(path: Path, read=read_image) -> str:
    """The error of reading `path`: one line that starts with the path, and no warning beside it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        line = told_by(lambda: read(path))
    assert line.startswith(f"{path}: ")
    return line


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
    path = write_png(tmp_path / "bomb.png", 60_000, 60_000, 8, 2, b"")
    assert "3,600,000,000 pixels" in one_line(path, read)


def test_the_limit_is_ours_whatever_pillow_is_told(tmp_path, monkeypatch):
    path = write_png(tmp_path / "large.png", 20_000, 10_000, 8, 2, b"")
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
