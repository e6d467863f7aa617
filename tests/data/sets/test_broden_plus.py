"""The five lists of Broden+."""

from __future__ import annotations

import json
from pathlib import Path

from upernet.data.sets.broden_plus import broden_plus
from upernet.labels import Labels
from upernet.tasks import Object, Part


def test_counts_and_order() -> None:
    names = broden_plus()
    counts = (len(names["object"]), len(names["material"]), len(names["scene"]), len(names["texture"]))
    assert counts == (336, 26, 365, 47)
    assert (names["object"][0], names["material"][0]) == ("-", "-")
    assert len(names["part"]) == 77
    assert sum(1 + len(parts) for parts in names["part"].values()) == 427
    assert max(1 + len(parts) for parts in names["part"].values()) == 24
    assert names["part"]["sky"] == ["cloud"]
    assert set(names["part"]) <= set(names["object"])
    for flat in (names["object"], names["material"], names["scene"], names["texture"]):
        assert len(Labels.of(flat)) == len(flat)  # refuses repeated names


def test_parts_are_a_task() -> None:
    names = broden_plus()
    task = Part(parts=names["part"])
    task.bind({"object": Object(labels=names["object"])})
    assert len(task.classes) == 427
    assert task.blocks[1] == slice(2, 26)


def test_lists_are_those_of_the_specification(spec_dir: Path) -> None:
    spec = json.loads((spec_dir / "broden_plus/labels.json").read_text())
    names = broden_plus()
    assert [names["object"], names["material"], names["scene"], names["texture"]] == [
        spec[key] for key in ("object", "material", "scene", "texture")
    ]
    groups = json.loads((spec_dir / "broden_plus/object_parts.json").read_text())["groups"]
    assert list(names["part"].items()) == [(g["object_name"], g["part_names"][1:]) for g in groups]
