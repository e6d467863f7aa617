"""Finding files and folders of a data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from upernet.data.search import image_files
from upernet.errors import UserError


def test_image_files_are_sorted_and_only_images(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/z.png", "a/b/c.webp", "notes.txt", "Thumbs.db", "a/._z.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [p.relative_to(tmp_path).as_posix() for p in image_files(tmp_path)] == ["a/b/c.webp", "a/z.png", "b.JPG"]


def test_a_folder_without_images_is_told(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=rf"{folder.name}: no images; expected files ending .*\.jpg"):
            image_files(folder)
