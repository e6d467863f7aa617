"""How a run reports: a progress bar, `metrics.csv`, TensorBoard events and tables."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from upernet.config import InferenceConfig
from upernet.engine.evaluator import Result
from upernet.engine.skipped import left_out
from upernet.files import write_whole
from upernet.tasks.metrics import AVERAGED, PARTS


def ignore_rule(results: Sequence[Result]) -> str:
    """Describe which labels and pixels count in the figures of `evaluate_source`."""
    rule = "arg-max among the labels of the source, unlabelled pixels ignored"
    if any(r.protocol == "paper" for r in results):
        rule = "arg-max among all classes, those of no label wrong, unlabelled pixels ignored, classes of no pixel 0"
    return f"{rule}; for parts they count as 'no part'" if any(PARTS in r.values for r in results) else rule


def size_rule(inference: InferenceConfig) -> str:
    """Describe the size at which the network sees images."""
    if inference.scale_of == "image":
        return "the image's own size times the scale, aspect kept"
    longer = f"longer side at most {inference.max_side}" if inference.max_side else "longer side whatever it becomes"
    shorter = ", ".join(map(str, inference.short_sides)) or inference.short_side or "as it is"
    rounding = "aspect kept, halves rounded up"
    if inference.multiple:
        rounding = f"then both stretched to the next multiple of {inference.multiple}"
    return f"shorter side {shorter}, {longer}, {rounding}"


def protocol(inference: InferenceConfig) -> str:
    """Describe the windows, scales and mirror images of a measurement."""
    how = "whole image"
    if inference.window and inference.stride:
        (h, w), (down, across) = inference.window, inference.stride
        how = f"windows of {h}×{w} every {down}×{across}"
    scales = ", ".join(f"{scale:g}" for scale in inference.scales)
    shown = "one scale" if inference.scales == (1.0,) else f"scales {scales} of the {inference.scale_of}, averaged"
    if len(inference.short_sides) > 1:
        shown = f"{len(inference.short_sides)} shorter sides, averaged"
    flip = "plain and flipped, averaged" if inference.flip else "no flip"
    return f"{how}, {shown}, {flip}"


class RunLog:
    """`metrics.csv` (one value a row), TensorBoard events and `previews/` of a run folder."""

    COLUMNS = ("step", "phase", "source", "task", "metric", "value")

    def __init__(self, folder: Path, first_step: int):
        """Open the files.

        Args:
            folder: The run's.
            first_step: Steps taken before; later rows and events of an interrupted run are dropped.
        """
        self.folder = folder
        self.path = folder / "metrics.csv"
        from torch.utils.tensorboard import SummaryWriter  # evaluation prints tables without it

        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1 if first_step else None)
        self._keep_rows_until(first_step)

    def _keep_rows_until(self, step: int) -> None:
        """Drop rows of later steps: a resumed run takes those steps again, and its rows would appear twice."""
        rows: list[list[str]] = []
        if step and self.path.is_file():
            with self.path.open(newline="") as file:
                # A row torn by a power cut has no value; it is dropped.
                rows = [r for r in list(csv.reader(file))[1:] if len(r) == len(self.COLUMNS) and int(r[0]) <= step]
        text = io.StringIO()
        csv.writer(text).writerows([self.COLUMNS, *rows])
        write_whole(self.path, lambda file: file.write(text.getvalue().encode()))

    def _write(self, rows: Sequence[tuple[int, str, str, str, str, float]]) -> None:
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerows([*row[:5], f"{row[5]:.6g}"] for row in rows)
        for step, phase, source, task, metric, value in rows:
            self.board.add_scalar("/".join(filter(None, (phase, source, task, metric))), value, step)
        self.board.flush()

    def training(
        self, step: int, losses: Mapping[str, float], skipped: Mapping[str, int] | None = None, **values: float
    ) -> None:
        """Record how the run goes.

        Args:
            step: Finished steps.
            losses: The running losses by task.
            skipped: Number of images left out because of a fault until now, by source.
            values: Further values such as the learning rate and the seconds per step.
        """
        rows = [(step, "train", "", task, "loss", loss) for task, loss in losses.items()]
        rows += [(step, "train", source, "", "skipped", count) for source, count in (skipped or {}).items()]
        self._write(rows + [(step, "train", "", "", name, value) for name, value in values.items()])

    def validation(self, step: int, results: Sequence[Result]) -> None:
        """Record every metric of every source and task, and the number of images left out because of a fault."""
        rows = [(step, "val", r.source, r.task, name, v) for r in results for name, v in r.values.items()]
        skipped = {r.source: r.skipped for r in results if r.skipped}
        self._write(rows + [(step, "val", source, "", "skipped", count) for source, count in skipped.items()])

    def picture(self, step: int, sheet: Image.Image) -> None:
        """Save a sheet of predictions as JPEG and among the TensorBoard events."""
        (self.folder / "previews").mkdir(exist_ok=True)
        path = self.folder / "previews" / f"step_{step:06d}.jpg"
        write_whole(path, lambda file: sheet.save(file, "JPEG", quality=88))
        self.board.add_image("previews", np.asarray(sheet), step, dataformats="HWC")

    def close(self) -> None:
        """Close the file of TensorBoard events."""
        self.board.close()


class StepProgress:
    """Running means of the losses, shown on a bar in a terminal and as a line every 30 s elsewhere."""

    def __init__(self, console: Console, bar: Progress, steps: int, first: int):
        self.console, self.bar, self.steps = console, bar, steps
        self.task = bar.add_task("train", total=steps, completed=first, text="")
        self.losses: dict[str, float] = {}
        self.waiting = self.seconds = 0.0
        self.first, self.begin, self.printed = first, time.monotonic(), time.monotonic()

    def step(self, step: int, losses: Mapping[str, float], waited: float, took: float) -> None:
        """Count a step.

        Args:
            step: Its number, from 1.
            losses: By task.
            waited: Seconds that it waited for data.
            took: Seconds that it took, waiting included.
        """
        for name, loss in losses.items():
            self.losses[name] = loss if name not in self.losses else 0.95 * self.losses[name] + 0.05 * loss
        share = 0.05 if self.seconds else 1.0
        self.waiting += share * (waited / took - self.waiting)
        self.seconds += share * (took - self.seconds)
        text = " ".join(f"{name} {loss:.3f}" for name, loss in self.losses.items()) + f" · data {self.waiting:.0%}"
        self.bar.update(self.task, completed=step, text=text)
        now = time.monotonic()
        if not self.console.is_terminal and (now - self.printed > 30 or step == self.steps):
            self.printed = now
            left = (now - self.begin) / (step - self.first) * (self.steps - step)
            self.console.print(f"step {step}/{self.steps} · {left / 60:.0f} min left · {text}", soft_wrap=True)


@contextmanager
def training_progress(console: Console, steps: int, first: int) -> Iterator[StepProgress]:
    """Show a bar with steps, time left, running losses and the share of time spent waiting for data."""
    columns = (
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        yield StepProgress(console, bar, steps, first)


def results_table(
    results: Sequence[Result], title: str, inference: InferenceConfig | None = None, further: bool = False
) -> Table:
    """Build a table of one row per source and task, in per cent, and the means of tasks that several sources measure.

    Args:
        results: What was measured.
        title: Title of the table.
        inference: Protocol to describe below the table; left out if none.
        further: Show the metrics beside the headline of other protocols too.
    """
    caption = ignore_rule(results) if inference is None else f"{protocol(inference)}; {ignore_rule(results)}"
    if faulty := left_out({r.source: r.skipped for r in results}):
        caption += f"; {faulty}"
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for name in ("source", "task", "metric"):
        table.add_column(name)
    table.add_column("%", justify="right")
    table.add_column("further")
    table.add_column("images", justify="right")
    for r in results:
        (headline, value), *others = (r.values | (r.further if further else {})).items()
        more = "  ".join(f"{name} {100 * v:.2f}" for name, v in others)
        table.add_row(r.source, r.task, headline, f"{100 * value:.2f}", more, str(r.images))
    for (task, metric), values in means(results).items():
        table.add_row("mean", task, metric, f"{100 * sum(values) / len(values):.2f}", f"of {len(values)} sources", "")
    return table


def means(results: Sequence[Result]) -> dict[tuple[str, str], list[float]]:
    """Collect, by task and metric, the headline values of tasks that several sources measure."""
    groups: dict[tuple[str, str], list[float]] = {}
    for r in results:
        metric, value = next(iter(r.values.items()))
        groups.setdefault((r.task, metric), []).append(value)
    return {key: values for key, values in groups.items() if len(values) > 1}


def per_class_table(result: Result) -> Table:
    """Build a table of one row per class, in per cent; classes that the means leave out are dimmed."""
    table = Table(title=f"{result.source} · {result.task}", title_justify="left")
    table.add_column("class")
    columns = [c for c in dict.fromkeys(name for row in result.per_class.values() for name in row) if c != AVERAGED]
    for name in columns:
        table.add_column(name, justify="right")
    for name, row in result.per_class.items():
        left_out = row.get(AVERAGED) == 0
        label = f"{name} (not averaged)" if left_out else name
        table.add_row(label, *(f"{100 * row[c]:.2f}" for c in columns), style="dim" if left_out else None)
    return table
