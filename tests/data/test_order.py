"""The order of a source's batches: every image in turn, each batch of one kind, known at any place."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from upernet.data.order import Visits


def batches(visits: Visits, count: int) -> list[list[tuple[int, int]]]:
    return [list(islice(visits.batch(number), visits.size)) for number in range(count)]


def simulated(key: tuple[int, ...], kinds: list[int], size: int, count: int) -> list[list[int]]:
    """The same in the authors' way: walk through the rounds, and hand a kind's images out once there are enough."""
    waiting: dict[int, list[int]] = {}
    found: list[list[int]] = []
    round_ = 0
    while len(found) < count:
        for image in np.random.default_rng([*key, round_]).permutation(len(kinds)).tolist():
            own = waiting.setdefault(kinds[image], [])
            own.append(image)
            if len(own) == size:
                found.append(own[:])
                own.clear()
        round_ += 1
    return found[:count]


@settings(deadline=None, max_examples=80)
@given(kinds=st.lists(st.integers(0, 1), min_size=1, max_size=12), size=st.integers(1, 5), seed=st.integers(0, 99))
def test_batches_are_those_of_the_authors_procedure(kinds: list[int], size: int, seed: int) -> None:
    """Any mix of kinds, batches larger than a kind or than the source included."""
    made = batches(Visits([seed, 2, 0], kinds, size), 12)
    assert [[image for _, image in batch] for batch in made] == simulated((seed, 2, 0), kinds, size, 12)
    places = [place for batch in made for place, _ in batch]
    assert len(set(places)) == len(places)  # each visit is in one batch
    assert all(len({kinds[image] for _, image in batch}) == 1 for batch in made)


def test_every_image_is_seen_once_in_a_round_but_for_those_left_over() -> None:
    """Seven images of one kind and five of the other, two a batch: one of each kind waits for the next round."""
    kinds = [0] * 7 + [1] * 5
    seen = Counter(image for batch in batches(Visits([0], kinds, 2), 5) for _, image in batch)
    assert (len(seen), set(seen.values())) == (10, {1})
    two_rounds = Counter(image for batch in batches(Visits([0], kinds, 2), 12) for _, image in batch)
    assert set(two_rounds.values()) == {2}


def test_images_of_one_kind_follow_the_order() -> None:
    visits = Visits([3, 2, 1], [0] * 5, 2)
    order = np.random.default_rng([3, 2, 1, 0]).permutation(5).tolist()
    assert batches(visits, 2) == [[(0, order[0]), (1, order[1])], [(2, order[2]), (3, order[3])]]


def test_after_a_batch_come_the_next_of_its_kind() -> None:
    kinds = [0, 1] * 6
    visits = Visits([0], kinds, 2)
    ((first, *_),) = batches(visits, 1)
    longer = [image for _, image in islice(visits.batch(0), 6)]
    assert {kinds[image] for image in longer} == {kinds[first[1]]}
    assert len(set(longer)) == 6
