"""Proposals for the classes that a source's labels stand for, by their names alone.

A proposal saves typing. It is no judgement: whether a label means what its name says, only its data set tells.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

SIMILARITY = 0.85
"""Smallest share of equal letters (`difflib`'s ratio) at which two spellings count as similar."""
SHOWN = 20
"""Most labels that an error line lists."""

# fmt: off
_VOID = frozenset({
    "background", "dontcare", "ignore", "ignored", "misc", "miscellaneous", "nolabel", "none", "noneofthese", "other",
    "unclassified", "undefined", "unknown", "unlabeled", "unlabelled", "unknownclass", "various", "void",
})
"""Names of labels that say nothing of what is there."""
_PLURALS = {
    "feet": "foot", "knives": "knife", "leaves": "leaf", "men": "man", "mice": "mouse", "people": "person",
    "shelves": "shelf", "teeth": "tooth", "women": "woman",
}
# fmt: on


class By(StrEnum):
    """How a proposal was found."""

    NAME = "name"
    """The names are equal up to case, plural, spaces and signs."""
    SYNONYM = "synonym"
    """The names are synonyms in the lists of ADE20K and Broden+."""
    SIMILAR = "similar"
    """A word is the same, or the spelling is similar: look before you use it."""
    NOTHING = "nothing"
    """Nothing fits."""


@dataclass(frozen=True)
class Proposal:
    """A class that a label may stand for.

    Attributes:
        name: The class; None for unlabelled.
        by: How it was found.
    """

    name: str | None
    by: By

    def __str__(self) -> str:
        """As in YAML, with a question mark after a name that is only similar."""
        return "null" if self.name is None else f"{self.name}?" if self.by is By.SIMILAR else self.name


def propose(labels: Iterable[str], classes: Sequence[str]) -> dict[str, Proposal]:
    """Propose a class for each label.

    Names are compared first, then synonyms, then single words and spelling. Of several classes that fit equally well,
    the first is proposed. Names of parts, such as `car/wheel`, are compared piece by piece.

    Args:
        labels: Names of labels.
        classes: Names of the classes.
    """
    index = _Index(classes)
    return {label: index.find(label) for label in labels}


def as_yaml(proposals: Mapping[str, Proposal], count: int | None = None) -> str:
    """Write proposals in one line, ready for the `classes` of a target.

    Args:
        proposals: Label → proposal.
        count: Number of all labels, if these are only the first of them; the line then tells where the others are.
    """
    import yaml

    plain = {label: None if p.name is None else str(p) for label, p in proposals.items()}
    text = yaml.safe_dump(plain, default_flow_style=True, sort_keys=False, allow_unicode=True, width=2**31).strip()
    rest = (count or len(plain)) - len(plain)
    return f"{text[:-1]}, …}}; upernet labels shows the {rest:,} others too" if rest else text


@cache
def words(name: str) -> tuple[str, ...]:
    """The words of a name in lower case and in the singular: `TrafficLights_red` gives traffic, light, red."""
    divided = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name).lower()
    return tuple(_singular(word) for word in re.findall(r"[^\W_]+", divided))


def _singular(word: str) -> str:
    if word in _PLURALS:
        return _PLURALS[word]
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if word.endswith(("sses", "xes", "ches", "shes", "zzes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3 else word


def _key(name: str) -> str:
    """A name without what does not matter: `diningtable`, `Dining Table` and `dining_tables` have the same."""
    return "".join(words(name))


@cache
def _groups() -> Mapping[str, tuple[tuple[int, int], ...]]:
    """Key of a name → the lists of synonyms in which it occurs, each with its place there (0 for the list's own)."""
    lists = json.loads(Path(__file__).with_name("synonyms.json").read_text(encoding="utf-8"))
    found: dict[str, list[tuple[int, int]]] = {}
    for number, (name, synonyms) in enumerate(lists.items()):
        for place, synonym in enumerate((name, *synonyms)):
            found.setdefault(_key(synonym), []).append((number, place))
    return {key: tuple(places) for key, places in found.items()}


class _Index:
    """The classes by the keys of their names and of their synonyms."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.by_key: dict[str, str] = {}
        for name in classes:
            if _key(name):  # not the "-" of Broden+, which means unlabelled
                self.by_key.setdefault(_key(name), name)
        self.by_group: dict[int, list[tuple[int, str]]] = {}
        for key, name in self.by_key.items():
            for number, place in _groups().get(key, ()):
                self.by_group.setdefault(number, []).append((place, name))
        self.parts = [(name, [_key(piece) for piece in name.split("/")]) for name in classes if "/" in name]

    def find(self, label: str) -> Proposal:
        key = _key(label)
        if key in self.by_key:
            return Proposal(self.by_key[key], By.NAME)
        if key in _VOID or not key:
            return Proposal(None, By.NOTHING)
        pieces = [_key(piece) for piece in label.split("/")]
        name = self._synonym(key) or self._pieces(pieces)
        if name is not None:
            return Proposal(name, By.SYNONYM)
        name = self._similar_part(pieces) or self._similar(label)
        return Proposal(name, By.SIMILAR) if name is not None else Proposal(None, By.NOTHING)

    def _synonym(self, key: str) -> str | None:
        """The class that shares a list of synonyms, preferably one that comes early in its list."""
        places = (pair for number, _ in _groups().get(key, ()) for pair in self.by_group.get(number, ()))
        best = min(places, key=lambda pair: pair[0], default=None)
        return None if best is None else best[1]

    def _pieces(self, pieces: Sequence[str]) -> str | None:
        """The class of as many pieces that all fit; else the first class without pieces that fits one of them."""
        if len(pieces) == 1:
            return None
        for name, own in self.parts:
            if len(own) == len(pieces) and all(map(_same, pieces, own)):
                return name
        found = (self.by_key.get(key) or self._synonym(key) for key in pieces)
        return next((name for name in found if name is not None and "/" not in name), None)

    def _similar_part(self, pieces: Sequence[str]) -> str | None:
        """The part of the same object whose name is spelled similarly."""
        parts = {own[-1]: name for name, own in self.parts if len(pieces) == len(own) and _same(pieces[0], own[0])}
        close = difflib.get_close_matches(pieces[-1], parts, n=1, cutoff=SIMILARITY)
        return parts[close[0]] if close and len(pieces) > 1 else None

    def _similar(self, label: str) -> str | None:
        """The class with the label's last word, or another of its words, or a similar spelling."""
        if "/" in label and self.parts:
            return None
        own, key = words(label), _key(label)
        singles = [self.by_key.get(word) or self._synonym(word) for word in reversed(own) if len(own) > 1]
        named = next((name for name in singles if name is not None), None)
        if named is not None:
            return named
        ends = [known for known in self.by_key if len(known) > 3 and key.endswith(known)]
        if ends:
            return self.by_key[max(ends, key=len)]
        heads = [n for n in self.by_key.values() if words(n)[-1:] == ("other",) and "".join(words(n)[:-1]) == key]
        heads += [n for n in self.by_key.values() if len(words(n)) > 1 and words(n)[-1] == key]
        if heads:
            return heads[0]
        close = difflib.get_close_matches(key, self.by_key, n=1, cutoff=SIMILARITY) if len(key) > 4 else []
        return self.by_key[close[0]] if close else None


def _same(key: str, other: str) -> bool:
    """Whether two keys are equal or synonyms."""
    groups = {number for number, _ in _groups().get(key, ())}
    return key == other or any(number in groups for number, _ in _groups().get(other, ()))
