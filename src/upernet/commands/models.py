"""The command `models`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from upernet.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from upernet.zoo.published import Published

MIXTURE = "own mixture"
"""Training data of the models inside the package, as the table names it."""
COLUMNS = ("name", "data", "backbone", "crop", "steps", "mIoU", "ms+flip", "GB", "fps", "weights")
NUMBERS = range(3, 9)
"""Columns that are aligned on the right."""
USE = "upernet predict photo.jpg --model NAME"
MEANING = (
    "mIoU in percent on the validation set, at one scale and averaged over scales and mirror images (* scales only); "
    "GB per GPU in training; fps as published; ×2: in a second place too."
)


def models(pattern: str = "", json: bool = False) -> int:
    """List the models that can be used by name: those in the package and the published ones, with their figures.

    Args:
        pattern: List only models whose name, data or backbone contains this text, or matches it as a glob such as
            '*r50*ade20k'.
        json: Print all fields as JSON, with full addresses and sha256.

    Returns:
        Exit status: 0.

    Raises:
        UserError: If no model matches the pattern.
    """
    from upernet.zoo.published import published
    from upernet.zoo.shipped import shipped_models

    records = [_shipped(folder) for folder in shipped_models().values()]
    records += [_record(model) for model in published()]
    matching = [r for r in records if _fits(r, pattern.lower())]
    if not matching:
        raise UserError(f"--pattern {pattern}: no model's name, data or backbone matches; for example swin or '*r50*'")
    if json:
        _print_json(matching)
    elif sys.stdout.isatty():
        _print_table(matching)
    else:
        # For `cut` and `awk`, nothing is shortened, and every field has a value.
        print(f"# {USE}")
        print(*COLUMNS, "note", sep="\t")
        for record in matching:
            places = [*record["addresses"], *record["copies"], *filter(None, [record["hub"]])]
            cells = [*_cells(record), " ".join(places) or "package"]
            print(*(cell or "-" for cell in cells), _note(record) or "-", sep="\t")
    return 0


def _record(model: Published) -> dict[str, Any]:
    return {**asdict(model), "loadable": model.loadable, "shipped": False}


def _shipped(folder: Path) -> dict[str, Any]:
    """The record of a model inside the package, with the fields of the published ones, from its `config.yaml`."""
    import yaml

    from upernet.zoo.published import Published

    content = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    model = Published(
        name=folder.name,
        dataset="own",
        backbone=str(content["model"]["backbone"]),
        classes=", ".join(content["tasks"]),
        addresses=(),
    )
    return {**_record(model), "shipped": True}


def _title(dataset: str) -> str:
    """Name of a record's data set, as people write it."""
    from upernet.data.sets import SETS

    return MIXTURE if dataset == "own" else SETS[dataset].title


def _fits(record: dict[str, Any], pattern: str) -> bool:
    texts = [str(record[key]).lower() for key in ("name", "dataset", "backbone")]
    texts.append(_title(record["dataset"]).lower())
    return any(pattern in text or fnmatchcase(text, pattern) for text in texts)


def _cells(record: dict[str, Any]) -> list[str]:
    """The text of all columns but the last; empty if the value is not known."""
    crop, steps, single, scales = record["crop"], record["steps"], record["miou_ms_flip"], record["miou_ms"]
    return [
        record["name"],
        _title(record["dataset"]),
        record["backbone"],
        f"{crop[0]}x{crop[1]}" if crop else "",
        f"{steps // 1000}k" if steps else "",
        f"{record['miou']:.2f}" if record["miou"] is not None else "",
        f"{single:.2f}" if single is not None else f"{scales:.2f}*" if scales is not None else "",
        f"{record['memory_gb']:g}" if record["memory_gb"] is not None else "",
        f"{record['fps']:g}" if record["fps"] is not None else "",
    ]


def _location(record: dict[str, Any]) -> str:
    """Where the weights are, in a word or two."""
    from upernet.zoo.download import cached_path

    if record["shipped"]:
        return "in the package"
    if not record["loadable"]:
        return "not yet"
    if all(cached_path(address).is_file() for address in record["addresses"]):
        return "downloaded"
    place = ".".join((urlsplit(record["addresses"][0]).hostname or "").split(".")[-2:])
    return f"{place} ×2" if record["copies"] else place


def _note(record: dict[str, Any]) -> str:
    return "" if record["loadable"] else f"cannot be used: {record['reason']}"


def _print_json(records: list[dict[str, Any]]) -> None:
    import json

    print(json.dumps(records, indent=1, ensure_ascii=False))


def _print_table(records: list[dict[str, Any]]) -> None:
    """Print a table if the terminal is wide enough for it, else two lines for each model."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    console.print(Text(f"To use one: {USE}", "bold"))
    rows = [[*_cells(record), _location(record)] for record in records]
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    if sum(widths) + 2 * len(widths) <= console.width:
        from rich.table import Table

        table = Table(box=None, padding=(0, 2, 0, 0))
        for number, title in enumerate(COLUMNS):
            table.add_column(title, justify="right" if number in NUMBERS else "left", no_wrap=True)
        for row, record in zip(rows, records, strict=True):
            table.add_row(*map(Text, row), style="" if record["loadable"] else "dim")
        console.print(table)
    else:
        _print_blocks(console, rows, records)
    console.print(Text(MEANING, "dim"))
    for reason in dict.fromkeys(filter(None, (record["reason"] for record in records))):
        console.print(Text(f"not yet: {reason}", "dim"))
    console.print(Text("Full addresses: upernet models | cat, or --json", "dim"))


def _print_blocks(console: Console, rows: list[list[str]], records: list[dict[str, Any]]) -> None:
    from rich.text import Text

    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    gap = "  " if 2 + sum(widths[2:]) + 2 * len(widths[3:]) <= console.width else " "

    def figures(row: Sequence[str]) -> str:
        cells = zip(row, widths, range(len(row)), strict=True)
        return gap.join(c.rjust(w) if n in NUMBERS else c.ljust(w) for c, w, n in cells if n > 1).rstrip()

    console.print(Text(f"\n  {figures(COLUMNS)}", "bold"), soft_wrap=True)
    data = None
    for row, record in zip(rows, records, strict=True):
        if row[1] != data:
            data = row[1]
            console.print(Text(f"\n{data}", "bold"))
        style = "" if record["loadable"] else "dim"
        console.print(Text(f"{row[0]}\n  {figures(row)}", style), soft_wrap=True)
    console.print()
