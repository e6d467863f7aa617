"""Results in the form of the paper's table on Broden+, beside the paper's own rows (Xiao et al. 2018, section 4)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table

from upernet.contract import Task
from upernet.engine.evaluator import Result
from upernet.tasks import Material, Object, Part, Scene, Texture
from upernet.zoo.paper import paper_rows

TITLE = "The paper's table"
OWN = "this model"
"""What the screen calls the row of the model, whose name may be long."""
NOTE = "The paper's rows are of Broden+'s validation split. Figures of other data cannot be compared with them."


class Column(NamedTuple):
    """A column of the table: the kind of task, the metric, and the field of a `PaperRow` with the paper's figure."""

    title: str
    kind: type[Task]
    metric: str
    field: str


COLUMNS = (
    Column("O mIoU", Object, "mIoU", "object_miou"),
    Column("O P.A.", Object, "PA", "object_pa"),
    Column("P mIoU-bg", Part, "mIoU-bg", "part_miou_bg"),
    Column("P P.A.", Part, "PA", "part_pa"),
    Column("S top-1", Scene, "top-1", "scene_top1"),
    Column("M mIoU", Material, "mIoU", "material_miou"),
    Column("M P.A.", Material, "PA", "material_pa"),
    Column("T top-1", Texture, "top-1", "texture_top1"),
)


@dataclass(frozen=True)
class PaperTable:
    """The table, in percent.

    Attributes:
        rows: Name of a network → title of a column → figure, for what was measured; the model's own row first.
        sources: Title of a column → the sources of the model's figure, which is the mean over them.
    """

    rows: dict[str, dict[str, float]]
    sources: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, model: str, results: Sequence[Result], tasks: Mapping[str, Task]) -> PaperTable:
        """Collect a model's figures.

        Args:
            model: Its name.
            results: What was measured, by the paper's protocol. Results without a labelled pixel are left out.
            tasks: Its tasks by name, whose classes tell which column each belongs to.
        """
        own, sources = {}, {}
        for column in COLUMNS:
            found = [
                (r.source, r.values[column.metric])
                for r in results
                if isinstance(tasks[r.task], column.kind) and math.isfinite(r.values.get(column.metric, math.nan))
            ]
            if found:
                own[column.title] = 100 * sum(value for _, value in found) / len(found)
                sources[column.title] = tuple(source for source, _ in found)
        rows = {model: own}
        for row in paper_rows():
            figures = asdict(row)
            rows[f"paper, {row.trained_on}"] = {
                column.title: figures[column.field] for column in COLUMNS if figures[column.field] is not None
            }
        return cls(rows, sources)

    def screen(self) -> Table:
        """The table for a terminal."""
        # Without frames, and with a short name for the model, the table fits into a terminal of 80 columns.
        table = Table(
            title=TITLE,
            title_justify="left",
            caption=self._caption(),
            caption_justify="left",
            box=SIMPLE_HEAD,
            padding=(0, 0, 0, 1),
        )
        table.add_column("trained on", no_wrap=True)
        for column in COLUMNS:
            table.add_column(column.title.replace(" ", "\n", 1), justify="right")
        for name, cells in zip([OWN, *list(self.rows)[1:]], self._cells().values(), strict=True):
            table.add_row(name, *cells)
        return table

    def markdown(self) -> str:
        """The table as Markdown, with the line that names the sources."""
        titles = ["trained on", *(column.title for column in COLUMNS)]
        lines = [f"| {' | '.join(titles)} |", f"|---|{'---:|' * len(COLUMNS)}"]
        lines += [
            f"| {' | '.join([name.replace('|', chr(92) + '|'), *cells])} |" for name, cells in self._cells().items()
        ]
        return "\n".join([*lines, "", self._caption(), ""])

    def plain(self) -> dict[str, Any]:
        """The table as plain values for JSON, the Markdown included."""
        return {
            "rows": self.rows,
            "sources": {title: list(names) for title, names in self.sources.items()},
            "markdown": self.markdown(),
        }

    def _cells(self) -> dict[str, list[str]]:
        return {
            name: [f"{row[c.title]:.2f}" if c.title in row else "-" for c in COLUMNS] for name, row in self.rows.items()
        }

    def _caption(self) -> str:
        by_task = {title.split()[0]: names for title, names in self.sources.items()}
        told = [f"{task}: {'mean of ' if len(names) > 1 else ''}{', '.join(names)}" for task, names in by_task.items()]
        return " ".join([f"Measured on {'; '.join(told)}." if told else "Nothing was measured.", NOTE])
