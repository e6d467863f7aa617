"""Pascal VOC 2012 segmentation, and data sets of the same layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from upernet.data.folder_source import FolderSource
from upernet.data.items import Annotation, Item, Listing
from upernet.data.masks import read_mask
from upernet.data.search import read_lines
from upernet.errors import UserError
from upernet.labels import IGNORE

# fmt: off
NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on


def _palette() -> bytes:
    """Red, green and blue of 256 indices.

    Bits 0, 1 and 2 of an index are the highest bits of red, green and blue, bits 3 to 5 the next lower ones, and so on.
    """
    colours = np.zeros((256, 3), dtype=np.uint8)
    for index in range(256):
        for bit in range(8):
            colours[index, bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
    return colours.tobytes()


PALETTE = _palette()
"""The 256 colours of VOC's PNG files, three bytes each."""
CLASSES = {name: f"#{PALETTE[3 * i : 3 * i + 3].hex()}" for i, name in enumerate(NAMES)}


@dataclass(kw_only=True)
class VOC(FolderSource):
    """Pascal VOC 2012 segmentation (Everingham et al., IJCV 2015): 20 object classes and background.

    Annotation `mask`: a palette PNG read as indices, 0 background, 1 to 20 objects, 255 the unlabelled border.

    * Layout: `JPEGImages/<id>.jpg`, `SegmentationClass/<id>.png`, `ImageSets/Segmentation/<split>.txt`.
    * Splits: train 1,464 and val 1,449 images, about 500×375 pixels. `upernet prepare voc_aug ROOT` adds the masks of
      SBD (Hariharan et al., ICCV 2011) and with them `aug` 9,118 and `trainaug` 10,582, the usual training set: train
      with its own masks, then aug with those of SBD. SBD's outlines are coarser and have no unlabelled border.
    * Licence: images come from Flickr under their own terms; annotations for research.
    * Get it: `VOCtrainval_11-May-2012.tar` (2 GB) from http://host.robots.ox.ac.uk/pascal/VOC/voc2012; the folder is
      `VOCdevkit/VOC2012`.
    """

    masks: str = "SegmentationClass"
    """Folder of the masks: `SegmentationClass` or `SegmentationClassAug`."""
    aug_masks: str = "SegmentationClassAug"
    """Folder of the masks of `aug`, alone and within `trainaug`."""

    title: ClassVar[str] = "VOC 2012"
    classes: ClassVar[Mapping[str, str]] = CLASSES
    published: ClassVar[Mapping[str, int]] = {"train": 1464, "val": 1449, "aug": 9118, "trainaug": 10582}
    photograph: ClassVar[tuple[int, int] | None] = (375, 500)
    layout: ClassVar[str] = "JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/<split>.txt"
    origin: ClassVar[str] = (
        "VOCtrainval_11-May-2012.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2012 (its folder VOCdevkit/VOC2012)"
    )
    subfolders: ClassVar[tuple[tuple[str, ...], ...]] = (("JPEGImages", "ImageSets"),)

    @cached_property
    def annotations(self) -> dict[str, Annotation]:
        return {"mask": Annotation(NAMES, dense=True)}

    def list_split(self, split: str) -> Listing:
        remedy = f"run: upernet prepare voc_aug {self.folder}"
        if split == "aug":
            return self.examine(split, self._pair(self._aug(), self.aug_masks), remedy=remedy)
        if split == "trainaug" and self._list("train").is_file():
            train = self._pair(self.names("train"), self.masks)
            return self.examine(split, train + self._pair(self._aug(), self.aug_masks), remedy=remedy)
        return self.examine(split, self._pair(self.names(split), self.masks))

    def names(self, split: str) -> list[str]:
        """The image ids in the list of a split, in its order.

        Raises:
            UserError: If there is no such list, or it is empty.
        """
        listing = self._list(split)
        if not listing.is_file():
            found = sorted(p.stem for p in listing.parent.glob("*.txt"))
            raise UserError(f"{listing}: no such split; found: {', '.join(found) or 'none'}")
        names = [name for line in read_lines(listing) for name in line.split()]
        if not names:
            raise UserError(f"{listing}: empty; expected one image id per line, such as 2007_000032")
        return names

    def _aug(self) -> list[str]:
        """The ids whose masks come from SBD: the list `aug`, or else the ids of `trainaug` that `train` lacks."""
        if self._list("aug").is_file():
            return self.names("aug")
        if not self._list("trainaug").is_file():
            raise UserError(f"{self._list('aug')}: no such list; run: upernet prepare voc_aug {self.folder}")
        train = set(self.names("train"))
        return [name for name in self.names("trainaug") if name not in train]

    def _list(self, split: str) -> Path:
        return self.folder / "ImageSets" / "Segmentation" / f"{split}.txt"

    def _pair(self, names: list[str], masks: str) -> list[Item]:
        root = self.folder
        return [
            Item(name, root / "JPEGImages" / f"{name}.jpg", {"mask": root / masks / f"{name}.png"}) for name in names
        ]

    def read_mask(self, path: Path, annotation: str) -> np.ndarray:
        mask = read_mask(path)
        mask[mask == 255] = IGNORE
        return mask
