from __future__ import annotations

import itertools
import random
from dataclasses import replace
from pathlib import Path

import pytest
from small_knowledge import SMALL, relation, renamed, without

from upernet.engine.knowledge.figure import (
    HIGHEST,
    PALETTE,
    arrange,
    scene_object_figure,
    write_figure,
)
from upernet.engine.knowledge.findings import Concept, Knowledge


def blocks(scenes: int, objects: int, seed: int) -> tuple[Knowledge, dict[int, int]]:
    """Two kinds of places: a scene has the objects of its own kind often and others rarely; names in random order."""
    kinds = {i: i % 2 for i in range(scenes + objects)}
    concepts = [
        Concept(i, "scene" if i < scenes else "object", f"n{i}", (0, 0, 0), 40, 0, 0.1) for i in range(scenes + objects)
    ]
    draw = random.Random(seed)
    edges = [
        relation("scene-object", s, o, draw.uniform(0.7, 0.9) if kinds[s] == kinds[o] else draw.uniform(0.05, 0.15))
        for s in range(scenes)
        for o in range(scenes, scenes + objects)
    ]
    return replace(SMALL, concepts=tuple(concepts), relations=tuple(edges)), kinds


def changes(values: list[int]) -> int:
    return sum(a != b for a, b in itertools.pairwise(values))


@pytest.mark.parametrize(("scenes", "objects"), [(6, 4), (31, 20)])
def test_scenes_with_similar_objects_stand_together_and_objects_stand_beside_their_scenes(
    scenes: int, objects: int
) -> None:
    knowledge, kinds = blocks(scenes, objects, seed=3)
    order = arrange(knowledge)
    assert sorted(order.scenes) == list(range(scenes))
    assert changes([kinds[id] for id in order.scenes]) == 1
    assert [kinds[id] for id in order.objects] == [kinds[order.scenes[0]]] * (objects // 2) + [
        kinds[order.scenes[-1]]
    ] * (objects // 2)
    # A group holds scenes of one kind only, and its scenes stand together.
    kind_of_group = {group: kinds[id] for id, group in zip(order.scenes, order.groups, strict=True)}
    assert [kind_of_group[group] for group in order.groups] == [kinds[id] for id in order.scenes]
    assert list(order.groups) == sorted(order.groups)
    assert 2 <= len(kind_of_group) <= len(PALETTE)


def test_the_order_does_not_depend_on_the_order_of_the_relations() -> None:
    knowledge, _ = blocks(12, 9, seed=5)
    shuffled = list(knowledge.relations)
    random.Random(1).shuffle(shuffled)
    assert arrange(replace(knowledge, relations=tuple(shuffled))) == arrange(knowledge)


def nodes(figure) -> dict[int, str]:
    """Concept's id → the text beside its node."""
    drawn = [trace for trace in figure.data if trace.customdata is not None]
    return {int(id): text for trace in drawn for id, text in zip(trace.customdata, trace.text, strict=True)}


def edges_drawn(figure) -> int:
    return sum(list(trace.x).count(None) for trace in figure.data if trace.mode == "lines")


@pytest.mark.parametrize(
    ("least", "edges", "shown"),
    [(0.0, 4, [0, 1, 2, 3]), (0.6, 3, [0, 1, 2, 3]), (0.7, 2, [0, 1, 2, 3]), (0.85, 1, [1, 3])],
)
def test_edges_below_the_threshold_and_nodes_without_an_edge_are_dropped(
    least: float, edges: int, shown: list[int]
) -> None:
    figure = scene_object_figure(SMALL, least)
    assert edges_drawn(figure) == edges
    assert sorted(nodes(figure)) == shown


def test_a_line_ends_at_its_scene_and_its_object_and_is_thicker_for_a_larger_likelihood() -> None:
    street_wall, garage_wall = SMALL.relations[1:3]
    assert (street_wall.share, garage_wall.share) == (0.6, 0.9)
    figure = scene_object_figure(replace(SMALL, relations=(street_wall, garage_wall)), 0)
    ends = {}
    for trace in figure.data:
        if trace.customdata is not None:
            ends |= dict(zip(trace.customdata, zip(trace.x, trace.y, strict=True), strict=True))
    weak, strong = (trace for trace in figure.data if trace.mode == "lines")
    assert weak.line.width < strong.line.width and weak.opacity < strong.opacity
    for trace, scene in ((weak, 0), (strong, 1)):
        assert (trace.x[0], trace.y[0]) == ends[scene] and ends[scene][0] == 0
        assert (trace.x[-2], trace.y[-2]) == ends[3] and ends[3][0] == 1


def test_every_name_is_beside_its_node_until_there_are_too_many_for_the_figure() -> None:
    few, _ = blocks(10, 10, seed=1)
    assert all(nodes(scene_object_figure(few, 0.5)).values())
    many, _ = blocks(1200, 4, seed=1)
    figure = scene_object_figure(many, 0.5)
    names = [text for id, text in nodes(figure).items() if id < 1200]
    assert figure.layout.height < HIGHEST + 100
    assert 0 < sum(map(bool, names)) <= HIGHEST / 9
    assert all(text for id, text in nodes(figure).items() if id >= 1200)


def test_names_are_text_and_no_tags() -> None:
    odd = renamed(SMALL, ["<b>a</b>", "R&D_room", "x" * 50, *(f"n{i}" for i in range(3, 8))])
    figure = scene_object_figure(odd, 0)
    texts = {id: text.strip("\u00a0") for id, text in nodes(figure).items()}
    assert texts[0] == "&lt;b&gt;a&lt;/b&gt;"
    assert texts[1] == "R&amp;D room"
    assert texts[2].endswith("x…") and len(texts[2]) < 30
    assert "&lt;b&gt;a" in "".join(text for trace in figure.data for text in trace.hovertext or ())


@pytest.mark.parametrize("knowledge", [without(SMALL, "scene"), without(SMALL, "object"), replace(SMALL, relations=())])
def test_without_an_edge_the_figure_says_so(knowledge: Knowledge) -> None:
    figure = scene_object_figure(knowledge, 0.3)
    assert len(figure.data) == 0
    assert "No scene and object" in figure.layout.annotations[0].text


def test_the_file_is_the_same_each_time_and_holds_all_it_needs(tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        write_figure(tmp_path / name, SMALL, 0.3)
    text = (tmp_path / "a.html").read_text()
    assert text == (tmp_path / "b.html").read_text()
    assert "<script src" not in text and len(text) > 3_000_000
    assert '"format":"svg"' in text.replace(" ", "")
