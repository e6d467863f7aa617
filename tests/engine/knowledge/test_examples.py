"""Which images are examples, and their thumbnails and regions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn import VOCABULARY, Maps, at_random, named, seen

from upernet.engine.knowledge.examples import Best, ExampleFiles, example_file, write_example
from upernet.engine.knowledge.findings import Concept
from upernet.engine.knowledge.observation import Answer, Origin

CAR, WALL, STREET, KITCHEN = ("object", 0), ("object", 1), ("scene", 0), ("scene", 1)


def test_the_largest_shares_win_and_ties_go_by_name() -> None:
    best = Best(2, VOCABULARY)
    half, whole = named("object", "car wall"), named("object", "car car")
    assert best.offer(0, "c", seen({"object": half})) == ([CAR, WALL], [])
    assert best.offer(1, "b", seen({"object": half})) == ([CAR, WALL], [])
    assert best.offer(2, "d", seen({"object": half})) == ([], [])
    assert best.offer(3, "a", seen({"object": half})) == ([CAR, WALL], [0])
    assert best.offer(4, "z", seen({"object": whole})) == ([CAR], [])
    assert best.ranked(CAR) == [(1.0, "z", 4), (0.5, "a", 3)]
    assert best.ranked(WALL) == [(0.5, "a", 3), (0.5, "b", 1)]
    assert best.ranked(STREET) == []


def test_an_image_of_a_scene_shows_it_entirely() -> None:
    best = Best(3, VOCABULARY)
    best.offer(5, "b", seen({"scene": 0, "object": named("object", "? sky")}))
    best.offer(6, "a", seen({"scene": 0, "object": named("object", "? ?")}))
    assert best.ranked(STREET) == [(1.0, "a", 6), (1.0, "b", 5)]


def test_no_part_has_no_examples_and_none_may_be_wanted() -> None:
    observation = seen({"object": named("object", "car car"), "part": named("part", "- wheel")})
    assert Best(1, VOCABULARY).offer(0, "a", observation)[0] == [CAR, ("part", 1)]
    assert Best(0, VOCABULARY).offer(0, "a", observation) == ([], [])


def test_the_best_of_all_are_among_the_best_of_each_share() -> None:
    """So several processes may keep those of their own images only, in whatever order."""
    images = [(i, f"image {i % 7}", seen(at_random(f"{i}", unknown=0))) for i in range(60)]
    whole = Best(3, VOCABULARY)
    kept: set[int] = set()
    for part in (images[::2], images[:0:-2]):
        own = Best(3, VOCABULARY)
        for image in part:
            taken, dropped = own.offer(*image)
            kept |= {image[0]} if taken else set()
            kept -= set(dropped)
    for image in images:
        whole.offer(*image)
    concepts = [(t, i) for t, labels in VOCABULARY.labels.items() for i in range(len(labels))]
    wanted = {number for concept in concepts for _, _, number in whole.ranked(concept)}
    assert wanted
    assert wanted <= kept
    assert len(kept) <= 2 * 3 * len(concepts)


@pytest.mark.parametrize(
    ("size", "small"),
    [((40, 60), (40, 60)), ((160, 100), (160, 100)), ((320, 200), (160, 100)), ((100, 481), (33, 160))],
)
def test_thumbnails_keep_the_aspect(tmp_path: Path, size: tuple[int, int], small: tuple[int, int]) -> None:
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[:, : size[1] // 2] = (200, 100, 50)
    objects = np.full(size, -1)
    objects[:, : size[1] // 2] = 0
    example = _written(tmp_path, pixels, {"object": objects}, CAR)
    assert (example.thumbnail.shape, example.thumbnail.dtype) == ((*small, 3), np.uint8)
    assert example.region is not None
    assert (example.region.shape, example.region.dtype) == (small, bool)
    assert example.thumbnail[0, 0].tolist() == [200, 100, 50]
    assert example.region[:, : small[1] // 2].all()
    assert not example.region[:, small[1] // 2 + 1 :].any()


def test_what_covers_less_than_half_a_pixel_everywhere_is_still_shown(tmp_path: Path) -> None:
    objects = np.full((480, 640), -1)
    objects[100, 200] = 0
    example = _written(tmp_path, np.zeros((480, 640, 3), np.uint8), {"object": objects}, CAR)
    assert example.region is not None
    assert np.argwhere(example.region).tolist() == [[25, 50]]


def test_a_scene_has_no_region(tmp_path: Path) -> None:
    example = _written(tmp_path, np.zeros((4, 4, 3), np.uint8), {"scene": 1}, KITCHEN)
    assert example.region is None
    assert example.share == 1


def test_concepts_without_a_file_are_no_keys(tmp_path: Path) -> None:
    concepts = [Concept(i, "object", "x", (0, 0, 0), 1, 1, 1.0) for i in range(2)]
    best = Best(1, VOCABULARY)
    best.offer(7, "a", seen({"object": named("object", "car wall")}))
    files = ExampleFiles(concepts, {0: CAR, 1: WALL}, best, tmp_path)
    assert (list(files), len(files), 0 in files) == ([], 0, False)
    with pytest.raises(KeyError):
        files[0]


def _written(folder: Path, pixels: np.ndarray, maps: Maps, concept: tuple[str, int]):  # type: ignore[no-untyped-def]
    answers = {task: Answer(Origin.ANNOTATED, value) for task, value in maps.items()}
    write_example(example_file(folder, 3), pixels, answers, [concept])
    best = Best(1, VOCABULARY)
    blank = {"object": np.full(pixels.shape[:2], -1)}
    best.offer(3, "name", seen(blank | dict(maps)))
    (example,) = ExampleFiles([Concept(9, concept[0], "x", (0, 0, 0), 1, 1, 1.0)], {9: concept}, best, folder)[9]
    assert (example.concept, example.image) == (9, "name")
    return example
