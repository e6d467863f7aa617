"""What one image tells, counted by hand on maps of 2×2 pixels."""

from __future__ import annotations

import numpy as np
import pytest
from drawn import VOCABULARY, at_random, named, seen, tasks

import upernet.engine.knowledge.observation as observation
from upernet.engine.knowledge.observation import Answer, Observation, Origin, observe
from upernet.engine.knowledge.vocabulary import Vocabulary

SCENE, OBJECT, PART, MATERIAL, TEXTURE = range(5)
OBJECT_PART, OBJECT_MATERIAL, PART_MATERIAL, MATERIAL_TEXTURE = range(1, 5)


def test_classes_and_pairs_are_counted() -> None:
    found = observe(
        4,
        {
            "scene": Answer(Origin.PREDICTED, 1),
            "object": Answer(Origin.ANNOTATED, named("object", "car car | wall ?")),
            "part": Answer(Origin.PREDICTED, named("part", "wheel - | ? ?")),
            "material": Answer(Origin.ANNOTATED, named("material", "metal metal | brick glass")),
        },
        VOCABULARY,
    )
    assert found.size == 4
    assert found.origins.tolist() == [
        Origin.PREDICTED,
        Origin.ANNOTATED,
        Origin.PREDICTED,
        Origin.ANNOTATED,
        Origin.NONE,
    ]
    assert found.classes.tolist() == [
        [SCENE, 1, 0],
        *([OBJECT, 0, 2], [OBJECT, 1, 1]),
        *([PART, 0, 1], [PART, 1, 1]),
        *([MATERIAL, 0, 2], [MATERIAL, 1, 1], [MATERIAL, 2, 1]),
    ]
    assert found.pairs.tolist() == [
        *([OBJECT_PART, 0, 0, 1], [OBJECT_PART, 0, 1, 1]),
        *([OBJECT_MATERIAL, 0, 0, 2], [OBJECT_MATERIAL, 1, 2, 1]),
        *([PART_MATERIAL, 0, 0, 1], [PART_MATERIAL, 1, 0, 1]),
    ]


def test_what_is_unknown_everywhere_has_no_origin() -> None:
    found = seen({"scene": -1, "object": named("object", "? ? | ? ?"), "material": named("material", "? glass | ? ?")})
    assert found.origins.tolist() == [0, 0, 0, Origin.ANNOTATED, 0]
    assert found.classes.tolist() == [[MATERIAL, 1, 1]]
    assert found.pairs.shape == (0, 4)


def test_classes_that_say_nothing_are_unknown() -> None:
    ignoring = Vocabulary.of(tasks(), ["wall", "metal", "street"])
    maps = {"scene": 0, "object": named("object", "car wall"), "material": named("material", "metal glass")}
    assert seen(maps, ignoring).classes.tolist() == [[OBJECT, 0, 1], [MATERIAL, 1, 1]]
    assert seen(maps, ignoring).pairs.shape == (0, 4)
    assert seen(maps, ignoring).origins[SCENE] == Origin.NONE


def test_large_images_are_counted_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [seen(at_random(f"{i}", unknown=0)) for i in range(5)]
    monkeypatch.setattr(observation, "SLICE", 37)
    for i, one in enumerate(whole):
        other = seen(at_random(f"{i}", unknown=0))
        assert (one.classes.tolist(), one.pairs.tolist()) == (other.classes.tolist(), other.pairs.tolist())


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.int64])
def test_maps_of_every_integer_type_are_read(kind: type) -> None:
    maps = {task: np.asarray(value, kind) for task, value in at_random("a", unknown=0).items() if task != "scene"}
    assert seen(maps).pairs.tolist() == seen({k: v.astype(np.int64) for k, v in maps.items()}).pairs.tolist()


def test_an_image_that_cannot_be_read_tells_nothing() -> None:
    found = Observation.failed(VOCABULARY, "x.jpg: damaged")
    assert (found.size, found.origins.tolist(), found.fault) == (0, [0] * 5, "x.jpg: damaged")
    assert (found.classes.shape, found.pairs.shape) == ((0, 3), (0, 4))
