"""What no file of a UPerNet needs, whatever its format."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from upernet.store.archives.descriptions import RefusedError

TENSORS = 2**16
"""Most tensors and arrays of a file; a UPerNet has about a thousand, its optimiser two more for each."""
SIDE = 2**15
"""Largest size in a dimension of a tensor that has several, or is empty: each class that it stands for takes a name and
a colour, which no data in the file pay for. The largest of a UPerNet is 8192."""
LISTING_BYTES = 2**24
"""Longest list of what a file holds: a zip's entries, a safetensors header, an index of shards."""

_WEIGHT = re.compile(
    r"(weight|bias|bias_table|running_mean|running_var|gamma|layer_scale_parameter|position_embeddings?)$"
)
"""Ends of the names that parameters and running statistics have; masks, logs and an optimiser's state have others."""


def check_sides(size: tuple[int, ...], where: str) -> None:
    """Refuse a tensor, called `where`, of a size that no UPerNet has in one dimension.

    Raises:
        RefusedError: If it has one.
    """
    if (len(size) > 1 or 0 in size) and max(size) > SIDE:
        raise RefusedError(f"tensor {where!r} claims a side of {max(size)}, no UPerNet has one above {SIDE}")


def check_finite(tensor: Tensor, where: str) -> None:
    """Refuse a weight, called `where`, that holds nan or infinity: it would make every answer nan, without a word.

    Raises:
        RefusedError: If it does.
    """
    if not _WEIGHT.search(where) or not tensor.is_floating_point() or not tensor.numel():
        return
    # Either extreme is nan or infinite if any value is: some 30 times as fast as looking at each with isfinite.
    extremes = torch.stack((tensor if tensor.itemsize > 1 else tensor.float()).aminmax())
    if not extremes.isfinite().all():
        bad = "nan" if extremes.isnan().any() else "inf"
        raise RefusedError(
            f"tensor {where!r} holds {bad}; its training went astray or it is damaged, give a checkpoint from before"
        )
