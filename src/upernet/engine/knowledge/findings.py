"""Visual knowledge as values: concepts, relations between them, and example images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from upernet.labels import Colour

Basis = Literal["images", "pixels"]
"""What a share counts: images in which both concepts appear, or pixels that have both."""


class RelationKind(NamedTuple):
    """A kind of relation: how concepts of one task go with those of another."""

    source: str
    target: str
    basis: Basis

    @property
    def name(self) -> str:
        """Such as `scene-object`."""
        return f"{self.source}-{self.target}"


RELATIONS = (
    RelationKind("scene", "object", "images"),
    RelationKind("object", "part", "images"),
    RelationKind("object", "material", "pixels"),
    RelationKind("part", "material", "pixels"),
    RelationKind("material", "texture", "pixels"),
)
"""The five relations of the paper, in its order."""


@dataclass(frozen=True)
class Concept:
    """A class of a task that was seen.

    Attributes:
        id: Its number among all concepts, from 0.
        task: The task: scene, object, part, material or texture.
        name: Name of the class; a part is called `object/part`.
        colour: RGB, 0 to 255.
        images: Number of images in which it appears.
        pixels: Number of its pixels, in all images; 0 for a scene.
        share: Its share of all answered pixels of the task; of all images with a scene, for a scene.
    """

    id: int
    task: str
    name: str
    colour: Colour
    images: int
    pixels: int
    share: float


@dataclass(frozen=True)
class Relation:
    """How often a concept goes with another: the likelihood of `target`, given `source`.

    Attributes:
        kind: Name of its `RelationKind`.
        source: Id of the concept that is given, such as a scene.
        target: Id of the concept that goes with it, such as an object.
        basis: What `share` counts.
        images: Number of images in which both appear (for pixels: on at least one common pixel).
        source_images: Number of images in which `source` appears and that tell about the target's task.
        pixels: Number of pixels that have both; 0 if images are counted.
        source_pixels: Number of `source`'s pixels that have an answer of the target's task; 0 if images are counted.
        share: The likelihood: `images / source_images` or `pixels / source_pixels`.
        low: Lower end of its confidence interval.
        high: Upper end.
        lift: The likelihood divided by that of `target` without `source` given: above 1, they go together.
    """

    kind: str
    source: int
    target: int
    basis: Basis
    images: int
    source_images: int
    pixels: int
    source_pixels: int
    share: float
    low: float
    high: float
    lift: float


@dataclass(frozen=True)
class Example:
    """An image that shows a concept.

    Attributes:
        concept: Id of the concept.
        image: Name of the image.
        share: The concept's share of its pixels; 1 for a scene.
        thumbnail: (h, w, 3) uint8 RGB, the image made small.
        region: (h, w) bool, where the concept is; None for a scene, which is everywhere.
    """

    concept: int
    image: str
    share: float
    thumbnail: np.ndarray
    region: np.ndarray | None


@dataclass(frozen=True)
class Knowledge:
    """What was found out.

    Attributes:
        images: Number of images that were looked at.
        skipped: Number of images that could not be read.
        model: Name of the model that gave the predictions; empty if only annotations were used.
        answers: Task → how many images have its answer from an annotation (`annotated`) and from the model
            (`predicted`).
        settings: Thresholds and other options by name, as plain values.
        concepts: All concepts that were seen; a concept's id is its position.
        relations: All relations with a non-zero count, in the order of `RELATIONS`, then by source and falling share.
    """

    images: int
    skipped: int
    model: str
    answers: Mapping[str, Mapping[str, int]]
    settings: Mapping[str, float | int | str | None]
    concepts: tuple[Concept, ...]
    relations: tuple[Relation, ...]
