"""What is at each pixel."""

from __future__ import annotations

from dataclasses import dataclass

from upernet.tasks.dense import DenseTask


@dataclass(kw_only=True)
class Object(DenseTask):
    """Object and stuff classes, read from the fused pyramid (Xiao et al. 2018, section 3.1)."""
