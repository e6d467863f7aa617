"""What each surface looks like, regardless of what it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from upernet.tasks.dense import DenseTask


@dataclass(kw_only=True)
class Texture(DenseTask):
    """Texture of each pixel, learned from images that show one texture each.

    The defaults are the paper's (Xiao et al. 2018, section 3.1): four convolutions on Res-2, no gradient into the
    network, trained alone after everything else (`optim.train_only: [texture]`). The released code has no texture
    branch, and the text gives neither number nor width of the convolutions; these are a choice. For joint training set
    `detach: false` and, for more context, a higher `level`.
    """

    level: str = "c2"
    detach: bool = True
    convs: int = 4
    image_answer: Literal["mean", "majority"] = "majority"
