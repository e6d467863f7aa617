"""The limit on the work that one pickle may cause."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

from upernet.store.archives.descriptions import RefusedError

PICKLE_STEPS = 1_000_000
"""Most instructions of one pickle, and elements that they copy: memory grows with these, not with bytes. A training
checkpoint with its optimiser takes about a tenth."""
COLLISIONS = 32
"""How many comparisons of two keys count as one step."""
KEY_PARTS = 1000
"""Most elements of a tuple that is a key: hashing visits each element as often as it occurs."""


class Budget:
    """The steps that are left to one pickle."""

    def __init__(self) -> None:
        self.steps = PICKLE_STEPS

    def spend(self, steps: int) -> None:
        """Use up some of the steps.

        Raises:
            RefusedError: If fewer are left.
        """
        self.steps -= steps
        if self.steps < 0:
            raise RefusedError(f"its pickle takes more than {PICKLE_STEPS} steps; it may be hostile")

    def key(self, value: Any, others: Sized) -> Any:
        """Spend the steps that it may take to hash a key and to compare it with the other keys, and return the key.

        Text is hashed with a secret, and numbers that count up all differ in their hash. Any other key may have been
        chosen to collide with every key before it. Python hashes nested tuples anew each time, however deep they are.

        Args:
            value: The key.
            others: The set or dict that it is for, with the keys before it.

        Raises:
            RefusedError: If the key has too many parts, or too few steps are left.
        """
        if type(value) in (str, bytes) or (type(value) is int and 0 <= value <= len(others) + 1):
            return value
        waiting, parts = [value], 1
        while waiting:
            item = waiting.pop()
            if type(item) in (tuple, frozenset):
                parts += 1 + len(item)
                if parts > KEY_PARTS:
                    raise RefusedError(f"holds a key of more than {KEY_PARTS} parts; it may be hostile")
                waiting.extend(item)
        self.spend(parts * (1 + len(others) // COLLISIONS))
        return value

    def add_keys(self, target: set[Any], values: list[Any]) -> set[Any]:
        """Add values to a set, spend the steps for them, and return the set."""
        for value in values:
            target.add(self.key(value, target))
        return target
