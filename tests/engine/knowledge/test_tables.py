"""Tables with one fact per row, and the tables of the paper."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

import upernet.engine.knowledge.tables as tables
from upernet.engine.knowledge.findings import RELATIONS, Concept, Knowledge, Relation
from upernet.engine.knowledge.tables import (
    CONCEPTS,
    concept_rows,
    paper_table,
    relation_rows,
    screen_tables,
    summary,
    write_json,
    write_markdown,
    write_table,
)
from upernet.engine.knowledge.thresholds import Thresholds

NAMES = ['a "quoted", name', "höhe|Straße", "two\nlines", "[bold]tv[/bold]", "車/ドア", "semi;colon", "'", "\\"]


def concept(number: int, task: str, name: str) -> Concept:
    return Concept(number, task, name, (1, 2, 255), 3, 4, 0.1 + number)


def relation(kind: int, source: int, target: int, count: int, total: int, images: int = 9) -> Relation:
    chosen = RELATIONS[kind]
    counts = (count, total, 0, 0) if chosen.basis == "images" else (images, images, count, total)
    return Relation(chosen.name, source, target, chosen.basis, *counts, count / total, 0.0, 1.0, 2.0)


def knowledge(concepts: list[Concept], relations: list[Relation]) -> Knowledge:
    answers = {"scene": {"annotated": 2, "predicted": 1}, "object": {"annotated": 0, "predicted": 0}}
    return Knowledge(1234, 1, "some model", answers, {"top": 3}, tuple(concepts), tuple(relations))


@pytest.mark.parametrize("group", [1, 3, 100])
def test_parquet_and_csv_hold_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int) -> None:
    monkeypatch.setattr(tables, "ROW_GROUP", group)
    found = knowledge([concept(i, "object", name) for i, name in enumerate(NAMES)], [])
    write_table(tmp_path, "concepts", CONCEPTS, concept_rows(found))
    table = pq.read_table(tmp_path / "concepts.parquet")
    assert dict(zip(table.column_names, map(str, table.schema.types), strict=True)) == {
        name: kind.replace("float64", "double") for name, kind in CONCEPTS.items()
    }
    assert table.column("name").to_pylist() == NAMES
    assert table.column("colour").to_pylist() == ["#0102ff"] * len(NAMES)
    with (tmp_path / "concepts.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == NAMES
    assert [float(row["share"]) for row in rows] == table.column("share").to_pylist()
    assert pq.ParquetFile(tmp_path / "concepts.parquet").num_row_groups == -(-len(NAMES) // group)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["concepts.csv", "concepts.parquet"]


def test_a_table_without_rows_has_its_columns(tmp_path: Path) -> None:
    write_table(tmp_path, "concepts", CONCEPTS, [])
    assert pq.read_table(tmp_path / "concepts.parquet").shape == (0, len(CONCEPTS))
    assert (tmp_path / "concepts.csv").read_text() == ",".join(CONCEPTS) + "\n"


def test_a_failure_leaves_the_old_files(tmp_path: Path) -> None:
    write_table(tmp_path, "concepts", CONCEPTS, concept_rows(knowledge([concept(0, "object", "car")], [])))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ZeroDivisionError):
        write_table(tmp_path, "concepts", CONCEPTS, (row for row in [1 / 0]))  # type: ignore[misc]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_rows_of_relations_name_both_concepts() -> None:
    found = knowledge([concept(0, "scene", "street"), concept(1, "object", "car")], [relation(0, 0, 1, 1, 4)])
    assert list(relation_rows(found)) == [
        ("scene-object", 0, "street", 1, "car", "images", 1, 4, 0, 0, 0.25, 0.0, 1.0, 2.0)
    ]


def test_json_holds_everything(tmp_path: Path) -> None:
    found = knowledge([concept(0, "scene", NAMES[2])], [])
    write_json(tmp_path / "knowledge.json", found)
    content = json.loads((tmp_path / "knowledge.json").read_text(encoding="utf-8"))
    assert content["concepts"][0] == {
        "id": 0,
        "task": "scene",
        "name": "two\nlines",
        "colour": [1, 2, 255],
        "images": 3,
        "pixels": 4,
        "share": 0.1,
    }
    assert (content["images"], content["skipped"], content["model"]) == (1234, 1, "some model")
    assert content["version"]


SCENES = [concept(0, "scene", "street"), concept(1, "scene", "kitchen"), concept(2, "scene", "rare")]
OBJECTS = [concept(3, "object", "car"), concept(4, "object", "wall"), concept(5, "object", "sky")]
STUFF = [concept(6 + i, "material", name) for i, name in enumerate(["metal", "glass", "brick", "wood", "tile"])]


def test_scenes_list_the_objects_of_at_least_30_percent_of_their_images() -> None:
    relations = [
        *(relation(0, 0, 3, 10, 10), relation(0, 0, 4, 3, 10), relation(0, 0, 5, 2, 10)),
        *(relation(0, 1, 4, 11, 20), relation(0, 1, 3, 1, 20), relation(0, 2, 3, 4, 4)),
    ]
    entries = paper_table(knowledge(SCENES + OBJECTS, relations), RELATIONS[0], Thresholds())
    assert [(e.source.name, e.images, [(c.name, p) for c, p in e.targets]) for e in entries] == [
        ("kitchen", 20, [("wall", 55)]),
        ("street", 10, [("car", 100), ("wall", 30)]),
    ]


@pytest.mark.parametrize(
    ("pixels", "percentages"),
    [
        ([65, 35], [65, 35]),
        ([50, 30, 10, 9, 1], [56, 33, 11]),  # 50, 30 and 10 of 90
        ([40, 30, 20, 10], [45, 33, 22]),  # at most three: 44.4, 33.3 and 22.2 of 90; the first has the largest rest
        ([95, 5], [100]),
        ([34, 33, 33], [34, 33, 33]),
    ],
)
def test_the_first_three_materials_of_at_least_10_percent_are_brought_to_100(
    pixels: list[int], percentages: list[int]
) -> None:
    relations = [relation(2, 3, 6 + i, count, sum(pixels)) for i, count in enumerate(pixels)]
    (entry,) = paper_table(knowledge(SCENES + OBJECTS + STUFF, relations), RELATIONS[2], Thresholds())
    assert [percent for _, percent in entry.targets] == percentages


def test_thresholds_change_the_tables() -> None:
    relations = [relation(2, 3, 6 + i, count, 100) for i, count in enumerate([50, 30, 11, 9])]
    found = knowledge(SCENES + OBJECTS + STUFF, relations)

    def percentages(**changed: float) -> list[list[int]]:
        entries = paper_table(found, RELATIONS[2], Thresholds(**changed))  # type: ignore[arg-type]
        return [[percent for _, percent in entry.targets] for entry in entries]

    assert percentages(top=1) == [[100]]
    assert percentages(min_pixel_share=0.3) == [[63, 37]]
    assert percentages(min_pixel_share=0.05, top=4) == [[50, 30, 11, 9]]
    assert percentages(min_pixel_share=0.6) == []
    assert percentages(min_images=9) != []
    assert percentages(min_images=10) == []


def test_markdown_holds_every_name_in_its_cell(tmp_path: Path) -> None:
    concepts = [concept(i, "object" if i < 4 else "part", name) for i, name in enumerate(NAMES)]
    concepts[5] = concept(5, "part", f"{NAMES[1]}/a|b")
    write_markdown(
        tmp_path / "tables.md",
        knowledge(concepts, [relation(1, 1, 5, 1, 9, 9), relation(1, 2, 4, 9, 9)]),
        Thresholds(min_share=0),
    )
    lines = (tmp_path / "tables.md").read_text(encoding="utf-8").splitlines()
    assert "1,234 images (1 skipped); scene 2 annotated and 1 predicted." in lines
    assert "| höhe\\|Straße | 9 | a\\|b 11 % |" in lines
    assert "| two\\\\nlines | 9 | 車/ドア 100 % |" in lines
    assert [line for line in lines if line.startswith("## ")] == [
        *("## scene → objects", "## object → parts", "## object → materials"),
        *("## part → materials", "## material → textures"),
    ]
    assert lines.count("Nothing reaches these thresholds.") == 4


def test_no_name_is_markup_in_markdown(tmp_path: Path) -> None:
    names = ("<b>wall</b>", "`car")
    found = knowledge(
        [concept(i, "scene" if i == 0 else "object", name) for i, name in enumerate(names)], [relation(0, 0, 1, 9, 9)]
    )
    write_markdown(tmp_path / "tables.md", found, Thresholds())
    assert "| \\<b>wall\\</b> | 9 | \\`car 100 % |" in (tmp_path / "tables.md").read_text(encoding="utf-8")


def test_the_screen_shows_the_first_rows_literally() -> None:
    concepts = [*(concept(i, "object", f"{NAMES[3]} {i}") for i in range(12)), concept(12, "part", "x")]
    found = knowledge(concepts, [relation(1, i, 12, 9, 9) for i in range(12)])
    console = Console(width=120, record=True, file=io.StringIO())
    for table in screen_tables(found, Thresholds()):
        console.print(table)
    text = console.export_text()
    assert "object → parts: parts in at least 30 % of the images" in text
    assert "[bold]tv[/bold] 9" in text
    assert "[bold]tv[/bold] 10" not in text
    assert "and 2 more in tables.md" in text


def test_the_summary_leaves_out_what_nobody_answered() -> None:
    assert summary(knowledge([], [])) == "1,234 images (1 skipped); scene 2 annotated and 1 predicted."
