"""Where was this taken: one scene for the image."""

from __future__ import annotations

from dataclasses import dataclass

from upernet.tasks.image import ImageTask


@dataclass(kw_only=True)
class Scene(ImageTask):
    """Scene of the whole image, read from the PPM's output (Xiao et al. 2018, section 3.1)."""
