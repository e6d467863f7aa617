"""What one pickle may cost."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

from upernet.store.archives.descriptions import RefusedError

PICKLE_STEPS = 1_000_000
"""Most instructions of one pickle, and elements copied by them: they, not bytes, are what memory grows with. A training
checkpoint with its optimiser takes about a tenth."""
COLLISIONS = 32
"""Comparisons of two keys that count as one step."""
KEY_PARTS = 1000
"""Most elements of a tuple used as a key: hashing visits each as often as it occurs."""


class Budget:
    """The steps that are left to one pickle."""

    def __init__(self) -> None:
        self.steps = PICKLE_STEPS

    def spend(self, steps: int) -> None:
        """Take so many steps.

        Raises:
            RefusedError: If not as many are left.
        """
        self.steps -= steps
        if self.steps < 0:
            raise RefusedError(f"its pickle takes more than {PICKLE_STEPS} steps; it may be hostile")

    def key(self, value: Any, others: Sized) -> Any:
        """The value, once the steps are spent that hashing it and comparing it with the other keys may take.

        Text is hashed with a secret and numbers that count up all differ in their hash; any other key may have been
        chosen to collide with each one before it. Nested tuples are hashed anew each time, without a limit.
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
        """The set, once the values are paid for and in it."""
        for value in values:
            target.add(self.key(value, target))
        return target
