"""Class tables, and what a source's labels stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from upernet.errors import UserError
from upernet.labels import IGNORE, ClassSets, Labels, UnmappedLabels, distinct_colours

CLASSES = Labels.of(["other", "car", "bus", "sky", "tree"])


def sets_of(table: dict[str, str | list[str] | None]) -> ClassSets:
    return ClassSets.of(list(table), CLASSES, table)


# --- tables of classes ----------------------------------------------------------------------------------------------


def test_names_get_colours_of_their_own() -> None:
    labels = Labels.of(["a", "b", "c"])
    assert labels.names == ("a", "b", "c")
    assert len(labels) == len(set(labels.colours)) == 3
    assert labels.index("c") == 2


def test_colours_are_read() -> None:
    labels = Labels.of({"sky": "#87ceeb", "Road": "#0A0bFf"})
    assert labels == Labels(("sky", "Road"), ((0x87, 0xCE, 0xEB), (0x0A, 0x0B, 0xFF)))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (["a", "b", "a"], "class 'a' is named twice"),
        ([], "at least one name"),
        ("voc", r"'voc' is not a list of class names; for example \['sky', 'car'\]"),
        ({"sky": "blue"}, "class 'sky': 'blue' is not a colour; for example '#4682b4'"),
        ({"sky": "#12345"}, "'#12345' is not a colour"),
        ({"sky": "x#4682b4"}, "'x#4682b4' is not a colour"),
        ({"sky": None}, "class 'sky': None is not a colour"),
    ],
)
def test_bad_tables_are_told(spec: list[str] | dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Labels.of(spec)


def test_unknown_class_is_told_with_close_or_valid_names() -> None:
    with pytest.raises(UserError, match=r"unknown class 'trees'; did you mean 'tree'\?"):
        CLASSES.index("trees")
    with pytest.raises(UserError, match=r"unknown class 'zzz'; valid: other, car, bus, sky, tree$"):
        CLASSES.index("zzz")


def test_colours_of_long_lists_are_colours_and_differ() -> None:
    colours = list(distinct_colours(365))
    assert len(set(colours)) == 365
    assert all(0 <= c <= 255 for colour in colours for c in colour)
    assert list(distinct_colours(5)) == colours[:5]


# --- what labels stand for ------------------------------------------------------------------------------------------


def test_labels_that_are_the_classes_themselves() -> None:
    sets = ClassSets.of(CLASSES.names, CLASSES)
    assert sets.labels == sets.group_names == CLASSES.names
    assert sets.groups == ((0,), (1,), (2,), (3,), (4,))
    assert sets.group_of_label.tolist() == [0, 1, 2, 3, 4, IGNORE]


def test_a_class_a_set_and_nothing() -> None:
    sets = sets_of({"auto": "car", "vehicle": ["bus", "car"], "void": None, "nothing": []})
    assert sets.members == ((1,), (1, 2), (), ())
    assert sets.groups == ((1,), (1, 2))
    assert sets.group_names == ("car", "vehicle")
    assert sets.group_of_label.tolist() == [0, 1, IGNORE, IGNORE, IGNORE]


def test_a_label_left_out_stands_for_the_class_of_its_name() -> None:
    sets = ClassSets.of(["sky", "car", "auto"], CLASSES, {"auto": "car"})
    assert sets.members == ((3,), (1,), (1,))


def test_a_table_may_give_a_class_name_another_meaning() -> None:
    assert ClassSets.of(["sky", "car"], CLASSES, {"sky": None}).members == ((), (1,))


def test_labels_of_one_set_share_a_group_named_after_the_first() -> None:
    sets = sets_of({"lorry": ["car", "bus"], "blue": "sky", "van": ["bus", "car"], "heaven": ["sky"], "void": None})
    assert sets.groups == ((1, 2), (3,))
    assert sets.group_names == ("lorry", "sky")
    target = torch.tensor([[0, 1, 2], [3, 4, IGNORE]])
    assert sets.to_groups(target).tolist() == [[0, 1, 0], [1, IGNORE, IGNORE]]


@pytest.mark.parametrize("star", ["*", ["*"]])
def test_star_is_every_class_no_other_label_names(star: str | list[str]) -> None:
    assert sets_of({"background": star, "auto": "car", "heaven": ["sky", "tree"]}).members[0] == (0, 2)


def test_star_beside_a_class_that_others_name_too() -> None:
    """VOC's background: what VOC does not annotate, and what it annotates but we call `other`."""
    assert sets_of({"background": ["*", "other"], "sofa": "other", "car": "car"}).members[0] == (0, 2, 3, 4)
    assert sets_of({"background": ["*"], "sofa": "other", "car": "car"}).members[0] == (2, 3, 4)


def test_star_counts_labels_left_out_of_the_table() -> None:
    assert ClassSets.of(["sky", "background"], CLASSES, {"background": "*"}).members[1] == (0, 1, 2, 4)


@pytest.mark.parametrize(
    ("labels", "table", "message"),
    [
        (["car"], {"cra": "car"}, "maps label 'cra', which the source does not have; did you mean 'car'"),
        (["car"], {"car": "cars"}, "unknown class 'cars'; did you mean 'car'"),
        (["car"], {"car": ["sky", "zzz"]}, "unknown class 'zzz'; valid: other"),
        (["car", "sky", "car"], {}, "the source has two labels named 'car'; names must differ"),
        (["car", "auto"], {}, "1 label is no class of the task: auto; map each to a class, a list of classes, or null"),
        (["auto", "car", "van", "sea"], {"sea": None}, "2 labels are no classes of the task: auto, van; map each to"),
    ],
)
def test_bad_meanings_are_told(labels: list[str], table: dict[str, str | list[str]], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        ClassSets.of(labels, CLASSES, table)
    assert "\n" not in str(caught.value)


def test_all_labels_without_a_meaning_are_known_to_the_caller() -> None:
    with pytest.raises(UnmappedLabels) as caught:
        ClassSets.of(["auto", "car", "van"], CLASSES, {"car": "sky"})
    assert caught.value.labels == ("auto", "van")


def test_a_table_in_which_nothing_means_anything_is_told() -> None:
    with pytest.raises(UserError, match="every label of the source is mapped to null"):
        sets_of({"void": None, "border": []})


def test_255_is_a_class_and_ids_are_64_bit() -> None:
    """Trap: Broden+ has 335 objects; 255 is one of them and an 8-bit map overflows."""
    classes = Labels.of([f"object {i}" for i in range(335)])
    sets = ClassSets.of(classes.names, classes)
    target = torch.tensor([254, 255, 256, 334, IGNORE])
    assert sets.to_groups(target).tolist() == [254, 255, 256, 334, IGNORE]
    assert sets.to_groups(target).dtype == torch.int64
    assert sets.group_of_label.dtype == np.int64


# --- probabilities of groups ----------------------------------------------------------------------------------------


@st.composite
def tables(draw: st.DrawFn) -> tuple[ClassSets, int]:
    """Random sets over random classes, at least one not empty."""
    count = draw(st.integers(1, 7))
    members = draw(st.lists(st.sets(st.integers(0, count - 1)), min_size=1, max_size=6).filter(any))
    classes = Labels.of([f"class {i}" for i in range(count)])
    table = {f"label {i}": [f"class {m}" for m in ids] for i, ids in enumerate(members)}
    return ClassSets.of(list(table), classes, table), draw(st.integers(0, 2**31))


@settings(deadline=None, max_examples=60)
@given(tables())
def test_a_set_has_the_summed_probability_of_its_classes(drawn: tuple[ClassSets, int]) -> None:
    sets, seed = drawn
    logits = torch.randn(2, len(sets.classes), 3, generator=torch.Generator().manual_seed(seed)).double() * 4
    p = logits.softmax(1)
    expected = torch.stack([sum((p[:, c] for c in group), torch.zeros(2, 3)) for group in sets.groups], 1)
    torch.testing.assert_close(sets.probabilities(p), expected)
    torch.testing.assert_close(sets.log_probabilities(logits.log_softmax(1)), expected.log())


@settings(deadline=None, max_examples=60)
@given(tables())
def test_groups_are_the_distinct_sets_in_order_of_first_use(drawn: tuple[ClassSets, int]) -> None:
    sets, _ = drawn
    assert len(set(sets.groups)) == len(sets.groups) == len(sets.group_names)
    for label, members in enumerate(sets.members):
        group = int(sets.group_of_label[label])
        assert (group == IGNORE) == (not members)
        assert not members or sets.groups[group] == members
    first_uses = [sets.members.index(group) for group in sets.groups]
    assert first_uses == sorted(first_uses)


def test_an_impossible_class_leaves_a_set_finite() -> None:
    sets = sets_of({"vehicle": ["car", "bus"], "sky": "sky"})
    logits = torch.tensor([[0.0, -1e4, -1e4, 0.0, 0.0]], requires_grad=True)
    log_p = sets.log_probabilities(logits.log_softmax(1))
    log_p[0, 0].backward()
    assert log_p.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
