"""Limits that no file of a UPerNet exceeds, whatever its format."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from upernet.store.archives.descriptions import RefusedError

TENSORS = 2**16
"""Most tensors and arrays in a file. A UPerNet has about a thousand, and its optimiser two more for each."""
SIDE = 2**15
"""Largest side of a tensor that has several dimensions or is empty. Every class takes memory for a name and a colour,
which the size of the file does not limit. The largest side in a UPerNet is 8192."""
LISTING_BYTES = 2**24
"""Most bytes of a list of a file's content: a zip's entries, a safetensors header, an index of shards."""

_WEIGHT = re.compile(
    r"(weight|bias|bias_table|running_mean|running_var|gamma|layer_scale_parameter|position_embeddings?)$"
)
"""Endings of the names of parameters and running statistics; masks, logs and an optimiser's state have others."""


def check_sides(size: tuple[int, ...], where: str) -> None:
    """Refuse a tensor, named `where`, with a side that is longer than any in a UPerNet.

    Raises:
        RefusedError: If it has one.
    """
    if (len(size) > 1 or 0 in size) and max(size) > SIDE:
        raise RefusedError(f"tensor {where!r} claims a side of {max(size)}; no UPerNet has one above {SIDE}")


def check_finite(tensor: Tensor, where: str) -> None:
    """Refuse a weight, named `where`, that holds nan or infinity, since it would silently make every answer nan.

    Raises:
        RefusedError: If it holds one.
    """
    if not _WEIGHT.search(where) or not tensor.is_floating_point() or not tensor.numel():
        return
    # An extreme is nan or infinite if any value is. This is some 30 times as fast as isfinite on every value.
    extremes = torch.stack((tensor if tensor.itemsize > 1 else tensor.float()).aminmax())
    if not extremes.isfinite().all():
        bad = "nan" if extremes.isnan().any() else "inf"
        raise RefusedError(
            f"tensor {where!r} holds {bad}; its training diverged or it is damaged, give an earlier checkpoint"
        )
