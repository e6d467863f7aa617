"""Plain semantic segmentation, and its auxiliary head."""

from __future__ import annotations

from dataclasses import dataclass

from upernet.tasks.dense import DenseTask


@dataclass(kw_only=True)
class Semantic(DenseTask):
    """Segmentation as the published rows do it: dropout and a classifier straight on the fused pyramid.

    The auxiliary head of those rows is a second instance: `level: c4, convs: 1, width: 256, target: semantic,
    weight: 0.4, auxiliary: true`.
    """

    convs: int = 0
    dropout: float = 0.1
