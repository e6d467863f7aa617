"""An index names the files over which weights are spread, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from upernet.errors import WorkError
from upernet.store.archives import json_format, read_index


def index_of(folder: Path, *names: Any) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {f"tensor {i}": name for i, name in enumerate(names)}}))
    return path


def test_an_index_names_files_beside_it(tmp_path: Path) -> None:
    files = [tmp_path / "pytorch_model-00001-of-00002.bin", tmp_path / "model-00002-of-00002.fp16.safetensors"]
    for file in files:
        file.touch()
    assert read_index(index_of(tmp_path, files[0].name, files[1].name, files[0].name)) == files


@pytest.mark.parametrize(
    "name",
    [
        "..",
        ".",
        "",
        "/etc/passwd",
        "../a.bin",
        "sub/a.bin",
        "..\\a.bin",
        "C:a.bin",
        "a\nb.bin",
        "a\0.bin",
        ".a",
        7,
        ["a"],
    ],
)
def test_an_index_that_names_anything_else_is_refused(tmp_path: Path, name: Any) -> None:
    folder = tmp_path / "m"
    (folder / "sub").mkdir(parents=True)
    for file in (tmp_path / "a.bin", folder / "sub" / "a.bin", folder / "b.bin", folder / ".a"):
        file.touch()
    with pytest.raises(WorkError) as caught:
        read_index(path := index_of(folder, "b.bin", name))
    assert str(caught.value) == f"{path}: names {str(name)!r}, which is no file beside it; valid: 'model-1-of-2.bin'"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"weight_map": {"x": "a.bin"}}', "names the weight file 'a.bin', which is not beside it"),
        ('{"weight_map": {"x": "folder"}}', "names the weight file 'folder', which is not beside it"),
        ('{"weight_map": {}}', "names no weight files beside it"),
        ('{"weight_map": ["a.bin"]}', "names no weight files beside it"),
        ("[]", "holds a list; expected a mapping"),
        ('{"weight_map": {"x": "a", "x": "b"}}', "names 'x' twice"),
        ("{", "no readable JSON"),
        ("[" * 10**5, "no readable JSON"),
        (" " * 2000, "is longer than 1000 bytes"),
    ],
)
def test_what_is_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str) -> None:
    if words.startswith("is longer"):
        monkeypatch.setattr(json_format, "LISTING_BYTES", 1000)
    (tmp_path / "folder").mkdir()
    (path := tmp_path / "pytorch_model.bin.index.json").write_text(text)
    with pytest.raises(WorkError) as caught:
        read_index(path)
    assert words in str(caught.value) and str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
