"""Visual knowledge as one HTML page that works offline: its data, example pictures, style and script in one file."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from upernet.engine.knowledge import figure
from upernet.engine.knowledge.findings import RELATIONS, Example, Knowledge
from upernet.files import write_whole

PICTURE_SIDE = 200
"""Longest side of an example picture in pixels; larger thumbnails are made smaller."""
PICTURE_QUALITY = 70
"""WebP quality of example pictures."""
SURROUND = 0.42
"""Brightness of what is not the region, which also loses its colours."""


def write_page(path: Path, knowledge: Knowledge, examples: Mapping[int, Sequence[Example]], largest_mb: float) -> None:
    """Write the page: every concept with its neighbours in the five relations, example images, and the bipartite graph.

    The same input gives the same bytes. The page asks for nothing outside itself.

    Args:
        path: Replaced if it exists.
        knowledge: What is shown.
        examples: Concept's id → its example images, best first. Their names are always listed.
        largest_mb: Largest size of the page in MB (10⁶ bytes). Pictures that exceed it are left out, the last ones of
            every concept first; where not even the first ones fit, concepts that appear in the most images have one.
            A page that is larger without any picture is written all the same.

    Raises:
        OSError: If the file cannot be written.
    """
    named = {concept: [(one.image, one.share) for one in examples[concept]] for concept in sorted(examples)}
    bare = _assemble(knowledge, named, {}, largest_mb)
    pictures = _pictures(knowledge, examples, int(largest_mb * 1e6) - len(bare))
    page = _assemble(knowledge, named, pictures, largest_mb) if pictures else bare
    write_whole(path, lambda file: file.write(page))


def _assemble(
    knowledge: Knowledge,
    named: Mapping[int, Sequence[tuple[str, float]]],
    pictures: Mapping[tuple[int, int], str],
    largest_mb: float,
) -> bytes:
    here = Path(__file__)
    data: dict[str, Any] = {
        "images": knowledge.images,
        "skipped": knowledge.skipped,
        "model": knowledge.model,
        "answers": {task: dict(counts) for task, counts in knowledge.answers.items()},
        "settings": dict(knowledge.settings),
        "largest_mb": largest_mb,
        "concepts": _concepts(knowledge),
        "relations": _relations(knowledge),
        "figure": _figure(knowledge),
    }
    parts = {
        "style": here.with_suffix(".css").read_text(encoding="utf-8"),
        "data": _json(data),
        "examples": "\n".join(_examples(concept, own, pictures) for concept, own in named.items()),
        "script": here.with_suffix(".js").read_text(encoding="utf-8"),
        "plotly": _plotly() if data["figure"] else "",
    }
    frame = here.with_suffix(".html").read_text(encoding="utf-8")
    # One pass: what is filled in is never searched for further places. A file's name may hold bytes that are no text;
    # they become escapes of JSON.
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], frame).encode("utf-8", "backslashreplace")


def _json(data: Any) -> str:
    """Compact JSON that ends no script element, whatever the names contain."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return get_plotlyjs().replace("</script", "<\\/script")


def _concepts(knowledge: Knowledge) -> dict[str, list]:
    concepts = knowledge.concepts
    return {
        "task": [concept.task for concept in concepts],
        "name": [concept.name for concept in concepts],
        "colour": ["#{:02x}{:02x}{:02x}".format(*concept.colour) for concept in concepts],
        "images": [concept.images for concept in concepts],
        "pixels": [concept.pixels for concept in concepts],
        "share": [_number(concept.share) for concept in concepts],
    }


def _relations(knowledge: Knowledge) -> list[dict[str, Any]]:
    """The relations of each kind, as columns: a table of 40,000 rows as objects would be three times as large."""
    tables = []
    for kind in RELATIONS:
        rows = [relation for relation in knowledge.relations if relation.kind == kind.name]
        counts = ["images", "source_images"] + (["pixels", "source_pixels"] if kind.basis == "pixels" else [])
        table: dict[str, Any] = {"source": kind.source, "target": kind.target, "basis": kind.basis}
        columns = {name: [getattr(row, name) for row in rows] for name in ("source", "target", *counts)}
        columns |= {name: [_number(getattr(row, name)) for row in rows] for name in ("share", "low", "high", "lift")}
        tables.append(table | {"columns": columns})
    return tables


def _figure(knowledge: Knowledge) -> dict[str, Any] | None:
    """What the script needs to draw the graph of `figure.scene_object_figure` at any threshold."""
    arrangement = figure.arrange(knowledge)
    if not arrangement.scenes:
        return None
    return {
        "scenes": arrangement.scenes,
        "groups": arrangement.groups,
        "objects": arrangement.objects,
        "palette": figure.PALETTE,
        "strengths": figure.STRENGTHS,
        "curved": figure.CURVED,
        "steps": figure.STEPS,
        "font": figure.FONT,
        "row": figure.ROW,
        "lowest": figure.LOWEST,
        "highest": figure.HIGHEST,
        "label_row": figure.LABEL_ROW,
        "label_length": figure.LABEL_LENGTH,
        "hover_edges": figure.HOVER_EDGES,
        "config": figure.plot_config(),
    }


def _examples(concept: int, named: Sequence[tuple[str, float]], pictures: Mapping[tuple[int, int], str]) -> str:
    """A concept's examples in an element of their own, so that the browser reads only those that are looked at."""
    rows = [[image, _number(share), pictures.get((concept, rank), "")] for rank, (image, share) in enumerate(named)]
    return f'<script type="application/json" id="examples-{concept}">{_json(rows)}</script>'


def _number(value: float) -> float | None:
    """Four significant digits; None for what is not a number, which JSON cannot say."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _pictures(knowledge: Knowledge, examples: Mapping[int, Sequence[Example]], room: int) -> dict[tuple[int, int], str]:
    """Concept's id and rank of the example → its picture as a data URI, in at most `room` bytes in all."""
    pictures: dict[tuple[int, int], str] = {}
    frequent = sorted(examples, key=lambda concept: (-knowledge.concepts[concept].images, concept))
    for rank in range(max(map(len, examples.values()), default=0)):
        for concept in frequent:
            if rank < len(examples[concept]):
                picture = _data_uri(_marked(examples[concept][rank]))
                if len(picture) > room:
                    return {key: kept for key, kept in pictures.items() if rank == 0 or key[1] < rank}
                room -= len(picture)
                pictures[concept, rank] = picture
    return pictures


def _marked(example: Example) -> Image.Image:
    """The thumbnail with its region in a white outline, and all else dark and grey."""
    picture = Image.fromarray(example.thumbnail)
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.LANCZOS)
    if example.region is None:
        return picture
    # The mean over a pixel's area keeps regions thinner than a pixel.
    covered = Image.fromarray(example.region.astype(np.uint8) * 255).resize(picture.size, Image.Resampling.BOX)
    region = (np.asarray(covered) > 0).astype(np.uint8)
    pixels = np.asarray(picture)
    surround = np.repeat(np.asarray(picture.convert("L"))[..., None], 3, axis=2) * SURROUND
    pixels = np.where(region[..., None] == 1, pixels, surround.astype(np.uint8))
    outline = cv2.dilate(region, np.ones((3, 3), np.uint8)) > region
    pixels[outline] = 255
    return Image.fromarray(pixels)


def _data_uri(picture: Image.Image) -> str:
    content = io.BytesIO()
    # Of the methods 0 to 6, 3 and above take twice the time to save a twentieth.
    picture.save(content, "WEBP", quality=PICTURE_QUALITY, method=2)
    return "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode("ascii")
