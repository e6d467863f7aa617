"""Visual knowledge as tables: one fact per row as Parquet and CSV, everything as JSON, and the tables of the paper."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import groupby, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from upernet.engine.knowledge.findings import RELATIONS, Concept, Knowledge, Relation, RelationKind
from upernet.engine.knowledge.observation import Observation, Origin
from upernet.engine.knowledge.thresholds import Thresholds
from upernet.engine.knowledge.vocabulary import Vocabulary
from upernet.files import write_whole
from upernet.screen import printable

if TYPE_CHECKING:
    from rich.console import Group

ROW_GROUP = 2**16
"""Rows of a group in a Parquet file, whatever pieces they come in."""

SHOWN = 10
"""Most rows of a table on the screen."""

Row = tuple[str | int | float, ...]

IMAGES = dict.fromkeys(("image", "task", "concept", "origin"), "string") | {"pixels": "int64", "share": "float64"}
"""Columns of the table of images, with Arrow's names of their types."""
CONCEPTS = {"id": "int64"} | dict.fromkeys(("task", "name", "colour"), "string")
CONCEPTS |= {"images": "int64", "pixels": "int64", "share": "float64"}
"""Columns of the table of concepts."""
RELATION_COLUMNS = {"kind": "string", "source_id": "int64", "source": "string", "target_id": "int64"}
RELATION_COLUMNS |= {"target": "string", "basis": "string"}
RELATION_COLUMNS |= dict.fromkeys(("images", "source_images", "pixels", "source_pixels"), "int64")
RELATION_COLUMNS |= dict.fromkeys(("share", "low", "high", "lift"), "float64")
"""Columns of the table of relations."""


# --- one fact per row -------------------------------------------------------------------------------------------------


def write_table(folder: Path, name: str, columns: dict[str, str], rows: Iterable[Row]) -> None:
    """Write the same rows as `<name>.parquet` and `<name>.csv`, a group at a time.

    Args:
        folder: The folder.
        name: Name of the table.
        columns: Its columns → their types.
        rows: Its rows, which need not fit into the memory. Text is UTF-8.
    """

    def write(parquet: IO[bytes]) -> None:
        write_whole(folder / f"{name}.csv", lambda text: _write_both(parquet, text, columns, rows))

    write_whole(folder / f"{name}.parquet", write)


def _write_both(parquet: IO[bytes], text: IO[bytes], columns: dict[str, str], rows: Iterable[Row]) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in columns.items()])
    lines = io.TextIOWrapper(text, encoding="utf-8", newline="")
    own = csv.writer(lines, lineterminator="\n")
    own.writerow(columns)
    with ParquetWriter(parquet, schema, compression="zstd") as writer:
        waiting = iter(rows)
        while group := list(islice(waiting, ROW_GROUP)):
            own.writerows(group)
            values = zip(*group, strict=True)
            arrays = [pa.array(column, kind) for column, kind in zip(values, schema.types, strict=True)]
            writer.write_table(pa.table(arrays, schema=schema))
    lines.detach()


def image_rows(name: str, seen: Observation, vocabulary: Vocabulary) -> Iterator[Row]:
    """Rows of the table of images: one for each concept in an image."""
    for number, class_id, pixels in seen.classes.tolist():
        task = vocabulary.tasks[number]
        if vocabulary.concepts[task][class_id]:
            origin = Origin(int(seen.origins[number])).name.lower()
            share = pixels / seen.size if vocabulary.is_map(task) else 1.0
            yield name, task, vocabulary.labels[task].names[class_id], origin, pixels, share


def concept_rows(knowledge: Knowledge) -> Iterator[Row]:
    """Rows of the table of concepts."""
    for c in knowledge.concepts:
        yield c.id, c.task, c.name, f"#{bytes(c.colour).hex()}", c.images, c.pixels, c.share


def relation_rows(knowledge: Knowledge) -> Iterator[Row]:
    """Rows of the table of relations."""
    names = [concept.name for concept in knowledge.concepts]
    for r in knowledge.relations:
        ends = r.source, names[r.source], r.target, names[r.target]
        counts = r.images, r.source_images, r.pixels, r.source_pixels
        yield r.kind, *ends, r.basis, *counts, r.share, r.low, r.high, r.lift


def write_json(path: Path, knowledge: Knowledge) -> None:
    """Write all that a `Knowledge` holds, under the names of its fields, and the version of this package."""
    content: dict[str, Any] = {"version": version("upernet"), **asdict(knowledge)}
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(path, lambda file: file.write(text.encode() + b"\n"))


# --- the tables of the paper ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A row of a table of the paper.

    Attributes:
        source: The concept that the row is about.
        images: Number of images in which it appears and that tell about the other task.
        targets: What goes with it, the likeliest first, each with a whole percentage. Those of materials and textures
            add up to 100.
    """

    source: Concept
    images: int
    targets: tuple[tuple[Concept, int], ...]


def paper_table(knowledge: Knowledge, kind: RelationKind, thresholds: Thresholds) -> list[Entry]:
    """A relation as the paper prints it (Xiao et al. 2018, section 4.2; SPEC F1).

    For a relation of images, all targets with a likelihood of at least `min_share`. For one of pixels, at most the
    first `top` with a share of at least `min_pixel_share`, whose shares are then brought to 100 %.

    Args:
        knowledge: What was found out.
        kind: The relation.
        thresholds: What to show.

    Returns:
        The rows with a target, of sources in at least `min_images` images; the most frequent source first.
    """
    entries = []
    relations = (relation for relation in knowledge.relations if relation.kind == kind.name)
    for source, group in groupby(relations, key=lambda relation: relation.source):
        own = list(group)
        if own[0].source_images < thresholds.min_images:
            continue
        shown = _shown(own, thresholds)
        if shown:
            targets = tuple((knowledge.concepts[relation.target], percent) for relation, percent in shown)
            entries.append(Entry(knowledge.concepts[source], own[0].source_images, targets))
    return sorted(entries, key=lambda entry: (-entry.images, entry.source.id))


def _shown(own: Sequence[Relation], thresholds: Thresholds) -> list[tuple[Relation, int]]:
    """The targets of one source that are shown, with percentages; `own` has the largest share first."""
    if own[0].basis == "images":
        return [(relation, round(100 * relation.share)) for relation in own if relation.share >= thresholds.min_share]
    kept = [relation for relation in own if relation.share >= thresholds.min_pixel_share][: thresholds.top]
    return list(zip(kept, _percentages([relation.pixels for relation in kept]), strict=True))


def _percentages(counts: Sequence[int]) -> list[int]:
    """Whole percentages of a sum, which add up to 100: those with the largest remainders are rounded up."""
    total = sum(counts)
    floors = [100 * count // total for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda i: (-(100 * counts[i] % total), i))
    for i in by_remainder[: 100 - sum(floors) if counts else 0]:
        floors[i] += 1
    return floors


def write_markdown(path: Path, knowledge: Knowledge, thresholds: Thresholds) -> None:
    """Write the tables of the paper as Markdown."""
    lines = ["# Visual knowledge", "", summary(knowledge)]
    for kind in RELATIONS:
        entries = paper_table(knowledge, kind, thresholds)
        lines += ["", f"## {_title(kind)}", "", f"{_rule(kind, thresholds)}", ""]
        if not entries:
            lines.append("Nothing reaches these thresholds.")
            continue
        lines += [f"| {kind.source} | images | {_plural(kind.target)} |", "|---|---:|---|"]
        for entry in entries:
            lines.append(f"| {_cell(entry.source.name)} | {entry.images} | {_cell(_targets(entry))} |")
    text = "\n".join([*lines, ""])
    write_whole(path, lambda file: file.write(text.encode("utf-8", "backslashreplace")))


def screen_tables(knowledge: Knowledge, thresholds: Thresholds) -> Iterator[Group]:
    """The first rows of each of these tables, for a terminal."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    for kind in RELATIONS:
        entries = paper_table(knowledge, kind, thresholds)
        if not entries:
            continue
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column(kind.source)
        table.add_column("images", justify="right")
        table.add_column(_plural(kind.target))
        for entry in entries[:SHOWN]:
            row = printable(entry.source.name), str(entry.images), printable(_targets(entry))
            table.add_row(*map(Text, row))
        more = len(entries) - SHOWN
        below = [Text(f"  and {more:,} more in tables.md\n")] if more > 0 else []
        yield Group(Text(f"{_title(kind)}: {_rule(kind, thresholds)}"), table, *below)


def summary(knowledge: Knowledge) -> str:
    """One line: how many images, and where the answers come from."""
    noun = "image" if knowledge.images == 1 else "images"
    images = f"{knowledge.images:,} {noun}" + (f" ({knowledge.skipped:,} skipped)" if knowledge.skipped else "")
    origins = (
        f"{task} {' and '.join(f'{number:,} {origin}' for origin, number in row.items() if number)}"
        for task, row in knowledge.answers.items()
        if any(row.values())
    )
    return "; ".join([images, *origins]) + "."


def _title(kind: RelationKind) -> str:
    return f"{kind.source} → {_plural(kind.target)}"


def _plural(task: str) -> str:
    return f"{task}s"


def _rule(kind: RelationKind, thresholds: Thresholds) -> str:
    images = "image" if thresholds.min_images == 1 else "images"
    given = f"{_plural(kind.source)} in at least {thresholds.min_images} {images}"
    if kind.basis == "images":
        return f"{_plural(kind.target)} in at least {100 * thresholds.min_share:g} % of the images; {given}"
    least = f"at least {100 * thresholds.min_pixel_share:g} % of the pixels"
    return f"at most {thresholds.top} {_plural(kind.target)} with {least}, brought to 100 %; {given}"


def _targets(entry: Entry) -> str:
    start = f"{entry.source.name}/"
    return ", ".join(f"{concept.name.removeprefix(start)} {percent} %" for concept, percent in entry.targets)


def _cell(text: str) -> str:
    return re.sub(r"([\\|<`])", r"\\\1", printable(text))
