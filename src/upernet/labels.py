"""Class tables, and the sets of classes that another data set's labels stand for."""

from __future__ import annotations

import colorsys
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from upernet.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

IGNORE = -1
"""The id of a pixel or an image without a label."""

NO_PART = "-"
"""Name of the class of an object's pixels that are no named part, such as in `car/-`."""

Colour = tuple[int, int, int]

MetricProtocol = Literal["mmseg", "paper"]
"""How answers are measured: as MMSegmentation does, or as the authors' multi-task evaluator does (SPEC E6)."""


@dataclass(frozen=True)
class Labels:
    """Names and colours of classes. A class id is a position in this table.

    Attributes:
        names: The K names.
        colours: The K colours, RGB from 0 to 255.
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...]

    @classmethod
    def of(cls, spec: Sequence[str] | Mapping[str, str]) -> Labels:
        """Make a table from names alone, with generated colours, or from a mapping of names to `"#rrggbb"`.

        Raises:
            UserError: If there is no name, a name is repeated, a colour is malformed, or `spec` is a single string.
        """
        if isinstance(spec, str):
            raise UserError(f"{spec!r} is not a list of class names; for example ['sky', 'car']")
        names = tuple(str(name) for name in spec)
        repeated = sorted(name for name, count in Counter(names).items() if count > 1)
        if repeated:
            raise UserError(f"class {repeated[0]!r} is named twice; names must differ")
        if not names:
            raise UserError("a list of classes needs at least one name; for example ['sky', 'car']")
        if isinstance(spec, Mapping):
            return cls(names, tuple(_parse_colour(name, spec[name]) for name in spec))
        return cls(names, tuple(distinct_colours(len(names))))

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """The id of a class by its name.

        Raises:
            UserError: If there is no such class. The message names similar ones.
        """
        try:
            return self.names.index(name)
        except ValueError:
            raise UserError(f"unknown class {name!r}; {_suggest(name, self.names)}") from None


def _parse_colour(name: str, text: str) -> Colour:
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", str(text)):
        raise UserError(f"class {name!r}: {text!r} is not a colour; for example '#4682b4'")
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def _suggest(name: str, names: Sequence[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(repr(c) for c in close)}?"
    return f"valid: {', '.join(names[:8])}{', …' if len(names) > 8 else ''}"


def part_names(parts: Mapping[str, Sequence[str]], *, no_part: bool = False) -> tuple[str, ...]:
    """The names `object/part` of all parts, object by object.

    Args:
        parts: Object → names of its parts.
        no_part: Whether the parts of each object begin with "no part".
    """
    first = (NO_PART,) if no_part else ()
    return tuple(f"{owner}/{part}" for owner, names in parts.items() for part in (*first, *names))


def distinct_colours(count: int) -> Iterator[Colour]:
    """Yield colours that differ clearly from their neighbours: hue by the golden angle, lightness in three steps."""
    for i in range(count):
        hue, lightness, saturation = (0.07 + i * 0.381966) % 1, (0.52, 0.38, 0.68)[i % 3], (0.75, 0.6, 0.85)[i // 3 % 3]
        red, green, blue = colorsys.hls_to_rgb(hue, lightness, saturation)
        yield round(red * 255), round(green * 255), round(blue * 255)


class UnmappedLabels(UserError):
    """Labels of a source without a meaning: they are neither in the target's table nor classes of the task.

    Attributes:
        labels: The labels, in the source's order.
    """

    def __init__(self, labels: Sequence[str]):
        names = ", ".join(labels)
        super().__init__(f"{no_classes(len(labels))}: {names}; map each to a class, a list of classes, or null")
        self.labels = tuple(labels)


def no_classes(count: int) -> str:
    """The statement that a number of labels are not classes of a task."""
    return "1 label is no class of the task" if count == 1 else f"{count:,} labels are no classes of the task"


@dataclass(frozen=True)
class ClassSets:
    """The set of a task's classes that each label of a source stands for.

    A label stands for one class, for several ("one of these", without saying which), or for none (unlabelled). Labels
    with the same set cannot be told apart and share a *group*. Losses and metrics are computed on groups; the
    probability of a group is the summed probability of its classes. With one class per label this is ordinary
    classification.

    Attributes:
        labels: The L names of the source's labels. A label id is a position here.
        members: For each of the L labels, the ids of its classes; empty if the label means unlabelled.
        classes: The K classes of the task.
        protocol: How answers are measured. With `mmseg` every answer is one of the groups; with `paper` it may be any
            class, and one that no group holds is a mistake.
    """

    labels: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]
    classes: Labels
    protocol: MetricProtocol = "mmseg"

    @classmethod
    def of(
        cls, labels: Sequence[str], classes: Labels, table: Mapping[str, str | Sequence[str] | None] | None = None
    ) -> ClassSets:
        """Read the `classes` table of a target in YAML.

        Args:
            labels: The source's own label names, in the order of their ids.
            classes: The task's classes.
            table: For each label name, a class name, a list of class names, or None for "unlabelled". `"*"` in a list
                stands for every class that no other label of the source names. A label that is left out stands for the
                class of its own name.

        Raises:
            UnmappedLabels: If labels that the table leaves out are not the names of classes.
            UserError: If the table names a label or a class that does not exist, or all labels mean unlabelled.
        """
        table = dict(table or {})
        repeated = [label for label, count in Counter(labels).items() if count > 1]
        if repeated:
            raise UserError(f"the source has two labels named {repeated[0]!r}; names must differ")
        for label in table:
            if label not in labels:
                raise UserError(
                    f"the table maps label {label!r}, which the source does not have; {_suggest(label, labels)}"
                )
        unmapped = [label for label in labels if label not in table and label not in classes.names]
        if unmapped:
            raise UnmappedLabels(unmapped)
        named: dict[str, list[str]] = {}
        for label in labels:
            value = table.get(label, label)
            named[label] = [] if value is None else [value] if isinstance(value, str) else list(value)
        taken = {classes.index(name) for names in named.values() for name in names if name != "*"}
        rest = tuple(i for i in range(len(classes)) if i not in taken)
        members = []
        for names in named.values():
            ids = {classes.index(name) for name in names if name != "*"} | (set(rest) if "*" in names else set())
            members.append(tuple(sorted(ids)))
        if not any(members):
            raise UserError("every label of the source is mapped to null; map one to a class, or leave the target out")
        return cls(tuple(labels), tuple(members), classes)

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The G distinct non-empty sets of class ids, in the order in which labels first use them."""
        return tuple(dict.fromkeys(m for m in self.members if m))

    @cached_property
    def group_names(self) -> tuple[str, ...]:
        """The names of the G groups: the class's name if a group is one class, else that of the first label in it."""
        return tuple(
            self.classes.names[group[0]] if len(group) == 1 else self.labels[self.members.index(group)]
            for group in self.groups
        )

    @cached_property
    def group_of_label(self) -> np.ndarray:
        """The group of each label, int64 (L + 1,); `IGNORE` if it means unlabelled. The last entry is for `IGNORE`."""
        groups = {group: i for i, group in enumerate(self.groups)}
        return np.array([groups.get(m, IGNORE) for m in self.members] + [IGNORE], dtype=np.int64)

    def to_groups(self, target: Tensor) -> Tensor:
        """Group ids from the source's label ids, both int64 of the same shape; `IGNORE` stays `IGNORE`."""
        import torch

        return torch.from_numpy(self.group_of_label).to(target.device, non_blocking=True)[target]

    def log_probabilities(self, log_p: Tensor) -> Tensor:
        """Log-probabilities of groups (B, G, …) from those of classes (B, K, …): log of the sum over each set."""
        import torch

        def chosen(ids: Sequence[int]) -> Tensor:
            # Not by a list of ids: a GPU would be waited for, and on a CPU the gradient would take many times as long.
            return log_p.index_select(1, torch.tensor(ids).to(log_p.device, non_blocking=True))

        if all(len(group) == 1 for group in self.groups):
            order = [group[0] for group in self.groups]
            return log_p if order == list(range(log_p.shape[1])) else chosen(order)
        columns = [log_p[:, g[0]] if len(g) == 1 else chosen(g).logsumexp(1) for g in self.groups]
        return torch.stack(columns, 1)

    def probabilities(self, p: Tensor) -> Tensor:
        """Probabilities of groups (B, G, …) from those of classes (B, K, …)."""
        import torch

        return torch.stack([p[:, g[0]] if len(g) == 1 else p[:, list(g)].sum(1) for g in self.groups], 1)

    def likeliest(self, p: Tensor, within: tuple[int, int] | None = None) -> Tensor:
        """Answers in this label space: the likeliest group, int64 (B, …), from probabilities of classes (B, K, …).

        With protocol `paper`, each class that no group holds competes too. Where it is the likeliest, the answer is
        `IGNORE`, which is never right. With one class per label, that is the arg-max over all K classes (SPEC E6).

        Args:
            p: Probabilities of all classes.
            within: First class, and class after the last, to which the answer is confined. A group belongs there if
                its first class does. If not given, there is no such limit.
        """
        import torch

        sets, answers = self.candidates(within)
        if all(answer == IGNORE for answer in answers):
            return torch.full_like(p[:, 0], IGNORE, dtype=torch.int64)
        if all(len(members) == 1 for members in sets):
            columns = [members[0] for members in sets]
            first, count = columns[0], len(columns)
            q = p[:, first : first + count] if columns == list(range(first, first + count)) else p[:, columns]
        else:
            q = torch.stack([p[:, m[0]] if len(m) == 1 else p[:, list(m)].sum(1) for m in sets], 1)
        best = q.argmax(1)
        return best if answers == list(range(len(answers))) else torch.tensor(answers, device=p.device)[best]

    def candidates(self, within: tuple[int, int] | None = None) -> tuple[list[tuple[int, ...]], list[int]]:
        """What competes for the answer of `likeliest`: sets of classes, and for each its group or `IGNORE`."""
        within = within or (0, len(self.classes))
        if within not in self._known_candidates:
            start, stop = within
            found = [(group, i) for i, group in enumerate(self.groups) if start <= group[0] < stop]
            if self.protocol == "paper":
                held = {c for group, _ in found for c in group}
                found += [((c,), IGNORE) for c in range(start, stop) if c not in held]
                found.sort(key=lambda candidate: candidate[0])  # of equals the first class wins, as in an arg-max
            self._known_candidates[within] = [group for group, _ in found], [answer for _, answer in found]
        return self._known_candidates[within]

    @cached_property
    def _known_candidates(self) -> dict[tuple[int, int], tuple[list[tuple[int, ...]], list[int]]]:
        """Results of `candidates`, which is asked for every band of every image."""
        return {}
