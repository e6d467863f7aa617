"""The paper's table from results of any sources."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from upernet.contract import Task
from upernet.engine.evaluator import Result
from upernet.engine.paper_table import COLUMNS, PaperTable
from upernet.tasks import Material, Object, Part, Scene, Semantic, Texture
from upernet.zoo.paper import paper_rows

TASKS: dict[str, Task] = {
    "things": Object(labels=["sky", "car"]),
    "part": Part(parts={"car": ["wheel"]}, objects="things"),
    "scene": Scene(labels=["street"]),
    "material": Material(labels=["wood"]),
    "texture": Texture(labels=["dotted"]),
    "semantic": Semantic(labels=["sky"]),
}


def result(source: str, task: str, **values: float) -> Result:
    return Result(source, task, 3, {name.replace("_", "-"): value for name, value in values.items()}, {})


RESULTS = [
    result("ade", "things", mIoU=0.25, PA=0.75),
    result("pascal", "things", mIoU=0.75, PA=0.25),
    result("ade", "part", mIoU_bg=0.5, PA=0.125),
    result("dtd", "texture", top_1=0.3),
    result("empty", "scene", top_1=math.nan),
    result("ade", "semantic", mIoU=0.9, PA=0.9),
]


def test_sources_of_one_task_are_averaged_and_named() -> None:
    table = PaperTable.of("mine", RESULTS, TASKS)
    assert table.rows["mine"] == pytest.approx(
        {"O mIoU": 50, "O P.A.": 50, "P mIoU-bg": 50, "P P.A.": 12.5, "T top-1": 30}
    )
    assert table.sources["O mIoU"] == ("ade", "pascal")
    assert list(table.sources) == list(table.rows["mine"])
    console = Console(file=io.StringIO(), width=160)
    console.print(table.screen())
    screen = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert "Measured on O: mean of ade, pascal; P: ade; T: dtd." in screen
    first = table.markdown().splitlines()[2]
    assert first == "| mine | 50.00 | 50.00 | 50.00 | 12.50 | - | - | - | 30.00 |"
    assert json.loads(json.dumps(table.plain(), allow_nan=False))["rows"]["mine"]["T top-1"] == pytest.approx(30)


def test_a_name_with_a_bar_stays_in_its_cell() -> None:
    lines = PaperTable.of("a|b", [], TASKS).markdown().splitlines()
    assert lines[2] == f"| a\\|b {'| - ' * 8}|"
    assert lines[-1].startswith("Nothing was measured.")


def test_the_papers_rows_are_its_own(spec_dir: Path) -> None:
    said = json.loads((spec_dir / "paper_results.json").read_text())["table3_broden_plus"]
    rows = PaperTable.of("mine", [], TASKS).rows
    assert list(rows)[1:] == [f"paper, {row['trained_on']}" for row in said]
    for row, ours in zip(said, paper_rows(), strict=True):
        assert {c.title: row[c.field] for c in COLUMNS if row[c.field] is not None} == rows[f"paper, {ours.trained_on}"]


def test_six_rows_and_eight_figures() -> None:
    rows = list(PaperTable.of("mine", [], TASKS).rows.values())[1:]
    assert [len(row) for row in rows] == [2, 2, 4, 5, 7, 8]
    assert rows[-1]["T top-1"] == 35.1
