"""LabelMeFacade: street fronts with their windows and doors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from upernet.data.folder import ImageMaskFolder


@dataclass(kw_only=True)
class Facade(ImageMaskFolder):
    """LabelMeFacade (Fröhlich, Rodner, Denzler, ICPR 2010; Brust et al., CVPR-WS 2015).

    Annotation `mask`: 0 various (unlabelled regions and thin outlines), 1 building, 2 car, 3 door, 4 pavement, 5 road,
    6 sky, 7 vegetation, 8 window. Doors and windows are parts of buildings; not all of them are labelled.

    * Layout: `images/<split>/*.jpg`, `annotations/<split>/*.png`.
    * Splits here: train 260, val 70 images of at most 400 px.
    * Licence: LabelMe images, non-commercial research only.
    """

    title: ClassVar[str] = "LabelMeFacade"

    labels: list[str] = field(
        default_factory=lambda: [
            "various",
            "building",
            "car",
            "door",
            "pavement",
            "road",
            "sky",
            "vegetation",
            "window",
        ]
    )
    ignore_value: int | None = None
