"""What a run tells: `metrics.csv`, events, progress and tables."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from rich.table import Table

from upernet.engine.evaluator import Result
from upernet.engine.logs import RunLog, means, per_class_table, results_table, training_progress


def rows(folder: Path) -> list[list[str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.reader(file))


def result(source: str = "town", value: float = 0.5, task: str = "object") -> Result:
    values = {"mIoU": value, "PA": 0.75}
    return Result(source, task, 7, values, {"sky": {"IoU": 0.25}, "car": {"IoU": float("nan")}})


def text_of(table: Table) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


# --- metrics.csv ----------------------------------------------------------------------------------------------------


def test_one_value_a_row(tmp_path: Path) -> None:
    log = RunLog(tmp_path, first_step=0)
    log.training(50, {"object": 1.23456789, "scene": 2.0}, lr=0.01, waiting=0.5)
    log.validation(50, [result()])
    assert rows(tmp_path) == [
        ["step", "phase", "source", "task", "metric", "value"],
        ["50", "train", "", "object", "loss", "1.23457"],
        ["50", "train", "", "scene", "loss", "2"],
        ["50", "train", "", "", "lr", "0.01"],
        ["50", "train", "", "", "waiting", "0.5"],
        ["50", "val", "town", "object", "mIoU", "0.5"],
        ["50", "val", "town", "object", "PA", "0.75"],
    ]
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_a_resumed_run_forgets_the_steps_it_will_take_again(tmp_path: Path) -> None:
    log = RunLog(tmp_path, first_step=0)
    for step in (10, 20, 30):
        log.training(step, {"object": step / 10})
    again = RunLog(tmp_path, first_step=20)
    again.training(30, {"object": 9.0})
    assert [(row[0], row[5]) for row in rows(tmp_path)[1:]] == [("10", "1"), ("20", "2"), ("30", "9")]


def test_a_fresh_run_forgets_all(tmp_path: Path) -> None:
    RunLog(tmp_path, first_step=0).training(10, {"object": 1.0})
    RunLog(tmp_path, first_step=0)
    assert len(rows(tmp_path)) == 1


def test_pictures_are_kept_by_step(tmp_path: Path) -> None:
    log = RunLog(tmp_path, first_step=0)
    log.picture(7, Image.new("RGB", (20, 10), "red"))
    assert Image.open(tmp_path / "previews" / "step_000007.jpg").size == (20, 10)


# --- progress -------------------------------------------------------------------------------------------------------


def test_losses_are_shown_as_running_means(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    with training_progress(console, steps=3, first=0) as progress:
        progress.step(1, {"object": 2.0}, waited=0.4, took=2.0)
        progress.step(2, {"scene": 7.0}, waited=0.0, took=1.0)
        progress.step(3, {"object": 4.0}, waited=0.0, took=1.0)
    assert progress.losses == pytest.approx({"object": 0.95 * 2 + 0.05 * 4, "scene": 7.0})
    assert progress.waiting == pytest.approx(0.2 * 0.95**2)
    assert progress.seconds == pytest.approx(1 + 0.95**2)
    # Not a terminal: no bar, one line at the end.
    assert console.file.getvalue() == "step 3/3 · 0 min left · object 2.100 scene 7.000 · data 18%\n"  # type: ignore[attr-defined]


# --- tables ---------------------------------------------------------------------------------------------------------


def test_a_row_per_source_and_task_and_means_over_sources() -> None:
    text = text_of(results_table([result("town", 0.5), result("field", 0.25), result("town", 1.0, "part")], "step 9"))
    lines = [line.split() for line in text.splitlines() if "%" not in line]
    flat = [" ".join(word for word in line if word not in "│┃") for line in lines]
    assert "step 9" in flat
    assert "town object mIoU 50.00 PA 75.00 7" in flat
    assert "field object mIoU 25.00 PA 75.00 7" in flat
    assert "town part mIoU 100.00 PA 75.00 7" in flat
    assert "mean object mIoU 37.50 of 2 sources" in flat
    assert not any(line.startswith("mean part") for line in flat)


def test_means_keep_metrics_of_different_kinds_apart() -> None:
    top = Result("photos", "object", 3, {"top-1": 0.5}, {})
    assert means([result("a", 0.5), top, result("b", 1.0)]) == {("object", "mIoU"): [0.5, 1.0]}
    assert means([]) == {}


def test_classes_that_the_means_leave_out_are_told() -> None:
    classes = {"sky": {"IoU": 0.25, "averaged": 1.0}, "car": {"IoU": 0.5, "averaged": 0.0}}
    text = text_of(per_class_table(Result("town", "object", 1, {}, classes)))
    assert "car (not averaged)" in text
    assert "100.00" not in text
    assert "sky (" not in text


def test_every_class_of_a_result() -> None:
    text = text_of(
        per_class_table(Result("town", "object", 1, {}, {"sky": {"IoU": 0.25}, "car": {"IoU": float("nan")}}))
    )
    assert "town · object" in text
    assert "25.00" in text
    assert "nan" in text
