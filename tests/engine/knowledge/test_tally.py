"""The five relations, worked out by hand on maps of 2×2 pixels, and counted literally on maps at random."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from drawn import CLASSES, VOCABULARY, Maps, at_random, named, seen
from hypothesis import given, settings
from hypothesis import strategies as st

from upernet.engine.knowledge.findings import RELATIONS, Knowledge, Relation
from upernet.engine.knowledge.intervals import wilson
from upernet.engine.knowledge.observation import Observation
from upernet.engine.knowledge.tally import Tally
from upernet.engine.knowledge.thresholds import Thresholds

EVERY_PIXEL = Thresholds(min_area=0, min_part_area=0)

A: Maps = {
    "scene": 0,
    "object": named("object", "car car | wall ?"),
    "part": named("part", "wheel - | ? ?"),
    "material": named("material", "metal glass | brick ?"),
    "texture": named("texture", "smooth striped | striped smooth"),
}
B: Maps = {
    "scene": 0,
    "object": named("object", "car sky | sky sky"),
    "part": named("part", "? ? | ? ?"),
    "material": named("material", "metal ? | ? glass"),
}
C: Maps = {
    "scene": 1,
    "object": named("object", "wall wall | wall car"),
    "part": named("part", "? ? | ? door"),
    "material": named("material", "brick brick | metal metal"),
}
D: Maps = {"object": named("object", "car car | car car"), "part": named("part", "wheel wheel | door -")}


def known(
    images: Sequence[Maps | Observation],
    thresholds: Thresholds = EVERY_PIXEL,
    block: int = 10**6,
    replicates: int = 100,
) -> Knowledge:
    tally = Tally(VOCABULARY, thresholds, replicates)
    observations = [image if isinstance(image, Observation) else seen(image) for image in images]
    for start in range(0, len(images), block):
        part = slice(start, start + block)
        tally.add([f"image {i}" for i in range(len(images))][part], observations[part])
    return tally.knowledge("", {})


def relations(knowledge: Knowledge, kind: str) -> dict[str, Relation]:
    names = [concept.name for concept in knowledge.concepts]
    return {f"{names[r.source]} {names[r.target]}": r for r in knowledge.relations if r.kind == kind}


def images_of(found: dict[str, Relation]) -> dict[str, tuple[Any, ...]]:
    assert all((r.basis, r.pixels, r.source_pixels) == ("images", 0, 0) for r in found.values())
    assert all((r.low, r.high) == wilson(r.images, r.source_images) for r in found.values())
    assert all(r.share == r.images / r.source_images for r in found.values())
    return {name: (r.images, r.source_images, pytest.approx(r.lift)) for name, r in found.items()}


def pixels_of(found: dict[str, Relation]) -> dict[str, tuple[Any, ...]]:
    assert all(r.basis == "pixels" and r.share == r.pixels / r.source_pixels for r in found.values())
    assert all(r.low <= r.share <= r.high for r in found.values())
    return {n: (r.pixels, r.source_pixels, r.images, r.source_images, pytest.approx(r.lift)) for n, r in found.items()}


@pytest.fixture(scope="module")
def knowledge() -> Knowledge:
    return known([A, B, C, D])


def test_scene_object(knowledge: Knowledge) -> None:
    """D has no scene. Of the other three images, car is in all, wall in two, sky in one."""
    assert images_of(relations(knowledge, "scene-object")) == {
        "street car": (2, 2, 1),
        "street wall": (1, 2, (1 / 2) / (2 / 3)),
        "street sky": (1, 2, (1 / 2) / (1 / 3)),
        "kitchen car": (1, 1, 1),
        "kitchen wall": (1, 1, 1 / (2 / 3)),
    }


def test_object_part(knowledge: Knowledge) -> None:
    """Nothing is known of the parts of B's car, nor of any wall's; "no part" of a car is known in A and D."""
    assert images_of(relations(knowledge, "object-part")) == {"car car/wheel": (2, 3, 1), "car car/door": (2, 3, 1)}


def test_an_object_appears_from_a_smallest_area_on() -> None:
    """Half of an image: the cars of B and C are too small."""
    found = known([A, B, C, D], Thresholds(min_area=0.5, min_part_area=0))
    assert images_of(relations(found, "object-part")) == {
        "car car/wheel": (2, 2, 1 / (2 / 3)),
        "car car/door": (1, 2, (1 / 2) / (2 / 3)),
    }
    assert images_of(relations(found, "scene-object")) == {
        "street car": (1, 2, (1 / 2) / (1 / 3)),
        "street sky": (1, 2, (1 / 2) / (1 / 3)),
        "kitchen wall": (1, 1, 1 / (1 / 3)),
    }
    assert pixels_of(relations(found, "object-material")) == pixels_of(
        relations(known([A, B, C, D]), "object-material")
    )


def test_a_part_appears_from_a_smallest_area_on() -> None:
    """Half of an image: only the wheels of D, though doors and wheels are known in A, C and D."""
    found = known([A, B, C, D], Thresholds(min_area=0, min_part_area=0.5))
    assert images_of(relations(found, "object-part")) == {"car car/wheel": (1, 3, 1)}


def test_object_material(knowledge: Knowledge) -> None:
    """Nine pixels have both: four are metal, two glass, three brick."""
    assert pixels_of(relations(knowledge, "object-material")) == {
        "car metal": (3, 4, 3, 3, 0.75 / (4 / 9)),
        "car glass": (1, 4, 1, 3, 0.25 / (2 / 9)),
        "wall brick": (3, 4, 2, 2, 0.75 / (3 / 9)),
        "wall metal": (1, 4, 1, 2, 0.25 / (4 / 9)),
        "sky glass": (1, 1, 1, 1, 1 / (2 / 9)),
    }


def test_part_material(knowledge: Knowledge) -> None:
    """Three pixels have both; the glass of A is on no part of its car."""
    assert pixels_of(relations(knowledge, "part-material")) == {
        "car/wheel metal": (1, 1, 1, 1, 1 / (2 / 3)),
        "car/door metal": (1, 1, 1, 1, 1 / (2 / 3)),
    }


def test_material_texture(knowledge: Knowledge) -> None:
    """Three pixels of A have both. One image gives intervals of no width."""
    found = relations(knowledge, "material-texture")
    assert pixels_of(found) == {
        "metal smooth": (1, 1, 1, 1, 3),
        "glass striped": (1, 1, 1, 1, 1.5),
        "brick striped": (1, 1, 1, 1, 1.5),
    }
    assert all((r.low, r.high) == (1, 1) for r in found.values())


def test_concepts_and_answers(knowledge: Knowledge) -> None:
    assert [(c.id, c.task, c.name, c.images, c.pixels) for c in knowledge.concepts] == [
        *((0, "scene", "street", 2, 0), (1, "scene", "kitchen", 1, 0)),
        *((2, "object", "car", 4, 8), (3, "object", "wall", 2, 4), (4, "object", "sky", 1, 3)),
        *((5, "part", "car/wheel", 2, 3), (6, "part", "car/door", 2, 2)),
        *((7, "material", "metal", 3, 4), (8, "material", "glass", 2, 2), (9, "material", "brick", 2, 3)),
        *((10, "texture", "striped", 1, 2), (11, "texture", "smooth", 1, 2)),
    ]
    shares = {c.name: c.share for c in knowledge.concepts}
    assert (shares["street"], shares["car"], shares["car/door"]) == (2 / 3, 8 / 15, 2 / 7)
    assert knowledge.answers["part"] == {"annotated": 3, "predicted": 0}
    assert knowledge.answers["scene"] == {"annotated": 3, "predicted": 0}
    assert (knowledge.images, knowledge.skipped, knowledge.model) == (4, 0, "")
    assert knowledge.settings == {
        "min_area": 0,
        "min_part_area": 0,
        "min_share": 0.3,
        "min_pixel_share": 0.1,
        "top": 3,
        "min_images": 5,
        "replicates": 100,
    }


def test_relations_are_in_order(knowledge: Knowledge) -> None:
    kinds = [kind.name for kind in RELATIONS]
    keys = [(kinds.index(r.kind), r.source, -r.share, r.target) for r in knowledge.relations]
    assert keys == sorted(keys)


def test_images_that_cannot_be_read_are_skipped(knowledge: Knowledge) -> None:
    broken = Observation.failed(VOCABULARY, "x.jpg: damaged")
    assert known([A, B, C, D, broken, broken]) == replace(knowledge, skipped=2)


def test_no_image_gives_no_knowledge() -> None:
    found = known([])
    assert (found.images, found.concepts, found.relations) == (0, (), ())


def test_chunks_and_order_do_not_matter() -> None:
    images = [at_random(f"{i}") for i in range(150)]
    whole = known(images)
    assert known(images, block=1) == whole
    assert known(images, block=67) == whole


def literal(
    images: Sequence[Maps], least: float, least_part: float
) -> dict[str, dict[tuple[str, str], tuple[Any, ...]]]:
    """Relation → (source, target) → counts and lift, image by image and pixel by pixel."""
    found: dict[str, dict[tuple[str, str], tuple[Any, ...]]] = {}
    for kind in RELATIONS:
        both, given, base, both_images, given_images = Counter(), Counter(), Counter(), Counter(), Counter()
        total = 0
        for image in images:
            if kind.source not in image or kind.target not in image:
                continue
            target = np.asarray(image[kind.target])
            source = np.broadcast_to(np.asarray(image[kind.source]), target.shape)
            pixels = [
                (CLASSES[kind.source][s], CLASSES[kind.target][t])
                for s, t in zip(source.flat, target.flat, strict=True)
                if s >= 0 and t >= 0
            ]
            pairs = Counter(pixels)
            for pair in pairs:
                both_images[pair] += 1
            for one in {one for one, _ in pairs}:
                given_images[one] += 1
            if kind.basis == "pixels":
                both += pairs
                given += Counter(one for one, _ in pixels)
                base += Counter(other for _, other in pixels)
                total += len(pixels)
            elif pairs:
                total += 1
                if kind.source == "scene":
                    there = {t for t, n in Counter(t for _, t in pixels).items() if n / target.size >= least}
                    given.update({pixels[0][0]})
                    base.update(there)
                    both.update((pixels[0][0], t) for t in there)
                else:
                    areas = Counter(CLASSES["object"][s] for s in source.flat if s >= 0)
                    told = {s for s, _ in pairs if areas[s] / target.size >= least}
                    given.update(told)
                    parts = Counter(t for _, t in pixels)
                    base.update(t for t, n in parts.items() if n / target.size >= least_part)
                    both.update(
                        (s, t)
                        for (s, t), n in pairs.items()
                        if s in told and t.startswith(f"{s}/") and n / target.size >= least_part
                    )
        found[kind.name] = {
            (s, t): (
                *((n, given[s]) if kind.basis == "images" else (both_images[s, t], given_images[s], n, given[s])),
                pytest.approx(n / given[s] / (base[t] / total), rel=1e-12),
            )
            for (s, t), n in both.items()
            if not s.endswith("/-") and not t.endswith("/-")
        }
    return found


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.sampled_from([0, 0.1, 0.25]), st.sampled_from([0, 0.1]))
def test_streaming_counts_what_a_literal_computation_counts(seed: int, count: int, least: float, part: float) -> None:
    images = [at_random(f"{seed}/{i}") for i in range(count)]
    images = [image for image in images if any(np.ndim(value) == 2 for value in image.values())]
    found = known(images, Thresholds(min_area=least, min_part_area=part), block=5, replicates=10)
    names = [concept.name for concept in found.concepts]
    told: dict[str, dict[tuple[str, str], tuple[Any, ...]]] = {kind.name: {} for kind in RELATIONS}
    for r in found.relations:
        counts = (r.images, r.source_images) + ((r.pixels, r.source_pixels) if r.basis == "pixels" else ())
        told[r.kind][names[r.source], names[r.target]] = (*counts, r.lift)
    assert told == literal(images, least, part)


def test_intervals_are_those_of_a_bootstrap_over_images() -> None:
    """The same, with every image's maps repeated as often as it is drawn."""
    from upernet.engine.knowledge.intervals import bootstrap_weights

    images = [at_random(f"{i}", unknown=0) for i in range(9)]
    weights = bootstrap_weights([f"image {i}" for i in range(9)], 60)
    shares: dict[str, list[float]] = {}
    for column in weights.T:
        drawn = [image for image, times in zip(images, column, strict=True) for _ in range(times)]
        found = relations(known(drawn, replicates=1), "object-material")
        totals = {name.split()[0]: r.source_pixels for name, r in found.items()}
        for source in totals:
            for target in CLASSES["material"]:
                name = f"{source} {target}"
                shares.setdefault(name, []).append(found[name].share if name in found else 0.0)
    for name, r in relations(known(images, replicates=60), "object-material").items():
        ends = np.quantile(shares[name], (0.025, 0.975))
        assert (r.low, r.high) == (pytest.approx(min(ends[0], r.share)), pytest.approx(max(ends[1], r.share)))
