"""Tables of tensor names in another software and in ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from upernet.errors import WorkError

Row = tuple[str, str]
"""Template of a name in the other software, and of the same name in ours.

`{x}` stands for the characters up to the next dot, `*` for the rest of the name. Both templates hold the same ones.
"""

_WILD = re.compile(r"\{(\w+)\}|\*")


class KeyTable:
    """Translates tensor names in either direction. The first row that matches counts."""

    def __init__(self, rows: Iterable[Row], dropped: Iterable[str] = ()) -> None:
        """Compile a table.

        Args:
            rows: Templates of their names and ours.
            dropped: Templates of their names that have no counterpart in ours.
        """
        rows = list(rows)
        self._to_ours = [(_pattern(theirs), _template(ours)) for theirs, ours in rows]
        self._to_theirs = [(_pattern(ours), _template(theirs)) for theirs, ours in rows]
        self._dropped = [_pattern(template) for template in dropped]

    def to_ours(self, tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
        """Their tensors under our names.

        Raises:
            WorkError: If a name is in no row, or two come out the same.
        """
        wanted = {k: v for k, v in tensors.items() if not any(p.fullmatch(k) for p in self._dropped)}
        return _rename(wanted, self._to_ours, where)

    def to_theirs(self, tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
        """Our tensors under their names.

        Raises:
            WorkError: If a name is in no row, or two come out the same.
        """
        return _rename(tensors, self._to_theirs, where)

    def their_name(self, ours: str) -> str:
        """Their name of a tensor of ours, or the given name if no row matches."""
        return _renamed(ours, self._to_theirs) or ours


def conv_norm(theirs: str, ours: str, conv: str, norm: str) -> list[Row]:
    """The two rows of one of our `ConvBNReLU`, whose convolution and norm are called `conv` and `norm` there."""
    return [(f"{theirs}.{conv}.*", f"{ours}.conv.*"), (f"{theirs}.{norm}.*", f"{ours}.bn.*")]


def first_few(keys: Iterable[str]) -> str:
    """The first three names, and how many more there are, for an error line."""
    names = [ascii(key)[1:-1][:120] for key in sorted(keys)]  # a stranger's names may hold what a terminal obeys
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _rename(tensors: Mapping[str, Tensor], rows: list[tuple[re.Pattern[str], str]], where: str) -> dict[str, Tensor]:
    renamed: dict[str, str] = {}
    unknown = []
    for key in tensors:
        found = _renamed(key, rows)
        if found is None:
            unknown.append(key)
        elif found in renamed:
            raise WorkError(f"{where}: two tensors for one place: {first_few([renamed[found], key])}")
        else:
            renamed[found] = key
    if unknown:
        raise WorkError(f"{where}: {len(unknown)} tensors have no place in this network: {first_few(unknown)}")
    return {new: tensors[key] for new, key in renamed.items()}


def _renamed(key: str, rows: list[tuple[re.Pattern[str], str]]) -> str | None:
    return next((m.expand(new) for old, new in rows if (m := old.fullmatch(key))), None)


def _pattern(template: str) -> re.Pattern[str]:
    parts, end = [], 0
    for match in _WILD.finditer(template):
        parts.append(re.escape(template[end : match.start()]))
        parts.append(f"(?P<{match[1]}>[^.]+?)" if match[1] else "(?P<rest>.+)")
        end = match.end()
    return re.compile("".join([*parts, re.escape(template[end:])]))


def _template(template: str) -> str:
    return _WILD.sub(lambda m: rf"\g<{m[1] or 'rest'}>", template)
