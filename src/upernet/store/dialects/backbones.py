"""Which timm model a backbone's tensors belong to, told from their shapes alone."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers.drop import DropBlock2d, DropPath
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from upernet.errors import UserError
from upernet.model.backbone import Backbone

PREFIX = "backbone.body."

_RESNETS: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
_GROUPED: dict[tuple[str, int, int], str] = {
    ("resnet50", 32, 4): "resnext50_32x4d",
    ("resnet101", 32, 4): "resnext101_32x4d",
    ("resnet101", 32, 8): "resnext101_32x8d",
    ("resnet101", 32, 16): "resnext101_32x16d",
    ("resnet101", 32, 32): "resnext101_32x32d",
    ("resnet101", 64, 4): "resnext101_64x4d",
    ("resnet50", 1, 128): "wide_resnet50_2",
    ("resnet101", 1, 128): "wide_resnet101_2",
}
_CONVNEXTS: dict[tuple[tuple[int, ...], int], str] = {
    ((3, 3, 9, 3), 96): "convnext_tiny",
    ((3, 3, 27, 3), 96): "convnext_small",
    ((3, 3, 27, 3), 128): "convnext_base",
    ((3, 3, 27, 3), 192): "convnext_large",
    ((3, 3, 27, 3), 256): "convnext_xlarge",
}
_SWINS: dict[tuple[tuple[int, ...], int, int], str] = {
    ((2, 2, 6, 2), 96, 7): "swin_tiny_patch4_window7_224",
    ((2, 2, 18, 2), 96, 7): "swin_small_patch4_window7_224",
    ((2, 2, 18, 2), 128, 7): "swin_base_patch4_window7_224",
    ((2, 2, 18, 2), 128, 12): "swin_base_patch4_window12_384",
    ((2, 2, 18, 2), 192, 7): "swin_large_patch4_window7_224",
    ((2, 2, 18, 2), 192, 12): "swin_large_patch4_window12_384",
}

_SIGNATURES = {
    "deep": ("conv1.0.weight", "layer1.0.conv1.weight"),
    "plain": ("conv1.weight", "layer1.0.conv1.weight"),
    "convnext": ("stem_0.weight", "stages_0.blocks.0.conv_dw.weight"),
    "swin": ("patch_embed.proj.weight", "layers_0.blocks.0.attn.qkv.weight"),
}
"""Names of tensors of the stem and of the first block; no two families share them."""
_WITHOUT_EFFECT = (nn.Identity, nn.Dropout, DropPath, DropBlock2d)
"""Modules that change nothing in evaluation mode."""


@dataclass(frozen=True)
class ResNet:
    """The architecture of a ResNet, as the shapes of its tensors show it.

    Attributes:
        bottleneck: Whether a block is 1×1, 3×3, 1×1 convolutions rather than two 3×3 ones.
        depths: Number of blocks of each stage.
        channels: C_i of c2 … c5.
        widths: Channels of the 3×3 convolutions of each stage.
        groups: Number of groups of these convolutions.
        stem: Channels after the first and after the last convolution of the stem.
        deep: Whether the stem is three 3×3 convolutions rather than one 7×7.
        averaged: Whether shortcuts with a stride average before they convolve.
    """

    bottleneck: bool
    depths: list[int]
    channels: list[int]
    widths: list[int]
    groups: int
    stem: tuple[int, int]
    deep: bool
    averaged: bool

    @property
    def planes(self) -> list[int]:
        """Nominal channels of each stage: those before the expansion by four of a bottleneck."""
        return [c // 4 for c in self.channels] if self.bottleneck else self.channels

    @property
    def standard_name(self) -> str | None:
        """`resnet18` … `resnet152` if the blocks are those of one, else none."""
        return _RESNETS.get((self.bottleneck, tuple(self.depths)))

    def identify(self) -> tuple[str, dict[str, Any]]:
        """The timm name and its arguments."""
        name = self.standard_name
        args: dict[str, Any] = {}
        if name is None:
            name = "resnet50" if self.bottleneck else "resnet18"
            args["layers"] = self.depths
        usual = self.planes == [64, 128, 256, 512]
        if not usual:
            args["channels"] = self.planes
        base = self.widths[0] * 64 // (self.planes[0] * self.groups) if self.bottleneck else 64
        if usual and not (self.deep or self.averaged) and (name, self.groups, base) in _GROUPED:
            return _GROUPED[name, self.groups, base], args
        args |= {"cardinality": self.groups} if self.groups != 1 else {}
        args |= {"base_width": base} if base != 64 else {}
        if self.deep:
            letter = {(32, False): "c", (64, False): "s", (32, True): "d"}.get((self.stem[0], self.averaged))
            if letter and name in ("resnet50", "resnet101", "resnet152"):
                return name + letter, args
            args |= {"stem_type": "deep", "stem_width": self.stem[0]}
        return name, args | ({"avg_down": True} if self.averaged else {})


@dataclass(frozen=True)
class ConvNeXt:
    """The architecture of a ConvNeXt, as the shapes of its tensors show it.

    Attributes:
        depths: Number of blocks of each stage.
        channels: C_i of c2 … c5.
    """

    depths: list[int]
    channels: list[int]

    def identify(self) -> tuple[str, dict[str, Any]]:
        """The timm name and its arguments."""
        name = _CONVNEXTS.get((tuple(self.depths), self.channels[0]))
        if name is not None and self.channels == [self.channels[0] * 2**n for n in range(4)]:
            return name, {}
        return "convnext_tiny", {"depths": self.depths, "dims": self.channels}


@dataclass(frozen=True)
class Swin:
    """The architecture of a Swin, as the shapes of its tensors show it.

    Attributes:
        depths: Number of blocks of each stage.
        channels: C_i of c2 … c5.
        heads: Number of attention heads of each stage.
        window: Side of a window, in positions.
    """

    depths: list[int]
    channels: list[int]
    heads: list[int]
    window: int

    def identify(self) -> tuple[str, dict[str, Any]]:
        """The timm name and its arguments."""
        name = _SWINS.get((tuple(self.depths), self.channels[0], self.window))
        if name is not None and self.heads == [self.channels[0] // 32 * 2**n for n in range(4)]:
            return name, {}
        shape = {"embed_dim": self.channels[0], "num_heads": self.heads, "window_size": self.window}
        return "swin_tiny_patch4_window7_224", {"depths": self.depths, **shape}


def backbone_family(tensors: Mapping[str, Tensor]) -> str | None:
    """The family of a backbone in our names: `deep` or `plain` (ResNet by its stem), `convnext`, `swin` or none."""
    return next((name for name, signs in _SIGNATURES.items() if all(PREFIX + s in tensors for s in signs)), None)


def inspect_backbone(
    tensors: Mapping[str, Tensor], where: str, named: Callable[[str], str] = str
) -> ResNet | ConvNeXt | Swin:
    """The architecture of a backbone, from the shapes of its tensors.

    Args:
        tensors: The tensors of a network, in our names.
        where: Name of the file, for the error line.
        named: Gives the file's name of a tensor of ours, for the error line.

    Raises:
        UserError: If it is no ResNet, ConvNeXt or Swin.
    """
    body = {k.removeprefix(PREFIX): tuple(v.shape) for k, v in tensors.items() if k.startswith(PREFIX)}
    kind = next((kind for kind, (_, block) in _SIGNATURES.items() if block in body), None)
    if kind is None:
        raise UserError(f"{where}: the backbone is no ResNet, ConvNeXt or Swin")
    try:
        if kind in ("deep", "plain"):
            return _resnet(body)
        return _convnext(body) if kind == "convnext" else _swin(body)
    except KeyError as error:
        raise UserError(f"{where}: the backbone is incomplete: no {named(PREFIX + error.args[0])}") from error
    except (IndexError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{where}: the backbone's tensors have shapes that no ResNet, ConvNeXt or Swin has") from error


def identify_backbone(
    tensors: Mapping[str, Tensor], where: str, named: Callable[[str], str] = str
) -> tuple[str, dict[str, Any], list[int]]:
    """The timm name of a backbone, its arguments, and the channels of c2 … c5; errors as `inspect_backbone`."""
    shape = inspect_backbone(tensors, where, named)
    return *shape.identify(), shape.channels


def computes_the_same(name: str, args: dict[str, Any], other: str, others: dict[str, Any]) -> bool:
    """Whether two timm models compute the same in evaluation mode, given the same tensors.

    Both are built without memory and compared module by module: strides, dilations, activations, blur pools, epsilons,
    and how a Swin places its windows. Settings that act in training only, such as `drop_path_rate`, do not count.

    Raises:
        UserError: If timm has no such model.
    """
    with torch.device("meta"):
        first, second = Backbone(name, args), Backbone(other, others)
    return first.channels == second.channels and _modules(first) == _modules(second)


def _modules(backbone: Backbone) -> dict[str, str]:
    described = {}
    for name, module in backbone.body.named_modules():
        if isinstance(module, SwinTransformerBlock):
            described[name] = f"{type(module).__name__} {module.window_size} {module.shift_size}"
        elif not isinstance(module, _WITHOUT_EFFECT) and not list(module.children()):
            described[name] = re.sub(r", momentum=[^,)]+", "", repr(module))
    return described


def _resnet(body: dict[str, tuple[int, ...]]) -> ResNet:
    bottleneck = "layer1.0.conv3.weight" in body
    stages = [f"layer{n}" for n in (1, 2, 3, 4)]
    last = "conv3" if bottleneck else "conv2"
    deep = "conv1.0.weight" in body
    width, per_group = body["layer1.0.conv2.weight"][:2]
    return ResNet(
        bottleneck=bottleneck,
        depths=[_blocks(body, f"{stage}.") for stage in stages],
        channels=[body[f"{stage}.0.{last}.weight"][0] for stage in stages],
        widths=[body[f"{stage}.0.conv2.weight"][0] for stage in stages],
        groups=width // per_group,
        stem=(body["conv1.0.weight" if deep else "conv1.weight"][0], body["bn1.weight"][0]),
        deep=deep,
        averaged=len(body.get("layer2.0.downsample.1.weight", ())) == 4,
    )


def _convnext(body: dict[str, tuple[int, ...]]) -> ConvNeXt:
    return ConvNeXt(
        depths=[_blocks(body, f"stages_{n}.blocks.") for n in range(4)],
        channels=[body[f"stages_{n}.blocks.0.conv_dw.weight"][0] for n in range(4)],
    )


def _swin(body: dict[str, tuple[int, ...]]) -> Swin:
    tables = [body[f"layers_{n}.blocks.0.attn.relative_position_bias_table"] for n in range(4)]
    return Swin(
        depths=[_blocks(body, f"layers_{n}.blocks.") for n in range(4)],
        channels=[body[f"layers_{n}.blocks.0.attn.qkv.weight"][1] for n in range(4)],
        heads=[table[1] for table in tables],
        window=(math.isqrt(tables[0][0]) + 1) // 2,
    )


def _blocks(body: dict[str, tuple[int, ...]], stage: str) -> int:
    return len({key.removeprefix(stage).partition(".")[0] for key in body if key.startswith(stage)})
