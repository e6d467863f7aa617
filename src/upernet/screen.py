"""What appears on a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with what a terminal would obey, ends of lines too, written out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
