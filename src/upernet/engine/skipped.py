"""Images that are left out because of a fault (`SourceConfig.faults`): each is told once, and all are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from upernet.data.faults import Skipped

TOLD = 20
"""Number of images whose fault is told. Those after them are only counted."""


class SkippedImages:
    """The images that a run or a measurement has left out.

    Attributes:
        known: Source and id of each image.
    """

    def __init__(self, tell: Callable[[str], None]):
        """Begin with none.

        Args:
            tell: Shows a line.
        """
        self.tell = tell
        self.known: dict[tuple[str, str], None] = {}

    def add(self, found: Iterable[Skipped]) -> None:
        """Count images that were not known, and tell of them."""
        for one in found:
            if (one.source, one.id) in self.known:
                continue
            self.known[one.source, one.id] = None
            if len(self.known) <= TOLD:
                self.tell(str(one))
            elif len(self.known) == TOLD + 1:
                self.tell("further images with a fault are left out and counted, not told")

    @property
    def counts(self) -> dict[str, int]:
        """Source → number of its images that were left out."""
        return dict(Counter(source for source, _ in self.known))

    def __str__(self) -> str:
        return left_out(self.counts)


def left_out(counts: dict[str, int]) -> str:
    """How many images were left out, in words; empty if none was.

    Args:
        counts: Source → number of its images that were left out.
    """
    if not any(counts.values()):
        return ""
    each = ", ".join(f"{count:,} of {source}" for source, count in counts.items() if count)
    return f"images left out because of a fault: {each}"
