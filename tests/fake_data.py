"""Data sets made up on the spot: every layout the package reads, at thumbnail size, the same on every machine.

Masks are coarse blocks of labels; a pixel's colour follows from its label, so that a picture and its mask can be
compared pixel by pixel.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from upernet.data.facade import Facade
from upernet.data.labels import ClassSets
from upernet.data.source import Annotation, Item, Source
from upernet.data.voc import VOC_LABELS
from upernet.tasks import Task

Size = tuple[int, int]
SIZE: Size = (48, 64)
"""(height, width) of a picture unless said otherwise."""
COUNTS = {"train": 4, "val": 2}
"""Images per split (per class and split in a class folder)."""

CAMVID = [
    "Sky",
    "Building",
    "Pole",
    "Road",
    "Pavement",
    "Tree",
    "SignSymbol",
    "Fence",
    "Car",
    "Pedestrian",
    "Bicyclist",
    "Void",
]
SCENE15 = [
    "bedroom",
    "coast",
    "forest",
    "highway",
    "industrial",
    "insidecity",
    "kitchen",
    "livingroom",
    "mountain",
    "office",
    "opencountry",
    "store",
    "street",
    "suburb",
    "tallbuilding",
]
TRASHNET = ["cardboard", "glass", "metal", "paper", "plastic"]
DTD10 = [
    "banded",
    "blotchy",
    "braided",
    "bubbly",
    "bumpy",
    "chequered",
    "cobwebbed",
    "cracked",
    "crosshatched",
    "crystalline",
]


def blocks(name: str, values: Sequence[int], size: Size = SIZE, block: int = 8) -> np.ndarray:
    """A mask (H, W) int64 of blocks, each of one of the values; the same for the same name."""
    height, width = size
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    coarse = rng.choice(np.asarray(values), size=(-(-height // block), -(-width // block)))
    return np.kron(coarse, np.ones((block, block), dtype=np.int64))[:height, :width]


def picture(mask: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 whose colour follows from the label; another colour for each of 0 to 4,095."""
    mask = mask % 4096
    return np.stack([mask % 16 * 16 + 8, mask // 16 % 16 * 16 + 8, mask // 256 * 16 + 8], axis=-1).astype(np.uint8)


def image_mask_folder(
    root: Path,
    labels: Sequence[str],
    *,
    values: Sequence[int] | None = None,
    counts: dict[str, int] | None = None,
    size: Size = SIZE,
    deep: bool = False,
) -> Path:
    """`images/<split>/*.jpg` and `annotations/<split>/*.png`; 16-bit masks if there are more than 255 values."""
    values = list(range(len(labels))) if values is None else list(values)
    for split, count in (counts or COUNTS).items():
        for i in range(count):
            stem = f"{split}/town/{split}_{i}" if deep else f"{split}/{split}_{i}"
            mask = blocks(f"{root.name}/{stem}", values, size)
            _save(root / "images" / f"{stem}.jpg", Image.fromarray(picture(mask)))
            kind = np.uint16 if max(values) > 255 else np.uint8
            _save(root / "annotations" / f"{stem}.png", Image.fromarray(mask.astype(kind)))
    return root


def class_folder(
    root: Path,
    labels: Sequence[str],
    *,
    lists: bool = False,
    counts: dict[str, int] | None = None,
    size: Size = SIZE,
    grey: bool = False,
) -> Path:
    """`images/<split>/<class>/*.jpg`; with lists, `images/<class>/*.jpg` and `labels/<split>1.txt`."""
    for split, count in (counts or {"train": 2, "val": 1}).items():
        names = []
        for number, label in enumerate(labels):
            for i in range(count):
                name = f"{label}/{label}_{split}_{i}.jpg"
                image = Image.fromarray(picture(blocks(name, [number, number + len(labels)], size)))
                _save(root / "images" / ("" if lists else split) / name, image.convert("L") if grey else image)
                names.append(name)
        if lists:
            (root / "labels").mkdir(parents=True, exist_ok=True)
            (root / "labels" / f"{split}1.txt").write_text("\n".join(names) + "\n")
    return root


def voc(root: Path, *, counts: dict[str, int] | None = None, size: Size = SIZE) -> Path:
    """The VOC layout with palette PNGs; every mask has background, a person, a cat and an unlabelled border, 255."""
    rng = np.random.default_rng(0)
    palette = rng.integers(0, 256, 768, dtype=np.uint8).tobytes()
    for split, count in (counts or COUNTS).items():
        names = [f"2007_{split}_{i:06d}" for i in range(count)]
        listing = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text("\n".join(names) + "\n")
        for name in names:
            mask = blocks(name, [0, VOC_LABELS.index("cat"), VOC_LABELS.index("person")], size)
            _save(root / "JPEGImages" / f"{name}.jpg", Image.fromarray(picture(mask)))
            mask[:2] = 255
            stored = Image.fromarray(mask.astype(np.uint8), mode="P")
            stored.putpalette(palette)
            _save(root / "SegmentationClass" / f"{name}.png", stored)
    return root


def facade(root: Path, **options: Any) -> Path:
    """LabelMeFacade: every mask holds some of its nine labels, 0 unlabelled."""
    return image_mask_folder(root, Facade(root="").labels, **options)


def carparts(root: Path, **options: Any) -> Path:
    """Car Parts: a car of three parts on label 0."""
    return image_mask_folder(root, [""] * 19, values=[0, 1, 3, 18], **options)


def everything(root: Path) -> Path:
    """What `$UPERNET_DATA` holds for the shipped configurations."""
    mini = root / "mini_multitask"
    image_mask_folder(root / "camvid", CAMVID)
    voc(root / "voc_mini" / "VOCdevkit" / "VOC2012")
    facade(mini / "facade")
    carparts(mini / "carparts")
    class_folder(mini / "scene15", SCENE15, grey=True)
    class_folder(mini / "trashnet", TRASHNET)
    class_folder(mini / "dtd10", DTD10, lists=True)
    return root


def _save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **({"quality": 95, "subsampling": 0} if path.suffix == ".jpg" else {}))


@dataclass(kw_only=True)
class Memory(Source):
    """A stranger's source, named in YAML by its class path: pictures made on request."""

    root: str = "."
    labels: list[str] = field(default_factory=lambda: ["low", "middle", "high"])
    dense: bool = True
    images: int = 6
    size: tuple[int, int] = SIZE
    salt: int = 0
    unlabelled: bool = False

    @property
    def annotations(self) -> dict[str, Annotation]:
        return {"given": Annotation(tuple(self.labels), self.dense)}

    def items(self, split: str) -> list[Item]:
        count = self.images if split == "train" else 2
        # A file that exists, though it is never opened.
        return [Item(f"{split}_{i}", Path(__file__), {"given": i % len(self.labels)}) for i in range(count)]

    def read(self, item: Item) -> tuple[np.ndarray, dict[str, Any]]:
        name = f"{self.salt}/{item.id}"
        number = int(item.annotations["given"])  # type: ignore[arg-type]
        mask = blocks(name, range(len(self.labels)) if self.dense else [number], self.size)
        answer: Any = np.full_like(mask, -1) if self.unlabelled else mask
        if not self.dense:
            answer = -1 if self.unlabelled else number
        noise = np.random.default_rng(zlib.crc32(name.encode())).integers(-8, 8, (*self.size, 3))
        return (picture(mask * 300) + noise).clip(0, 255).astype(np.uint8), {"given": answer}


def own_labels(task: Task) -> ClassSets:
    """The label space of a source whose labels are a task's classes."""
    return ClassSets.of(task.classes.names, task.classes)
