"""Jobs that make one label map each, beside the image that it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from upernet.data.images import image_size
from upernet.data.masks import read_mask
from upernet.data.prepare.jobs import Job
from upernet.errors import UserError
from upernet.files import write_whole


@dataclass(frozen=True)
class Recipe:
    """How the label maps of a data set are made.

    Attributes:
        make: Reads a source into a label map (H, W), uint8 or uint16.
        classes: Number of classes; their ids count from 0.
        palette: Red, green and blue of 256 ids, for palette files; None for grey files.
    """

    make: Callable[[Path], np.ndarray]
    classes: int
    palette: bytes | None = None

    @property
    def unlabelled(self) -> int:
        """The value of unlabelled pixels. Files have 16 bits if there are more than 255 classes."""
        return 255 if self.classes <= 255 else 65535


@dataclass(frozen=True)
class LabelMap(Job):
    """One label map to make. Its record counts the `pixels` compared with the second source, and those `differing`.

    Attributes:
        recipe: How it is made.
        target: The PNG to write.
        image: Its photograph, which must be of the same size; None if there is none to compare with.
        source: The file that it is made from.
        check: A second source, which should give the same label map; None if there is none.
    """

    recipe: Recipe
    target: Path
    image: Path | None
    source: Path
    check: Path | None = None

    @property
    def targets(self) -> tuple[Path, ...]:
        return (self.target,)

    def kept(self) -> Mapping[str, Any] | None:
        size = image_size(self.image) if self.image else None
        return {} if self._is_valid(size) else None

    def make(self) -> Mapping[str, Any]:
        recipe, size = self.recipe, image_size(self.image) if self.image else None
        labels = recipe.make(self.source)
        if self.image and size and labels.shape != size[::-1]:
            raise UserError(
                f"{self.source}: {labels.shape[1]}×{labels.shape[0]} pixels for an image of {size[0]}×{size[1]} "
                f"({self.image.name})"
            )
        wrong = labels[(labels >= recipe.classes) & (labels != recipe.unlabelled)]
        if wrong.size:
            raise UserError(f"{self.source}: value {wrong[0]} is no label; valid: 0 to {recipe.classes - 1}")
        picture = Image.fromarray(labels.astype(np.uint8 if recipe.unlabelled == 255 else np.uint16))
        if recipe.palette is not None:
            picture.putpalette(recipe.palette)
        write_whole(self.target, lambda file: picture.save(file, "PNG"), durable=False)
        if self.check is not None:
            other = recipe.make(self.check)
            if other.shape == labels.shape:
                return {"pixels": labels.size, "differing": int((other != labels).sum())}
        return {}

    def _is_valid(self, size: tuple[int, int] | None) -> bool:
        """Whether the map is there, is complete, has the size (width, height) of its image and only known values."""
        try:
            labels = read_mask(self.target)
        except UserError:
            return False
        known = (labels >= 0) & ((labels < self.recipe.classes) | (labels == self.recipe.unlabelled))
        return (size is None or labels.shape == size[::-1]) and bool(known.all())
