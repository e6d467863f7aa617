"""The models inside the package."""

from __future__ import annotations

from pathlib import Path

SHIPPED = Path(__file__).parents[1] / "shipped"


def shipped_models() -> list[str]:
    """Names of the models inside the package."""
    return sorted(p.parent.name for p in SHIPPED.glob("*/config.yaml"))
