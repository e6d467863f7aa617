"""What each surface is made of."""

from __future__ import annotations

from dataclasses import dataclass

from upernet.tasks.dense import DenseTask


@dataclass(kw_only=True)
class Material(DenseTask):
    """Material of each pixel, read from the FPN's finest level (Xiao et al. 2018, section 3.1)."""

    level: str = "p2"
