"""Unfinished work: what is written is read, other settings are refused, damage is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from drawn import VOCABULARY, at_random, seen
from refusals import told_by

from upernet.engine.knowledge.chunks import chunk_file, claim, read_chunk, read_settings, write_chunk
from upernet.engine.knowledge.observation import Observation
from upernet.errors import WorkError


def test_a_chunk_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = [seen(at_random("a", unknown=0)), Observation.failed(VOCABULARY, "höhe.jpg: no"), seen(at_random("b"))]
    write_chunk(chunk_file(tmp_path, 3), written)
    read = read_chunk(chunk_file(tmp_path, 3))
    for one, other in zip(written, read, strict=True):
        assert (one.size, one.fault) == (other.size, other.fault)
        assert one.origins.tolist() == other.origins.tolist()
        assert (one.classes.tolist(), one.pairs.tolist()) == (other.classes.tolist(), other.pairs.tolist())


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 half a file"])
def test_a_missing_or_damaged_file_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = chunk_file(tmp_path, 0)
    if content is not None:
        path.write_bytes(content)
    assert told_by(lambda: read_chunk(path), WorkError).startswith(f"{path}: no observations can be read here; ")


def test_work_with_other_settings_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "out" / ".chunks"
    claim(folder, {"model": "a", "images": "3"})
    claim(folder, {"model": "a", "images": "3"})
    line = told_by(lambda: claim(folder, {"model": "a", "images": "4"}))
    assert line.startswith(f"{folder}: holds the unfinished work of a call with other settings (images differs); ")
    assert read_settings(folder) == {"model": "a", "images": "3"}
    (folder / "settings.json").write_text("[1")
    assert read_settings(folder) == read_settings(tmp_path) == {}
    assert "(model differs)" in told_by(lambda: claim(folder, {"model": "a"}))
