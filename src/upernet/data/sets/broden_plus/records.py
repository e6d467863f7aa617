"""The table of a prepared folder: one record per image, as JSON lines and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from upernet.data.faults import Fault, FaultError, Kind
from upernet.data.sets.broden_plus.tables import SUBSETS

TABLE = "records.jsonl"
DENSE = ("object", "part", "material")
"""Annotations that are label maps, each in a folder of its name."""


@dataclass(frozen=True)
class Record:
    """One image of a prepared folder.

    Attributes:
        id: Its name, such as `ade20k/ADE_train_00000001`. A label map of it is `<annotation>/<id>.png`.
        source: `ade20k`, `pascal`, `opensurfaces` or `dtd`.
        split: Its official split, `train` or `val`.
        index: Its position in the official numbering of its source.
        height: In pixels, as prepared.
        width: In pixels, as prepared.
        scene: Position in the list of 365 scenes; None if it has none.
        texture: Position in the list of 47 textures; None if it has none.
        annotations: Those that it can be trained on, of `object`, `part`, `scene`, `material` and `texture`.
        parts: Whether its original has an annotation of parts. It may be trained on none of them nevertheless.
        image: The image, below the prepared folder.
        original: The image that it was made from, below the owner's folder.
    """

    id: str
    source: str
    split: str
    index: int
    height: int
    width: int
    scene: int | None
    texture: int | None
    annotations: tuple[str, ...]
    parts: bool
    image: str
    original: str


_TYPES: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "source": (str,),
    "split": (str,),
    "index": (int,),
    "height": (int,),
    "width": (int,),
    "scene": (int, type(None)),
    "texture": (int, type(None)),
    "annotations": (list,),
    "parts": (bool,),
    "image": (str,),
    "original": (str,),
}


def read_records(path: Path) -> list[Record]:
    """Read a table.

    Raises:
        FaultError: If it cannot be read, or a line of it is no record; the line's number and its id are told.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FaultError(Fault(Kind.LISTING, path, f"cannot be read ({reason})")) from error
    return [_record(path, number, line) for number, line in enumerate(lines, 1)]


def _record(path: Path, number: int, line: str) -> Record:
    try:
        content = json.loads(line)
        if not isinstance(content, dict):
            raise ValueError("no record")
        lacking = [name for name in _TYPES if name not in content]
        if lacking:
            raise ValueError(f"no {lacking[0]}")
        for name, kinds in _TYPES.items():
            if not isinstance(content[name], kinds) or (bool not in kinds and isinstance(content[name], bool)):
                raise ValueError(f"{name} {content[name]!r} of {content['id']!r}")
        if content["source"] not in SUBSETS:
            raise ValueError(f"source {content['source']!r} of {content['id']!r}; valid: {', '.join(SUBSETS)}")
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        valid = "run: upernet prepare broden_plus again"
        raise FaultError(Fault(Kind.LISTING, path, f"line {number} is no record ({reason})", valid)) from error
    known = {name: content[name] for name in _TYPES}
    return Record(**known | {"annotations": tuple(content["annotations"])})


def as_json_lines(records: Iterable[Record]) -> bytes:
    """A table as JSON, a line per record."""
    return "".join(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records).encode()


def as_csv(records: Sequence[Record]) -> bytes:
    """A table as CSV; annotations are divided by `;`, and what an image has not is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Record)], lineterminator="\n")
    writer.writeheader()
    for record in records:
        row: dict[str, Any] = asdict(record)
        writer.writerow(row | {"annotations": ";".join(record.annotations), "parts": int(record.parts)})
    return text.getvalue().encode()
