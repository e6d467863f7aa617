"""The models inside the package. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path

SHIPPED = Path(__file__).parents[1] / "shipped"


def shipped_models() -> dict[str, Path]:
    """Folders of the models inside the package by the name to load them with, sorted by name."""
    return {path.parent.name: path.parent for path in sorted(SHIPPED.glob("*/config.yaml"))}
