"""Visual knowledge that is small enough to be written down, with example images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from upernet.engine.knowledge.findings import RELATIONS, Concept, Example, Knowledge, Relation

CONCEPTS = (
    Concept(0, "scene", "street", (200, 40, 40), 40, 0, 0.4),
    Concept(1, "scene", "garage/indoor", (40, 200, 40), 60, 0, 0.6),
    Concept(2, "object", "car", (40, 40, 200), 50, 90_000, 0.3),
    Concept(3, "object", "wall", (90, 90, 90), 80, 210_000, 0.7),
    Concept(4, "part", "car/wheel", (10, 10, 10), 30, 9_000, 1.0),
    Concept(5, "material", "metal", (170, 180, 190), 45, 60_000, 0.25),
    Concept(6, "material", "painted", (250, 250, 230), 90, 180_000, 0.75),
    Concept(7, "texture", "grooved", (120, 60, 20), 20, 12_000, 1.0),
)


def relation(kind: str, source: int, target: int, share: float, lift: float = 1.5) -> Relation:
    """A relation whose counts fit its share: of 40 images, or of 10,000 pixels."""
    basis = next(known.basis for known in RELATIONS if known.name == kind)
    by_pixels = basis == "pixels"
    return Relation(
        kind=kind,
        source=source,
        target=target,
        basis=basis,
        images=round(40 * share),
        source_images=40,
        pixels=round(10_000 * share) if by_pixels else 0,
        source_pixels=10_000 if by_pixels else 0,
        share=share,
        low=max(0.0, share - 0.1),
        high=min(1.0, share + 0.1),
        lift=lift,
    )


SMALL = Knowledge(
    images=100,
    skipped=2,
    model="a model",
    answers={task: {"annotated": 60, "predicted": 40} for task in ("scene", "object", "part", "material", "texture")},
    settings={"min_images": 5, "confidence": 0.95, "split": None},
    concepts=CONCEPTS,
    relations=(
        relation("scene-object", 0, 2, 0.8, lift=1.6),
        relation("scene-object", 0, 3, 0.6, lift=0.75),
        relation("scene-object", 1, 3, 0.9),
        relation("scene-object", 1, 2, 0.2),
        relation("object-part", 2, 4, 0.5),
        relation("object-material", 2, 5, 0.7),
        relation("object-material", 2, 6, 0.3),
        relation("part-material", 4, 5, 1.0),
        relation("material-texture", 5, 7, 0.05),
    ),
)


def without(knowledge: Knowledge, *tasks: str) -> Knowledge:
    """The knowledge had these tasks not been answered."""
    kept = [concept for concept in knowledge.concepts if concept.task not in tasks]
    number = {concept.id: i for i, concept in enumerate(kept)}
    return replace(
        knowledge,
        answers={task: counts for task, counts in knowledge.answers.items() if task not in tasks},
        concepts=tuple(replace(concept, id=number[concept.id]) for concept in kept),
        relations=tuple(
            replace(edge, source=number[edge.source], target=number[edge.target])
            for edge in knowledge.relations
            if edge.source in number and edge.target in number
        ),
    )


def renamed(knowledge: Knowledge, names: Sequence[str]) -> Knowledge:
    """The knowledge with other names of concepts, in the order of their ids."""
    concepts = zip(knowledge.concepts, names, strict=True)
    return replace(knowledge, concepts=tuple(replace(concept, name=name) for concept, name in concepts))


def example(concept: Concept, image: str, size: tuple[int, int] = (30, 40), seed: int = 0) -> Example:
    """A picture of noise, which compresses badly, whose upper left quarter is the concept's region."""
    height, width = size
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    region = np.zeros(size, bool)
    region[: height // 2, : width // 2] = True
    if concept.task == "scene":
        return Example(concept.id, image, 1.0, noise, None)
    return Example(concept.id, image, 0.25, noise, region)


def examples_of(knowledge: Knowledge, count: int = 3, size: tuple[int, int] = (30, 40)) -> dict[int, list[Example]]:
    """`count` examples of every concept."""
    return {
        concept.id: [
            example(concept, f"photos/{concept.id}-{i}.jpg", size, seed=100 * concept.id + i) for i in range(count)
        ]
        for concept in knowledge.concepts
    }
