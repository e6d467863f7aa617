"""The classes that visual knowledge speaks of: which are concepts, and which part belongs to which object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property

import numpy as np

from upernet.contract import Task
from upernet.engine.knowledge.findings import RELATIONS, RelationKind
from upernet.errors import UserError
from upernet.labels import IGNORE, NO_PART, Labels

ORDER = tuple(dict.fromkeys(task for kind in RELATIONS for task in (kind.source, kind.target)))
"""The tasks of the relations: scene, object, part, material, texture."""


@dataclass(frozen=True)
class Vocabulary:
    """The tasks and their classes.

    Attributes:
        labels: Task → its classes; those of the five tasks of the relations first, in the order of the paper.
        maps: Names of the tasks that answer with a label map. The others answer once per image.
        ignored: Names of classes that say nothing, such as `other`: what has one of them counts as unknown.
    """

    labels: dict[str, Labels]
    maps: frozenset[str]
    ignored: frozenset[str]

    @classmethod
    def of(cls, tasks: Mapping[str, Task], ignored: Iterable[str] = ()) -> Vocabulary:
        """The vocabulary of tasks, auxiliary ones left out.

        Args:
            tasks: The tasks by name.
            ignored: Names of further classes that say nothing; `-` never does.

        Raises:
            UserError: If one of them is no class of a task.
        """
        asked = {name: task for name, task in tasks.items() if not task.auxiliary}
        names = [*(name for name in ORDER if name in asked), *(name for name in asked if name not in ORDER)]
        labels = {n: replace(asked[n].classes, names=tuple(map(as_text, asked[n].classes.names))) for n in names}
        known = sorted({name for one in labels.values() for name in one.names})
        if unknown := [name for name in ignored if name not in known]:
            near = get_close_matches(unknown[0], known, n=3) or known[:8]
            raise UserError(f"--ignore {unknown[0]}: no task has this class; valid: {', '.join(near)}")
        return cls(labels, frozenset(n for n in names if asked[n].maps), frozenset(ignored) | {NO_PART})

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in their order."""
        return tuple(self.labels)

    @cached_property
    def relations(self) -> tuple[RelationKind, ...]:
        """Those of `RELATIONS` whose tasks are there and answer as the relation needs: a scene once, others by maps."""
        return tuple(
            kind
            for kind in RELATIONS
            if kind.source in self.labels and kind.target in self.maps and self.is_map(kind.source) != is_scene(kind)
        )

    def is_map(self, task: str) -> bool:
        """Whether the task answers with a label map."""
        return task in self.maps

    @cached_property
    def answers(self) -> dict[str, np.ndarray]:
        """Task → (K + 1,) int64: each class id itself, but `IGNORE` for a class that says nothing.

        The last entry, which `IGNORE` as an index finds, is `IGNORE`.
        """
        return {
            task: np.array([IGNORE if name in self.ignored else i for i, name in enumerate(labels.names)] + [IGNORE])
            for task, labels in self.labels.items()
        }

    @cached_property
    def concepts(self) -> dict[str, np.ndarray]:
        """Task → (K,) bool: the classes that are concepts. `car/-`, "no part of the car", is none."""
        return {
            task: np.array([name.rpartition("/")[2] != NO_PART for name in labels.names])
            for task, labels in self.labels.items()
        }

    @cached_property
    def owners(self) -> np.ndarray:
        """For each part, the id of the object whose part it is, int64; `IGNORE` if its name begins with none.

        A part is called `object/part`. If several objects fit, it belongs to the one with the longest name.
        """
        objects = {name: i for i, name in enumerate(self.labels["object"].names)}
        owners = []
        for name in self.labels["part"].names:
            pieces = name.split("/")
            starts = ("/".join(pieces[:count]) for count in range(len(pieces) - 1, 0, -1))
            owners.append(next((objects[start] for start in starts if start in objects), IGNORE))
        return np.array(owners, np.int64)


def as_text(name: str) -> str:
    """A name without lone surrogates, which stand for bytes that are no text and which no table holds."""
    return name.encode("utf-8", "backslashreplace").decode()


def is_scene(kind: RelationKind) -> bool:
    """Whether a relation goes from an answer about the whole image to a map."""
    return kind.source == "scene"
