"""The `data` block of a YAML file: sources, what their labels mean, and how images are augmented. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal, get_args

from upernet.data.source import Source
from upernet.errors import UserError, check
from upernet.labels import MetricProtocol


@dataclass(kw_only=True)
class AugmentConfig:
    """Random scale, crop and flip for an image and all its label maps, then random colour for the image alone.

    With `box`, scale and crop follow the published recipes: the scale is drawn uniformly, resizing is bilinear without
    smoothing, the crop lies anywhere in the scaled image, and an image smaller than the crop lies at its upper left.

    With `short_sides`, images are not cropped, as in the authors' code (SPEC E5): all images of a batch are resized to
    one shorter side, and the batch is padded at the bottom and at the right.
    """

    crop: tuple[int, int] = (512, 512)
    """Height and width of the crop, which is what the network sees, in pixels. With `short_sides` there is none."""
    short_sides: tuple[int, ...] = ()
    """Shorter sides in pixels, of which one is drawn for each batch. Every image of the batch is resized to it whole,
    bilinearly without smoothing, its sides cut to whole pixels. If empty, images are cropped. Needs `long_side`."""
    long_side: int | None = None
    """Largest longer side in pixels with `short_sides`: an image that would be longer is resized to this instead."""
    multiple: int = 1
    """Height and width of a batch with `short_sides` are multiples of this many pixels: those of its largest image,
    rounded up. The padding is unlabelled and has the colour `pad_colour`."""
    label_stride: int = 1
    """Label maps keep one pixel of every square of this many pixels a side, the one just below and to the right of its
    middle. The loss is then computed at this stride; 4 is that of the network's finest level."""
    short_side: int | None = None
    """Resize the shorter side to this many pixels before random scaling. If null, scaling starts from the image's own
    size."""
    box: tuple[int, int] | None = None
    """Longer and shorter side of a box, in pixels. The box is multiplied by the random scale, and the image is fitted
    into it. If null, the image's own size is multiplied by the scale."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Bounds of the random scale. Its logarithm is drawn uniformly; with `box`, the scale itself is. With `short_sides`
    there is no other scale."""
    aspect: float = 1.0
    """Largest factor by which one axis is stretched against the other; 1 keeps the aspect ratio."""
    cat_max_ratio: float = 1.0
    """Largest share of the labelled pixels of a crop that one label of the first map may cover. While a label covers
    more, up to ten other crops are drawn; 1 takes the first crop. Needs `box`."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    brightness: float = 0.0
    """Largest change b of the brightness: a factor in [1 - b, 1 + b]."""
    contrast: float = 0.0
    """Largest change c of the contrast: a factor in [1 - c, 1 + c]."""
    saturation: float = 0.0
    """Largest change s of the saturation: a factor in [1 - s, 1 + s]."""
    hue: float = 0.0
    """Largest shift h of the hue, in [-h, h] of the colour circle; at most 0.5."""
    grey: float = 0.0
    """Probability of turning the image grey."""
    photometric: bool = False
    """Use the photometric distortion of the published recipes in place of the five fields above: brightness ± 32 of
    255, contrast and saturation times 0.5 to 1.5, hue ± 36°, each with probability 1/2."""
    pad_colour: tuple[float, float, float] | None = None
    """RGB colour, on a scale of 0 to 1, of the part of a crop or batch that a small image does not cover. The model's
    `mean` becomes exactly 0 in the network. If null, the colour is grey. Needs `box` or `short_sides`."""

    def __post_init__(self) -> None:
        self._check_together()
        low, high = self.scale
        if not 0 < low <= high < float("inf"):
            raise UserError(f"augment.scale: {list(self.scale)} is not a range; for example [0.5, 2.0]")
        check("augment.crop", min(self.crop), 32, example="[512, 512]")
        check("augment.short_sides", min(self.short_sides, default=None), 32, example="[300, 375, 450, 525, 600]")
        check("augment.long_side", self.long_side, 32, example=1200)
        check("augment.multiple", self.multiple, 1, example=32)
        check("augment.label_stride", self.label_stride, 1, example=4)
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
        name, sides = ("multiple", (self.multiple,)) if self.short_sides else ("crop", self.crop)
        if any(side % self.label_stride for side in sides):
            given = f"{name} {' × '.join(map(str, sides))}"
            raise UserError(f"augment.label_stride: {self.label_stride} does not divide {given}; for example 4 and 32")

    def _check_together(self) -> None:
        whole = "; for example augment.short_sides: [300, 450, 600]"
        geometry, needs = "", {"long_side": f"short_sides{whole}", "multiple": f"short_sides{whole}"}
        unused: tuple[str, ...] = ()
        if self.short_sides:
            geometry, needs = f"short_sides {list(self.short_sides)}", {}
            unused = ("crop", "short_side", "box", "scale", "aspect", "cat_max_ratio")
            if self.long_side is None:
                raise UserError(f"augment.{geometry} needs a long_side; for example augment.long_side: 1200")
        elif self.box is not None:
            geometry, unused = f"box {list(self.box)}", ("short_side", "aspect")
        else:
            box = "; for example augment.box: [2048, 512]"
            needs |= {"cat_max_ratio": f"a box{box}", "pad_colour": f"a box or short_sides{box}"}
        usual = {one.name: one.default for one in fields(self)}
        for name in (*unused, *needs):
            if (value := getattr(self, name)) != usual[name]:
                off = "null" if usual[name] is None else usual[name]
                wrong = f"needs {needs[name]}" if name in needs else f"has no place beside {geometry}; valid: {off}"
                raise UserError(f"augment.{name}: {value} {wrong}")
        for name in ("brightness", "contrast", "saturation", "hue", "grey"):
            if self.photometric and (value := getattr(self, name)):
                raise UserError(f"augment.{name}: {value} has no place beside photometric: true; valid: 0")


@dataclass(kw_only=True)
class TargetConfig:
    """How the labels of a source become training targets of one task."""

    classes: dict[str, str | list[str] | None] | str = field(default_factory=dict)
    """For each label, the class that it stands for, a list of classes ("one of these"), or null for unlabelled. `"*"`
    in a list means every class that no other label of the source names. A label that is left out stands for the class
    of its own name. A label whose classes all belong to another label's set too is never predicted, because the larger
    set is always the likelier one. A string is the name of a published table, such as `mseg/cityscapes`."""
    constant: list[str] = field(default_factory=list)
    """Classes that take the place of an annotation: every image of the source shows one of these, such as
    `[street, highway]` for driving videos. The task is then not evaluated on this source."""
    annotation: str | None = None
    """Name of the source's annotation to use. It may be left out if the source has only one."""
    evaluate: bool = True
    """Whether the task is evaluated on this source's validation split."""
    average: list[str] = field(default_factory=list)
    """Labels over which class means are taken. If empty, all are. Predicting one of the others by mistake still
    counts."""

    def __post_init__(self) -> None:
        if self.constant and (self.classes or self.annotation or self.average):
            raise UserError(f"constant: {self.constant} leaves no room for classes, annotation or average")


@dataclass(kw_only=True)
class SourceConfig:
    """One data set of the mixture."""

    dataset: Source
    """The data set."""
    targets: dict[str, TargetConfig]
    """The source's targets by task name. A task that is not named learns nothing from this source."""
    train: str | None = "train"
    """Split to train on. If null, the source is for evaluation only."""
    val: str | None = "val"
    """Split to evaluate on. If null, the source is for training only."""
    weight: float | None = None
    """Share of the batches, relative to the other sources. If null, it is the number of images."""
    batch: int | None = None
    """Number of images per batch and process. If null, it is `data.batch`."""
    augment: AugmentConfig | None = None
    """Augmentation of this source. If null, it is `data.augment`."""
    faults: Literal["stop", "skip"] = "stop"
    """What happens at an image with a fault, such as a damaged file, a label map of another size, or a label that does
    not exist: `stop` ends the work with one line; `skip` leaves the image out, tells of it once and counts it. In a
    batch, the next image in the order takes its place."""

    def __post_init__(self) -> None:
        check("batch", self.batch, 1, example=8)
        check("weight", self.weight, 0, example=1.0)
        if self.faults not in ("stop", "skip"):
            raise UserError(f"faults: {self.faults!r} is not one of stop, skip")


@dataclass(kw_only=True)
class DataConfig:
    """Everything about the data of a run."""

    sources: dict[str, SourceConfig] = field(default_factory=dict)
    """The data sets by name."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Augmentation of every source that does not set its own."""
    batch: int = 8
    """Number of images per training batch and process."""
    draw: Literal["batch", "step"] = "batch"
    """How often a source is drawn: for each batch, or once for all batches of a step, which `optim.accumulate` may make
    several. With `step`, one process that accumulates N batches sees what N processes see."""
    group_orientation: bool = False
    """Fill each batch with images of one orientation, higher than wide or not, so that little padding is needed. An
    image that finds no partner in its round through the source joins the first batch of its kind in the next. Where the
    data set does not tell the sizes of its images, the headers of all files are read at the start."""
    workers: int = 2
    """Number of processes that load batches ahead in training; 0 loads them in the main process."""
    protocol: MetricProtocol = "mmseg"
    """How answers are measured. With `mmseg`, as MMSegmentation does: the likeliest of the source's own labels, and
    means over the classes that occur. With `paper`, as the paper does: the likeliest of all classes of the task, and
    means over all classes that the source's labels can stand for."""

    def __post_init__(self) -> None:
        check("data.batch", self.batch, 1, example=8)
        check("data.workers", self.workers, 0, example=2)
        if self.protocol not in get_args(MetricProtocol):
            raise UserError(f"data.protocol: {self.protocol!r} is not one of {', '.join(get_args(MetricProtocol))}")
        if self.draw not in ("batch", "step"):
            raise UserError(f"data.draw: {self.draw!r} is not one of batch, step")

    def measured(self, sources: Sequence[str] | None, split: str | None) -> DataConfig:
        """The sources whose images a command goes through outside training, each with its split as `val`.

        Args:
            sources: Their names; None for all.
            split: The split of each; None for its own `val`. Sources without one are left out.

        Raises:
            UserError: If there is no such source, or no split.
        """
        unknown = [name for name in sources or [] if name not in self.sources]
        if unknown:
            raise UserError(f"sources: {unknown[0]!r} is not one of {', '.join(self.sources)}")
        chosen = {
            name: replace(source, val=split or source.val)
            for name, source in self.sources.items()
            if (not sources or name in sources) and (split or source.val)
        }
        if not chosen:
            raise UserError(
                "data.sources: no source has a split to evaluate; give a --config with sources, or --split val"
            )
        return replace(self, sources=chosen)
