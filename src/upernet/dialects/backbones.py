"""Which timm model a backbone's tensors belong to, told from their shapes alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from upernet.config import UserError

PREFIX = "backbone.body."

_RESNETS: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
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


_SIGNS = {
    "deep": ("conv1.0.weight", "layer1.0.conv1.weight"),
    "plain": ("conv1.weight", "layer1.0.conv1.weight"),
    "convnext": ("stem_0.weight", "stages_0.blocks.0.conv_dw.weight"),
    "swin": ("patch_embed.proj.weight", "layers_0.blocks.0.attn.qkv.weight"),
}


def family(tensors: Mapping[str, Tensor]) -> str | None:
    """`deep` or `plain` by the stem of a ResNet, `convnext`, `swin`, or none, of a network in our names."""
    return next((name for name, signs in _SIGNS.items() if all(PREFIX + s in tensors for s in signs)), None)


def identify(tensors: Mapping[str, Tensor], where: str) -> tuple[str, dict[str, Any], list[int]]:
    """The timm name, its arguments and the channels of c2 … c5.

    Args:
        tensors: A network in our names; those of the backbone are looked at.
        where: For the error line.

    Raises:
        UserError: If it is no ResNet, ConvNeXt or Swin.
    """
    body = {k.removeprefix(PREFIX): tuple(v.shape) for k, v in tensors.items() if k.startswith(PREFIX)}
    try:
        if "layer1.0.conv1.weight" in body:
            return _resnet(body)
        if "stages_0.blocks.0.conv_dw.weight" in body:
            return _convnext(body)
        if "layers_0.blocks.0.attn.qkv.weight" in body:
            return _swin(body)
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise UserError(f"{where}: the backbone is incomplete: {error}") from error
    raise UserError(f"{where}: the backbone is no ResNet, ConvNeXt or Swin")


def _resnet(body: dict[str, tuple[int, ...]]) -> tuple[str, dict[str, Any], list[int]]:
    bottleneck = "layer1.0.conv3.weight" in body
    depths = tuple(_count(body, f"layer{n}.{{}}.conv1.weight") for n in (1, 2, 3, 4))
    last = "conv3" if bottleneck else "conv2"
    channels = [body[f"layer{n}.0.{last}.weight"][0] for n in (1, 2, 3, 4)]
    planes = tuple(c // 4 for c in channels) if bottleneck else tuple(channels)
    averaged = len(body.get("layer2.0.downsample.1.weight", ())) == 4
    name = _RESNETS.get((bottleneck, depths))
    args: dict[str, Any] = {}
    if name is None:
        name = "resnet50" if bottleneck else "resnet18"
        args["layers"] = list(depths)
    if planes != (64, 128, 256, 512):
        args["channels"] = list(planes)
    if bottleneck:
        width, per_group = body["layer1.0.conv2.weight"][:2]
        groups = width // per_group
        base = width * 64 // (planes[0] * groups)
        args |= ({"cardinality": groups} if groups != 1 else {}) | ({"base_width": base} if base != 64 else {})
    if "conv1.0.weight" in body:
        stem = body["conv1.0.weight"][0]
        letter = {(32, False): "c", (64, False): "s", (32, True): "d"}.get((stem, averaged))
        if letter and name in ("resnet50", "resnet101", "resnet152"):
            return name + letter, args, channels
        args |= {"stem_type": "deep", "stem_width": stem} | ({"avg_down": True} if averaged else {})
    elif averaged:
        args["avg_down"] = True
    return name, args, channels


def _convnext(body: dict[str, tuple[int, ...]]) -> tuple[str, dict[str, Any], list[int]]:
    depths = tuple(_count(body, f"stages_{n}.blocks.{{}}.conv_dw.weight") for n in range(4))
    channels = [body[f"stages_{n}.blocks.0.conv_dw.weight"][0] for n in range(4)]
    name = _CONVNEXTS.get((depths, channels[0]))
    if name is not None and channels == [channels[0] * 2**n for n in range(4)]:
        return name, {}, channels
    return "convnext_tiny", {"depths": list(depths), "dims": channels}, channels


def _swin(body: dict[str, tuple[int, ...]]) -> tuple[str, dict[str, Any], list[int]]:
    depths = tuple(_count(body, f"layers_{n}.blocks.{{}}.attn.qkv.weight") for n in range(4))
    channels = [body[f"layers_{n}.blocks.0.attn.qkv.weight"][1] for n in range(4)]
    tables = [body[f"layers_{n}.blocks.0.attn.relative_position_bias_table"] for n in range(4)]
    window = (math.isqrt(tables[0][0]) + 1) // 2
    heads = [table[1] for table in tables]
    name = _SWINS.get((depths, channels[0], window))
    if name is not None and heads == [channels[0] // 32 * 2**n for n in range(4)]:
        return name, {}, channels
    shape = {"depths": list(depths), "embed_dim": channels[0], "num_heads": heads, "window_size": window}
    return "swin_tiny_patch4_window7_224", shape, channels


def _count(body: dict[str, tuple[int, ...]], template: str) -> int:
    number = 0
    while template.format(number) in body:
        number += 1
    return number
