"""Any timm feature extractor as four levels, c2 … c5.

timm describes a model's features (`feature_info`), so no table of models is kept here. This file settles what differs
between families: NHWC features, images that do not fill the last patch, and the equal strides of a plain ViT.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, cast

import timm
import torch.nn.functional as F
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn

from upernet.errors import UserError
from upernet.model.same_padding import make_padding_traceable
from upernet.model.swin import has_windows, pad_before_shift

# Options with which families take images of any size; the first set that the model knows is used. A Swin decides by the
# size it is built for whether a stage shifts its windows. At 224 px the last stage is one window, which never shifts;
# published segmentation networks shift in every stage.
_FREE_SIZE: tuple[dict[str, Any], ...] = (
    {"strict_img_size": False, "always_partition": True},
    {"dynamic_img_size": True},
    {"strict_img_size": False},
    {},
)
# Weights are loaded by `pretrained.py` and by checkpoints, never by building a network.
_RESERVED = ("pretrained", "features_only", "checkpoint_path")


class Backbone(nn.Module):
    """A timm model that gives four levels for an image of any size from 32 px up.

    Hierarchical models give their last four levels, usually at strides 4, 8, 16 and 32. A plain ViT gives four of its
    blocks, at the quarters of its depth (or `out_indices` in `args`), which a small learned pyramid brings to strides
    P/4, P/2, P and 2P for patch size P.

    Attributes:
        body: The timm model, under timm's own parameter names.
        options: The arguments of `timm.create_model` beside the name.
        channels: C_i of c2 … c5.
    """

    def __init__(self, name: str, args: dict[str, Any]) -> None:
        """Build the model with random weights.

        Args:
            name: A timm model name.
            args: Further arguments of `timm.create_model`; and `shift_first`, which timm does not have: if true, a Swin
                shifts its windows before it pads them, as timm does and published segmentation networks do not.

        Raises:
            UserError: If timm has no such model, or it refuses `args`, or it cannot give four levels, or a
                backbone other than a Swin is given `shift_first`.
        """
        super().__init__()
        args = dict(args)
        shift_first = args.pop("shift_first", False)
        self.body, self.options = _create(name, args)
        make_padding_traceable(self.body)
        if shift_first and not has_windows(self.body):
            raise UserError(f"backbone {name!r} is no Swin and takes no 'shift_first'; a valid key is 'drop_path_rate'")
        if not shift_first:
            pad_before_shift(self.body)
        info = cast(Any, self.body).feature_info
        strides, channels = info.reduction(), info.channels()
        patch = next((m.patch_size for m in self.body.modules() if isinstance(m, PatchEmbed)), (1, 1))
        self.patch: tuple[int, int] = (int(patch[0]), int(patch[1]))
        self.pyramid: FeaturePyramid | None = None
        if len(set(strides)) == 1:
            if "dynamic_img_size" not in self.options:
                raise UserError(f"backbone {name!r} takes images of one size only; try 'vit_small_patch16_224'")
            depth = len(info.info)
            if depth < 4:
                raise UserError(f"backbone {name!r} has {depth} blocks, not the 4 needed; try 'vit_small_patch16_224'")
            if "out_indices" not in args:
                cast(Any, self.body).out_indices = [(i + 1) * depth // 4 - 1 for i in range(4)]
                channels = channels[-1:] * 4
            self.pyramid = FeaturePyramid(channels[0], self.patch)
        if len(channels) < 4:
            raise UserError(f"backbone {name!r} gives {len(channels)} levels, not the 4 needed; try 'resnet50c'")
        self.channels: list[int] = list(channels[-4:])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of a normalised image.

        Args:
            x: (B, 3, H, W), H and W at least 32, mean about 0 and deviation about 1.

        Returns:
            c2 … c5, each (B, C_i, about H/s, about W/s).
        """
        size = x.shape[-2:]
        if self.patch != (1, 1):
            # Zero is the mean colour here. Only the last, incomplete patch of each row and column is filled up.
            # Written without quotients of negative numbers, which ONNX rounds towards zero.
            down, right = ((n + p - 1) // p * p - n for n, p in zip(size, self.patch, strict=True))
            x = F.pad(x, (0, right, 0, down))
        features: list[Tensor] = self.body(x)[-4:]
        if getattr(self.body, "output_fmt", "NCHW") == "NHWC":
            features = [f.permute(0, 3, 1, 2) for f in features]
        return features if self.pyramid is None else self.pyramid(features, size)


class FeaturePyramid(nn.Module):
    """Rescales four maps of a plain ViT, all at stride P, to P/4, P/2, P and 2P (Bao et al. 2021, as in common use)."""

    def __init__(self, channels: int, patch: tuple[int, int]) -> None:
        super().__init__()
        self.patch = patch
        self.up4 = nn.Sequential(
            nn.ConvTranspose2d(channels, channels, 2, stride=2),
            nn.BatchNorm2d(channels),
            nn.GELU(),
            nn.ConvTranspose2d(channels, channels, 2, stride=2),
        )
        self.up2 = nn.ConvTranspose2d(channels, channels, 2, stride=2)

    def forward(self, features: Sequence[Tensor], size: Sequence[int]) -> list[Tensor]:
        """Rescale, then cut each level to the part that covers the unpadded image.

        Args:
            features: Four maps (B, C, h, w) at the stride of the patch.
            size: (H, W) of the image before padding.

        Returns:
            Four maps (B, C, ceil(H/s), ceil(W/s)).
        """
        c2, c3, c4, c5 = features
        fine = []
        for scale, level in ((4, self.up4(c2)), (2, self.up2(c3))):
            height, width = ((n * scale + p - 1) // p for n, p in zip(size, self.patch, strict=True))
            # Negative padding cuts. With a slice, an exported network would refuse images that fill their last patch if
            # its example did not, or the other way round: tracing decides whether a slice is contiguous.
            fine.append(F.pad(level, (0, width - level.shape[-1], 0, height - level.shape[-2])))
        # Rounding up keeps a 1×1 map alive and agrees with the other levels on an odd one, so neither needs a cut.
        return [*fine, c4, F.max_pool2d(c5, 2, ceil_mode=True)]


def _create(name: str, args: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """The timm model as feature extractor, and the options it was built with."""
    if not timm.is_model(name):  # Also keeps out the prefixes with which timm would download.
        close = get_close_matches(name, timm.list_models(), n=3) or ["resnet50c"]
        raise UserError(f"timm has no model {name!r}; close names: {', '.join(close)}")
    for key in _RESERVED:
        if key in args:
            raise UserError(f"backbone_args: {key!r} cannot be set; a valid key is 'drop_path_rate'")
    for free_size in _FREE_SIZE:
        options = {**free_size, **args}
        try:
            return timm.create_model(name, pretrained=False, features_only=True, **options), options
        except (TypeError, RuntimeError, ValueError, AssertionError, AttributeError) as error:
            if isinstance(error, TypeError) and any(repr(key) in str(error) for key in free_size if key not in args):
                continue
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"backbone {name!r} with {args}: {reason}; try 'resnet50c' with {{}}") from error
    raise AssertionError("the last set of options is empty, so that no error can be about it")
