"""Faults of a data set as values: all of them can be listed, where an exception would stop at the first."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from upernet.errors import UserError


class Kind(StrEnum):
    """The kinds of fault."""

    LISTING = "listing"
    """The split or the names of the labels cannot be read."""
    EMPTY = "empty split"
    """The split has no image."""
    MISSING_IMAGE = "missing image"
    """The split names an image that is not there."""
    MISSING_MASK = "missing label map"
    """An image has no label map."""
    MISSING_PARTNER = "label map without image"
    """A label map has no image."""
    DUPLICATE = "duplicate"
    """Two images have one id, or the split names an image twice."""
    LABEL = "unknown label"
    """A label or a pixel value is none of the source's labels."""
    SIZE = "size"
    """A label map and its image differ in size."""
    UNREADABLE = "unreadable"
    """A file cannot be decoded, or does not hold what it should."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a split.

    Attributes:
        kind: The kind of the fault.
        file: The file or folder at fault.
        problem: What is wrong with it.
        valid: What would be valid, or what to do; empty if the problem itself makes that clear.
        stops: Whether the split cannot be used until the fault is fixed.
    """

    kind: Kind
    file: Path
    problem: str
    valid: str = ""
    stops: bool = True

    def __str__(self) -> str:
        return self.line()

    def line(self, count: str = "") -> str:
        """The fault in one line that starts with the file.

        Args:
            count: How many faults of the kind there are, in words; left out if empty.
        """
        return "; ".join(part for part in (f"{self.file}: {self.problem}", count, self.valid) if part)

    @classmethod
    def from_error(cls, kind: Kind, error: UserError, file: Path) -> Fault:
        """Make a fault from an error.

        Args:
            kind: The kind of the fault, unless the error is a `FaultError`, which has its own.
            error: The error; its line should start with `file` or a path below it.
            file: The file at fault if the line starts with something else.
        """
        if isinstance(error, FaultError):
            return error.fault
        text, start = str(error), str(file)
        if text.startswith(start) and (end := text.find(": ", len(start))) >= 0:
            file, text = Path(text[:end]), text[end + 2 :]
        problem, _, valid = text.partition("; ")
        return cls(kind, file, problem, valid)


@dataclass(frozen=True)
class Skipped:
    """An image that was left out because of a fault.

    Attributes:
        source: Name of its source in the configuration.
        id: Name of the image within the source.
        problem: The fault in one line.
    """

    source: str
    id: str
    problem: str

    def __str__(self) -> str:
        return f"source {self.source!r}: {self.id} is left out: {self.problem}"


class FaultError(UserError):
    """An error that carries a fault of the data; its line is the fault's."""

    def __init__(self, fault: Fault):
        super().__init__(fault)
        self.fault = fault
