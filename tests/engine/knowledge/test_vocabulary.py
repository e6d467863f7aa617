"""Which classes are concepts, whose a part is, and which relations there are."""

from __future__ import annotations

from drawn import CLASSES, tasks
from refusals import told_by

from upernet.engine.knowledge.findings import RELATIONS
from upernet.engine.knowledge.vocabulary import Vocabulary
from upernet.labels import Labels
from upernet.tasks import Object, Scene, Semantic


def test_tasks_are_in_the_order_of_the_paper_and_others_follow() -> None:
    found = Vocabulary.of({"crack": Semantic(labels=["a"])} | tasks() | {"helper": Scene(labels=["x"], auxiliary=True)})
    assert found.tasks == ("scene", "object", "part", "material", "texture", "crack")
    assert found.maps == {"object", "part", "material", "texture", "crack"}
    assert found.relations == RELATIONS


def test_relations_need_both_tasks_and_a_scene_that_is_one() -> None:
    assert Vocabulary.of({"object": Object(labels=["a"]), "semantic": Semantic(labels=["b"])}).relations == ()
    some = {"object": Object(labels=["a"]), "material": Semantic(labels=["b"])}
    assert [kind.name for kind in Vocabulary.of(some).relations] == ["object-material"]
    odd = {"scene": Semantic(labels=["a"]), "object": Object(labels=["b"])}
    assert Vocabulary.of(odd).relations == ()


def test_no_part_and_unlabelled_are_no_concepts() -> None:
    found = Vocabulary.of(tasks())
    assert [n for n, is_one in zip(CLASSES["part"], found.concepts["part"], strict=True) if not is_one] == [
        "car/-",
        "wall/-",
    ]
    unlabelled = Vocabulary.of({"object": Object(labels=["-", "car", "other"])}, ["other"])
    assert unlabelled.answers["object"].tolist() == [-1, 1, -1, -1]
    assert found.answers["part"].tolist() == [0, 1, 2, 3, 4, -1]


def test_a_name_that_is_no_text_becomes_text() -> None:
    """A lone surrogate, which the YAML of a model may hold and UTF-8 does not."""
    assert Vocabulary.of({"object": Object(labels=["a\ud800", "é"])}).labels["object"].names == ("a\\ud800", "é")


def test_a_class_that_nobody_has_is_told() -> None:
    line = told_by(lambda: Vocabulary.of(tasks(), ["metall"]))
    assert line == "--ignore metall: no task has this class; valid: metal, wall"


def test_a_part_belongs_to_the_object_of_the_longest_name() -> None:
    objects = Labels.of(["car", "tv", "tv/screen"])
    parts = Labels.of(["car/door", "tv/leg", "tv/screen/-", "tv/screen/edge", "wheel", "cart/wheel"])
    found = Vocabulary({"object": objects, "part": parts}, frozenset({"object", "part"}), frozenset())
    assert found.owners.tolist() == [0, 1, 2, 2, -1, -1]
