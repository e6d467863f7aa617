"""The models inside the package. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path

SHIPPED = Path(__file__).parents[1] / "shipped"


def shipped_models() -> dict[str, Path]:
    """Name → folder of the models inside the package, sorted by name."""
    return {path.parent.name: path.parent for path in sorted(SHIPPED.glob("*/config.yaml"))}
