"""Which image files a command line means."""

from __future__ import annotations

from pathlib import Path

import pytest

from upernet.data.inputs import SUFFIXES, find_images


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
