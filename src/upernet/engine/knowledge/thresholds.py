"""From what on something counts, and what the tables show."""

from __future__ import annotations

from dataclasses import dataclass

from upernet.errors import check


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """The thresholds of visual knowledge (Xiao et al. 2018, section 4.2). The paper states only `min_share` and `top`.

    The first two decide what is counted. The others choose what the tables in paper form show; the tables with one
    relation per row leave nothing out.
    """

    min_area: float = 0.001
    """Smallest share of an image's pixels with which an object appears in it, 0 to 1. With 0, one pixel is enough."""
    min_part_area: float = 0.0
    """Smallest share of an image's pixels with which a part appears in it, 0 to 1. With 0, one pixel is enough."""
    min_share: float = 0.3
    """Smallest share of a scene's images in which an object that the tables show appears, and of an object's images in
    which a part does, 0 to 1."""
    min_pixel_share: float = 0.1
    """Smallest share of pixels that a material or texture in the tables has, before what is left is brought to 100 %,
    0 to 1. The default is the display rule of the authors' demo."""
    top: int = 3
    """Most materials or textures in a row of the tables."""
    min_images: int = 5
    """Smallest number of images with a scene, object, part or material that has a row in the tables."""

    def __post_init__(self) -> None:
        for name, example in (("min_area", 0.001), ("min_part_area", 0.0), ("min_share", 0.3)):
            check(f"--{name}", getattr(self, name), 0, 1, example=example)
        check("--min_pixel_share", self.min_pixel_share, 0, 1, example=0.1)
        check("--top", self.top, 1, example=3)
        check("--min_images", self.min_images, 1, example=5)
