"""Car Parts: cars cut into bumpers, doors, lights, …"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from upernet.data.folder import ImageMaskFolder


@dataclass(kw_only=True)
class CarParts(ImageMaskFolder):
    """Car Parts segmentation (Pasupa et al., Complex & Intelligent Systems 2021).

    Annotation `mask`: 0 anything not annotated (the background, but also roofs, pillars, fenders and side panels),
    1 to 18 parts of cars. Left and right parts have separate ids, which a horizontal flip would swap: map both to one
    class.

    * Layout: `images/<split>/*.jpg`, `annotations/<split>/*.png`.
    * Splits here: train 340, val 60 images of at most 352 px.
    * Licence: none given; offered by the authors for research with citation.
    """

    title: ClassVar[str] = "Car Parts"

    labels: list[str] = field(
        default_factory=lambda: [
            "_background_",
            "back_bumper",
            "back_glass",
            "back_left_door",
            "back_left_light",
            "back_right_door",
            "back_right_light",
            "front_bumper",
            "front_glass",
            "front_left_door",
            "front_left_light",
            "front_right_door",
            "front_right_light",
            "hood",
            "left_mirror",
            "right_mirror",
            "tailgate",
            "trunk",
            "wheel",
        ]
    )
    ignore_value: int | None = None
