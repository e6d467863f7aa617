"""Train ids of Cityscapes, drawn from its polygons or translated from its label ids."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from upernet.data.decoding import MAX_PIXELS
from upernet.data.masks import read_mask
from upernet.data.prepare.jobs import Job, Outcome
from upernet.data.prepare.label_maps import LabelMap, Recipe
from upernet.data.prepare.preparation import Preparation, summary
from upernet.data.sets.cityscapes import (
    CLASSES,
    DRAWN,
    IMAGE,
    LABEL_IDS,
    LABELS,
    POLYGONS,
    TRAIN_IDS,
    UNLABELLED,
    Cityscapes,
)
from upernet.errors import UserError


def make_train_ids(source: Path) -> np.ndarray:
    """The train ids (H, W) uint8 of a polygon file or a PNG of label ids.

    Raises:
        UserError: If the file is neither, or holds a label that Cityscapes does not have.
    """
    return draw_polygons(source) if source.suffix == ".json" else translate_label_ids(source)


def translate_label_ids(path: Path) -> np.ndarray:
    """Translate a PNG of label ids to train ids (H, W) uint8. Label id -1, stored as 255, becomes unlabelled.

    Raises:
        UserError: If the file cannot be read or holds a value that is no label id.
    """
    ids = read_mask(path)
    table = np.full(256, UNLABELLED, dtype=np.uint8)
    table[: len(DRAWN)] = [label.train_id for label in DRAWN]
    known = ((ids >= 0) & (ids < len(DRAWN))) | (ids == 255)
    if not known.all():
        raise UserError(f"{path}: value {ids[~known][0]} is no label id; valid: 0 to {len(DRAWN) - 1}, or 255")
    return table[ids]


def draw_polygons(path: Path) -> np.ndarray:
    """Draw the train ids of a polygon file.

    Objects are drawn in the order stored, later ones over earlier ones, outlines included. Deleted objects and number
    plates are left out. A group that has no label of its own counts as its members: `cargroup` as `car`.

    Returns:
        (H, W) uint8, 255 where nothing is drawn or the label belongs to no class.

    Raises:
        UserError: If the file is no polygon file, or holds a label that Cityscapes does not have.
    """
    train_ids = {label.name: label.train_id for label in DRAWN}
    undrawn = {label.name for label in LABELS} - train_ids.keys()
    width, height, shapes = _read_polygons(path)
    picture = Image.new("L", (width, height), UNLABELLED)
    pen = ImageDraw.Draw(picture)
    for label, points in shapes:
        name = label if label in train_ids or label in undrawn else label.removesuffix("group")
        if name in undrawn:
            continue
        if name not in train_ids:
            raise UserError(f"{path}: Cityscapes has no label {label!r}; valid: for example road, car, cargroup")
        pen.polygon(points, fill=train_ids[name])
    return np.array(picture)


def _read_polygons(path: Path) -> tuple[int, int, list[tuple[str, list[tuple[float, float]]]]]:
    """Width, height, and label and corners of every object that is not deleted."""
    try:
        content = json.loads(path.read_bytes())
        width, height, objects = int(content["imgWidth"]), int(content["imgHeight"]), list(content["objects"])
        shapes = [(str(o["label"]), _points(o["polygon"])) for o in objects if not o.get("deleted")]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: not a polygon file of Cityscapes ({type(error).__name__}: {' '.join(str(error).split())}); "
            "expected imgWidth, imgHeight and objects, each with label and polygon"
        ) from error
    if not (width > 0 and height > 0 and width * height <= MAX_PIXELS):
        raise UserError(f"{path}: size {width}×{height}; valid: 2048×1024, at most {MAX_PIXELS:,} pixels")
    return width, height, shapes


def _points(polygon: Iterable[Any]) -> list[tuple[float, float]]:
    points = [(float(x), float(y)) for x, y in polygon]
    if len(points) < 2 or not all(math.isfinite(v) and abs(v) < 1e6 for point in points for v in point):
        raise ValueError(f"a polygon of {len(points)} points; expected two or more, within the image")
    return points


RECIPE = Recipe(make_train_ids, len(CLASSES))


class TrainIds(Preparation):
    """`*_labelTrainIds.png` beside each annotation of train and val.

    Polygons are preferred to label ids: the published train ids are drawn from them, and differ from the label ids in
    about 0.2 % of the pixels, at edges.
    """

    def __init__(self, root: str) -> None:
        self.folder = Cityscapes(root=root).folder
        self.images: dict[str, int] = {}
        self.jobs_by_split: dict[str, list[LabelMap]] = {}
        for split in ("train", "val"):
            images = self.folder / "leftImg8bit" / split
            self.images[split] = sum(not p.name.startswith(".") for p in images.rglob(f"*{IMAGE}"))
            self.jobs_by_split[split] = list(_annotation_jobs(images, self.folder / "gtFine" / split))

    def jobs(self) -> Sequence[Job]:
        if not any(self.jobs_by_split.values()):
            raise UserError(
                f"{self.folder / 'gtFine'}: no *{POLYGONS} or *{LABEL_IDS} in train/<city>/ or val/<city>/; "
                "get gtFine_trainvaltest.zip from https://www.cityscapes-dataset.com"
            )
        return [job for jobs in self.jobs_by_split.values() for job in jobs]

    def finish(self, outcomes: Mapping[Job, Outcome]) -> Iterator[str]:
        for split, jobs in self.jobs_by_split.items():
            yield f"{split}: {summary([outcomes[j] for j in jobs], 'label maps', Cityscapes.published[split])}"
            if self.images[split] != len(jobs):
                yield f"{split}: {self.images[split]:,} images in leftImg8bit, but annotations of {len(jobs):,}"
        compared = {o.job.source: (o.record["differing"], o.record["pixels"]) for o in outcomes.values() if o.record}
        differing = sum(count for count, _ in compared.values())
        if differing:
            pixels = sum(count for _, count in compared.values())
            worst, share = max(((source, n / of) for source, (n, of) in compared.items()), key=lambda pair: pair[1])
            yield (
                f"polygons as drawn here differ from labelIds in {differing / pixels:.2g} of all pixels (a few "
                f"thousandths, at edges, are usual), most of all in {worst.name}: {share:.2g}"
            )


def _annotation_jobs(images: Path, annotations: Path) -> Iterator[LabelMap]:
    """A job for each annotation of a split."""
    kinds = (POLYGONS, LABEL_IDS)
    files = [p for kind in kinds for p in annotations.rglob(f"*{kind}") if not p.name.startswith(".")]
    for stem in sorted({p.parent / p.name.removesuffix(POLYGONS).removesuffix(LABEL_IDS) for p in files}):
        image = images / stem.parent.relative_to(annotations) / f"{stem.name}{IMAGE}"
        sources = [p for kind in kinds if (p := Path(f"{stem}{kind}")).is_file()]
        yield LabelMap(RECIPE, Path(f"{stem}{TRAIN_IDS}"), image if image.is_file() else None, *sources)
