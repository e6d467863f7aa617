"""The `data:` block of a YAML: sources, what their labels mean, and how their images are cut. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from upernet.data.source import Source
from upernet.errors import UserError, check


@dataclass(kw_only=True)
class AugmentConfig:
    """Random geometry, the same for an image and all its maps, then random colour for the image alone.

    With `box` the geometry is that of the published recipes: one uniform scale, bilinear without smoothing, the crop
    anywhere in the scaled image, a smaller image at the upper left of the crop.
    """

    crop: tuple[int, int] = (512, 512)
    """Height and width of what the network sees, in pixels."""
    short_side: int | None = None
    """Bring the shorter side to this many pixels before scaling; none starts from the image's own size."""
    box: tuple[int, int] | None = None
    """Long and short side, in pixels: the image is fitted into this box, multiplied by the random scale; none scales
    the image itself."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Bounds of the random scale; drawn uniformly in its logarithm, or with `box` uniformly."""
    aspect: float = 1.0
    """Largest stretch of one axis against the other; 1 keeps the aspect ratio."""
    cat_max_ratio: float = 1.0
    """Largest share of the labelled pixels that one label of the first map may have in a crop: up to ten other crops
    are drawn while it has more, or all; 1 takes the first. Needs `box`."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    brightness: float = 0.0
    """Brightness factor in [1 - b, 1 + b]."""
    contrast: float = 0.0
    """Contrast factor in [1 - c, 1 + c]."""
    saturation: float = 0.0
    """Saturation factor in [1 - s, 1 + s]."""
    hue: float = 0.0
    """Hue shift in [-h, h], at most 0.5."""
    grey: float = 0.0
    """Probability of dropping all colour."""
    photometric: bool = False
    """Photometric distortion of the published recipes in place of the five above: brightness ± 32 of 255, contrast and
    saturation times 0.5 to 1.5, hue ± 36°, each with probability 1/2."""
    pad_colour: tuple[float, float, float] | None = None
    """RGB in [0, 1] of what a small image does not cover; the model's `mean` makes it exactly 0 for the network. Grey
    if none. Needs `box`."""

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high < float("inf"):
            raise UserError(f"augment.scale: {list(self.scale)} is no range; for example [0.5, 2.0]")
        check("augment.crop", min(self.crop), 32, example="[512, 512]")
        check("augment.short_side", self.short_side, 1, example=512)
        check("augment.aspect", self.aspect, 1, example=1.3)
        check("augment.hue", self.hue, 0, 0.5, example=0.05)
        for name in ("flip", "grey"):
            check(f"augment.{name}", getattr(self, name), 0, 1, example=0.5)
        for name in ("brightness", "contrast", "saturation"):
            check(f"augment.{name}", getattr(self, name), 0, example=0.3)
        check("augment.box", self.box and min(self.box), 1, example="[2048, 512]")
        check("augment.cat_max_ratio", self.cat_max_ratio, 1e-9, 1, example=0.75)
        for value in self.pad_colour or ():
            check("augment.pad_colour", value, 0, 1, example="[0.485, 0.456, 0.406]")
        self._check_together()

    def _check_together(self) -> None:
        if self.box is None:
            for name, none in (("cat_max_ratio", 1.0), ("pad_colour", None)):
                if (value := getattr(self, name)) != none:
                    raise UserError(f"augment.{name}: {value} needs a box; for example augment.box: [2048, 512]")
        else:
            for name, none in (("short_side", None), ("aspect", 1.0)):
                if (value := getattr(self, name)) != none:
                    said = "null" if none is None else none
                    raise UserError(f"augment.{name}: {value} beside box {list(self.box)}; leave it at {said}")
        for name in ("brightness", "contrast", "saturation", "hue", "grey"):
            if self.photometric and (value := getattr(self, name)):
                raise UserError(f"augment.{name}: {value} beside photometric: true; leave it at 0")


@dataclass(kw_only=True)
class TargetConfig:
    """What one annotation of a source says about one task."""

    classes: dict[str, str | list[str] | None] = field(default_factory=dict)
    """Label → the class it stands for, a list of classes ("one of these"), or null for unlabelled. `"*"` in a list is
    every class that no other label of the source names. A label left out stands for the class of its own name. A label
    whose classes all belong to another label's set as well is never predicted, the larger set being likelier."""
    constant: list[str] = field(default_factory=list)
    """Instead of an annotation: every image of the source shows one of these classes, such as `[street, highway]` for
    driving videos. Never evaluated."""
    annotation: str | None = None
    """Which of the source's annotations; may be left out where there is only one."""
    evaluate: bool = True
    """Whether this source's validation split measures the task."""
    average: list[str] = field(default_factory=list)
    """Labels over which class means are taken; all if empty. The others still count as mistakes."""

    def __post_init__(self) -> None:
        if self.constant and (self.classes or self.annotation or self.average):
            raise UserError(f"constant: {self.constant} leaves no room for classes, annotation or average")


@dataclass(kw_only=True)
class SourceConfig:
    """One data set of the mixture."""

    dataset: Source
    """The data set."""
    targets: dict[str, TargetConfig]
    """Task name → what this source says about it. A task that is not named gets nothing from this source."""
    train: str | None = "train"
    """Split to train on; none keeps the source for evaluation."""
    val: str | None = "val"
    """Split to evaluate on; none keeps the source for training."""
    weight: float | None = None
    """Share of the steps, relative to the other sources; the number of images if none."""
    batch: int | None = None
    """Images per step and process; `data.batch` if none."""
    augment: AugmentConfig | None = None
    """Augmentation of this source; `data.augment` if none."""

    def __post_init__(self) -> None:
        check("batch", self.batch, 1, example=8)
        check("weight", self.weight, 0, example=1.0)


@dataclass(kw_only=True)
class DataConfig:
    """Everything about the data of a run."""

    sources: dict[str, SourceConfig] = field(default_factory=dict)
    """The data sets by name."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Augmentation of every source that has none of its own."""
    batch: int = 8
    """Images per step of training and process."""
    workers: int = 2
    """Processes that load batches ahead in training; 0 loads in the main process."""

    def __post_init__(self) -> None:
        check("data.batch", self.batch, 1, example=8)
        check("data.workers", self.workers, 0, example=2)
