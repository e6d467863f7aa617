"""Differences between the Swin tensors of other software and timm's that are more than names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_INDEX = "relative_position_index"


def toolbox_merging(tensors: Mapping[str, Tensor], pattern: str, *, back: bool = False) -> dict[str, Tensor]:
    """Reorder the inputs of patch merging between the toolbox's layout and that of the original and timm.

    The toolbox unfolds 2×2 patches: channel by channel, positions (0,0), (0,1), (1,0), (1,1). The original joins four
    maps: position by position in the order (0,0), (1,0), (0,1), (1,1), each with all channels.

    Args:
        tensors: A state dict. Patch merging has a linear weight (out, 4C) and a norm (4C,).
        pattern: Regular expression that matches the names of these tensors.
        back: Reorder from the original's layout to the toolbox's instead.
    """
    return {k: _reorder(v, back) if re.fullmatch(pattern, k) else v for k, v in tensors.items()}


def _reorder(x: Tensor, back: bool) -> Tensor:
    lead = x.shape[:-1]
    if back:
        return x.reshape(*lead, 4, -1)[..., [0, 2, 1, 3], :].transpose(-1, -2).reshape(*lead, -1)
    return x.reshape(*lead, -1, 4)[..., [0, 2, 1, 3]].transpose(-1, -2).reshape(*lead, -1)


def join_attention(tensors: Mapping[str, Tensor], names: tuple[str, str, str], joined: str) -> dict[str, Tensor]:
    """Concatenate the query, key and value tensors of each attention.

    Args:
        tensors: State dict.
        names: Their three names, such as `query`, which stand between dots.
        joined: The name of the concatenated tensor.
    """
    result: dict[str, Tensor] = {}
    for key, value in tensors.items():
        parts = key.rsplit(".", 2)
        if len(parts) < 3 or parts[1] not in names:
            result[key] = value
        elif parts[1] == names[0]:
            three = [tensors.get(f"{parts[0]}.{name}.{parts[2]}") for name in names]
            whole = [x for x in three if x is not None]
            # If one of them is missing, the shape is wrong, which is reported by name later.
            result[f"{parts[0]}.{joined}.{parts[2]}"] = torch.cat(whole)
    return result


def split_attention(tensors: Mapping[str, Tensor], names: tuple[str, str, str], joined: str) -> dict[str, Tensor]:
    """The inverse of `join_attention`."""
    result: dict[str, Tensor] = {}
    for key, value in tensors.items():
        parts = key.rsplit(".", 2)
        if len(parts) == 3 and parts[1] == joined:
            pieces = zip(names, value.chunk(3), strict=True)
            result |= {f"{parts[0]}.{name}.{parts[2]}": piece for name, piece in pieces}
        else:
            result[key] = value
    return result


def with_position_indices(tensors: Mapping[str, Tensor], table: str) -> dict[str, Tensor]:
    """Add the index of each relative position table, which other software stores although the window gives it.

    Args:
        tensors: State dict in their names.
        table: The end of the tables' names.
    """
    result = dict(tensors)
    for key, value in tensors.items():
        if key.endswith(table):
            window = int((value.shape[0] ** 0.5 + 1) / 2)
            result[key.removesuffix(table) + table.replace("relative_position_bias_table", _INDEX)] = _indices(window)
    return result


def _indices(window: int) -> Tensor:
    """(w², w²) int64: row of the table for each pair of positions in a window."""
    rows, columns = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    place = torch.stack([rows.flatten(), columns.flatten()])
    difference = place[:, :, None] - place[:, None, :] + window - 1
    return difference[0] * (2 * window - 1) + difference[1]
