"""The order in which a mixture visits the images of a source: random, endless, and known at every place in advance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np


class Visits:
    """The batches of one source, each of images of one kind.

    A round visits every image once, in an order of its own, and rounds follow one another. The images of each kind,
    taken in this order, make the batches of the kind; a batch comes as soon as its last image has been visited. An
    image that is left over at the end of a round thus joins the first batch of its kind in the next, as in the authors'
    code. Where all images are of one kind, batches simply follow the order.

    Every batch is a pure function of the arguments and its number, so that a run can be resumed at any step.
    """

    def __init__(self, key: Sequence[int], kinds: Sequence[int], size: int):
        """Count the images of each kind.

        Args:
            key: Numbers ≥ 0 that seed the orders.
            kinds: Kind of each of the N images, small numbers ≥ 0.
            size: Number of images of a batch.
        """
        self.key, self.kinds, self.size = tuple(key), np.asarray(kinds), size
        self.counts: list[int] = np.bincount(self.kinds).tolist()

    def batch(self, number: int) -> Iterator[tuple[int, int]]:
        """The images of a batch, then those that follow in the order of its kind, without end.

        Args:
            number: Of the batch, from 0.

        Yields:
            Place in the order of all rounds, and index of the image.
        """
        kind, chunk = self._chunk(number)
        visit = chunk * self.size
        while True:
            round_, rest = divmod(visit, self.counts[kind])
            order = self._order(round_)
            for place in self._places(order, kind)[rest:]:
                yield round_ * len(order) + int(place), int(order[place])
                visit += 1

    def _chunk(self, number: int) -> tuple[int, int]:
        """The kind of a batch, and its number among the batches of this kind."""
        round_ = number * self.size // len(self.kinds)  # no batch of this number comes in an earlier round
        while self._finished(round_ + 1) <= number:
            round_ += 1
        order = self._order(round_)
        kinds, chunks, lasts = [], [], []
        for kind, count in enumerate(self.counts):
            own = np.arange(round_ * count // self.size, (round_ + 1) * count // self.size)
            kinds.append(np.full(len(own), kind))
            chunks.append(own)
            lasts.append(self._places(order, kind)[(own + 1) * self.size - 1 - round_ * count])
        found = np.concatenate(lasts).argsort()[number - self._finished(round_)]
        return int(np.concatenate(kinds)[found]), int(np.concatenate(chunks)[found])

    def _finished(self, rounds: int) -> int:
        """Number of batches that are complete after so many rounds."""
        return sum(rounds * count // self.size for count in self.counts)

    def _order(self, round_: int) -> np.ndarray:
        return _order(self.key, round_, len(self.kinds))

    def _places(self, order: np.ndarray, kind: int) -> np.ndarray:
        """The places of a round at which images of a kind are visited."""
        return np.flatnonzero(self.kinds[order] == kind)


@lru_cache(maxsize=64)
def _order(key: tuple[int, ...], round_: int, count: int) -> np.ndarray:
    """The order in which a round visits a source's images, as indices."""
    return np.random.default_rng([*key, round_]).permutation(count)
