"""Broden+, the unified data set of Xiao et al. 2018, as `upernet prepare broden_plus` writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from upernet.data.items import Item, Listing
from upernet.data.masks import read_mask
from upernet.data.sets.broden_plus.records import DENSE, TABLE, Record, read_records
from upernet.data.sets.broden_plus.tables import OFFICIAL, SUBSETS
from upernet.data.sets.broden_plus.tables import broden_plus as broden_plus
from upernet.data.sets.broden_plus.unified import UnifiedSource, to_label_ids
from upernet.errors import UserError


@dataclass(kw_only=True)
class BrodenPlus(UnifiedSource):
    """Broden+ (Xiao et al., ECCV 2018): objects, parts, scenes, materials and textures of four collections.

    No image is labelled for everything: ADE20K has objects, parts and scenes, Pascal objects and parts, OpenSurfaces
    materials, DTD textures.

    * Annotations: `object` (335 classes) and `material` (25), where 0 in the file is unlabelled; `part`, one map of the
      427 channels `object/part`, 65535 unlabelled; `scene` (365) and `texture` (47), one label per image.
    * Layout: `records.jsonl`, `images/<id>.jpg`, `{object,part,material}/<id>.png`.
    * Splits: the official ones, train 51,384 and val 5,709 images.
    * Licence: that of each collection; see `docs/broden-plus.md`.
    * Get it: `upernet prepare broden_plus`, from the collections as their owners distribute them.
    """

    title: ClassVar[str] = "Broden+"
    published: ClassVar[Mapping[str, int]] = {
        split: sum(official.images[place] for official in OFFICIAL.values())
        for place, split in enumerate(("train", "val"))
    }
    layout: ClassVar[str] = (
        f"{TABLE}, images/ and {{object,part,material}}/, as upernet prepare broden_plus writes them"
    )
    origin: ClassVar[str] = "it by: upernet prepare broden_plus FOLDER --ade20k … (docs/broden-plus.md)"

    def list_split(self, split: str) -> Listing:
        folder = self.folder
        table = folder / TABLE
        if not table.is_file():
            raise UserError(f"{table}: no such file; {self.expectation}")
        records = read_records(table)
        there = [name for name in SUBSETS if any(record.source == name for record in records)]
        chosen = self.chosen_subsets(there, f"run: upernet prepare broden_plus {folder} with this subset's folder")
        splits = sorted({record.split for record in records})
        if split not in splits:
            raise UserError(f"{table}: no images in split {split!r}; there are {', '.join(splits) or 'none'}")
        items = [self._item(folder, r) for r in records if r.split == split and r.source in chosen]
        return self.examine(split, items, remedy=f"run: upernet prepare broden_plus {folder}")

    def _item(self, folder: Path, record: Record) -> Item:
        annotations: dict[str, Path | int] = {}
        for name in record.annotations:
            label = {"scene": record.scene, "texture": record.texture}.get(name)
            if name in DENSE:
                annotations[name] = folder / name / f"{record.id}.png"
            elif label is not None:
                annotations[name] = label
        return Item(record.id, folder / record.image, annotations, (record.height, record.width))

    def read_mask(self, path: Path, annotation: str) -> np.ndarray:
        return to_label_ids(read_mask(path), annotation)
