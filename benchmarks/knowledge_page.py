"""Time and size of the page of visual knowledge, from made-up knowledge with the class names of Broden+.

    python benchmarks/knowledge_page.py [--objects 335] [--scenes 365] [--examples 8] [--largest-mb 40] [--out DIR]

Writes `page.html` and `figure.html` into `--out` and prints the CPU time of each, its size, and the memory that the
process had at most. Which concepts go together is drawn from a seed; the pictures are drawn shapes. The pages are for
looking at, and nothing in them is true.
"""

from __future__ import annotations

import argparse
import math
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from upernet.data.sets.broden_plus import broden_plus
from upernet.engine.knowledge.figure import write_figure
from upernet.engine.knowledge.findings import RELATIONS, Concept, Example, Knowledge, Relation
from upernet.engine.knowledge.page import write_page
from upernet.labels import distinct_colours

THEMES = 9
"""Hidden kinds of places; scenes and objects of the same theme go together."""
IMAGE = 480 * 640
"""Pixels of a made-up image."""

LEAST_SHARE = 0.07
"""Rarer pairs are left out, so that the number of relations is that of a real run, about 40,000."""


@dataclass(frozen=True)
class Sizes:
    """How much knowledge is made up: numbers of images and of classes; 0 leaves a task out."""

    images: int = 36_500
    objects: int = 335
    scenes: int = 365
    parts: int = 350
    materials: int = 25
    textures: int = 47
    examples: int = 8


def made_up(sizes: Sizes, seed: int = 0) -> tuple[Knowledge, dict[int, list[Example]]]:
    """Knowledge and examples of these sizes; the same seed makes the same."""
    rng = np.random.default_rng(seed)
    classes = broden_plus()
    objects = classes["object"][1 : sizes.objects + 1]
    parts = [f"{name}/{part}" for name in objects for part in classes["part"].get(name, ())][: sizes.parts]
    names = {
        "scene": classes["scene"][:: max(1, 365 // max(1, sizes.scenes))][: sizes.scenes],
        "object": objects,
        "part": parts,
        "material": classes["material"][1 : sizes.materials + 1],
        "texture": classes["texture"][: sizes.textures],
    }
    concepts: list[Concept] = []
    for task, listed in names.items():
        # Frequencies fall as those of words do; scenes have equally many images.
        weight = np.ones(len(listed)) if task == "scene" else 1 / (1 + np.arange(len(listed))) ** 0.9
        shares = weight / max(weight.sum(), 1e-9)
        for name, colour, share in zip(listed, distinct_colours(len(listed)), shares, strict=True):
            appears = max(1, round(sizes.images * (share if task == "scene" else min(0.95, 6 * share))))
            pixels = 0 if task == "scene" else round(sizes.images * IMAGE * 0.8 * share)
            concepts.append(Concept(len(concepts), task, name, colour, appears, pixels, float(share)))
    relations: list[Relation] = []
    themes = {concept.id: rng.dirichlet(np.full(THEMES, 0.25)) for concept in concepts}
    for kind in RELATIONS:
        targets = [concept for concept in concepts if concept.task == kind.target]
        for source in (concept for concept in concepts if concept.task == kind.source):
            relations += _relations_of(source, targets, kind.name, kind.basis, themes, rng)
    knowledge = Knowledge(
        images=sizes.images,
        skipped=3,
        model="upp-resnet50 (made up)",
        answers={
            task: {"annotated": sizes.images, "predicted": 0}
            if task == "scene"
            else {"annotated": sizes.images // 4, "predicted": sizes.images * 3 // 4}
            for task, listed in names.items()
            if listed
        },
        settings={"least_area": 0.005, "min_images": 5, "confidence": 0.95, "source": "data/*.jpg"},
        concepts=tuple(concepts),
        relations=tuple(relations),
    )
    return knowledge, {concept.id: _examples(concept, sizes.examples, rng) for concept in concepts}


def _relations_of(
    source: Concept,
    targets: Sequence[Concept],
    kind: str,
    basis: str,
    themes: dict[int, np.ndarray],
    rng: np.random.Generator,
) -> list[Relation]:
    if kind == "object-part":
        targets = [target for target in targets if target.name.split("/")[0] == source.name]
    fit = np.array([1e-3 + themes[source.id] @ themes[target.id] for target in targets])
    if basis == "images":
        likely = np.minimum(0.97, (0.15 + 1.6 * fit) * np.array([min(1.0, 9 * t.share**0.6) for t in targets]))
        if kind == "object-part":
            likely = rng.uniform(0.05, 0.95, len(targets))
        count = source.images
    else:
        likely = fit * rng.gamma(0.4, size=len(targets))
        likely = likely / max(likely.sum(), 1e-9)
        count = max(5, source.images)
    relations = []
    for target, share in zip(targets, likely, strict=True):
        images = int(rng.binomial(count, share))
        if not images or share < LEAST_SHARE:
            continue
        pixels = round(source.pixels * share) if basis == "pixels" else 0
        share = images / count if basis == "images" else share
        low, high = _wilson(share, count)
        usual = max(1e-4, min(0.9, 6 * target.share if basis == "images" else target.share))
        relations.append(
            Relation(
                kind=kind,
                source=source.id,
                target=target.id,
                basis="images" if basis == "images" else "pixels",
                images=images,
                source_images=count,
                pixels=pixels,
                source_pixels=source.pixels if basis == "pixels" else 0,
                share=float(share),
                low=low,
                high=high,
                lift=float(share / usual),
            )
        )
    return sorted(relations, key=lambda relation: -relation.share)


def _wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of `count` images."""
    z = 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def _examples(concept: Concept, count: int, rng: np.random.Generator) -> list[Example]:
    examples = []
    for i in range(min(count, concept.images)):
        height, width = (150, 200) if i % 3 else (200, 150)
        picture = _ground(height, width, rng)
        region = np.zeros((height, width), np.uint8)
        for _ in range(int(rng.integers(1, 4))):
            centre = int(rng.integers(30, width - 30)), int(rng.integers(30, height - 30))
            axes = int(rng.integers(8, 45)), int(rng.integers(8, 45))
            cv2.ellipse(region, centre, axes, int(rng.integers(180)), 0, 360, 1, -1)
        picture[region == 1] = 0.25 * picture[region == 1] + 0.75 * np.array(concept.colour)
        shown = None if concept.task == "scene" else region.astype(bool)
        name = f"val/{concept.name.replace('/', '_').replace(' ', '_')}/Places365_val_{i + 1:08d}.jpg"
        examples.append(Example(concept.id, name, 1.0 if shown is None else float(shown.mean()), picture, shown))
    return sorted(examples, key=lambda example: -example.share)


def _ground(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A sky, a ground and some noise: what a photograph costs to store, nearly."""
    colours = rng.integers(60, 230, (4, 1, 3)).astype(np.float32)
    picture = cv2.resize(colours, (width, height), interpolation=cv2.INTER_CUBIC)
    grain = cv2.resize(rng.normal(0, 18, (height // 3, width // 3, 3)), (width, height))
    return np.clip(picture + grain, 0, 255).astype(np.uint8)


def timed(what: str, path: Path, write: Callable[[], None]) -> None:
    """Print how much CPU time writing took, and how large the file is."""
    begin = time.process_time()
    write()
    print(f"{what}: {time.process_time() - begin:.1f} s, {path.stat().st_size / 1e6:.1f} MB, {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in vars(Sizes()).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--largest-mb", type=float, default=40)
    parser.add_argument("--min-share", type=float, default=0.3)
    parser.add_argument("--out", type=Path, default=Path("runs/knowledge-page"))
    options = vars(parser.parse_args())
    largest_mb, min_share, out = (options.pop(name) for name in ("largest_mb", "min_share", "out"))
    knowledge, examples = made_up(Sizes(**options))
    pictures = sum(map(len, examples.values()))
    print(f"{len(knowledge.concepts)} concepts, {len(knowledge.relations)} relations, {pictures} pictures")
    out.mkdir(parents=True, exist_ok=True)
    page, figure = out / "page.html", out / "figure.html"
    timed("page", page, lambda: write_page(page, knowledge, examples, largest_mb))
    timed("figure", figure, lambda: write_figure(figure, knowledge, min_share))
    print(f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB")


if __name__ == "__main__":
    main()
