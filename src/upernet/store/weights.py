"""Comparing tensors from a file with a network, and loading them into it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch

from upernet.errors import WorkError
from upernet.store.dialects.keys import first_few

if TYPE_CHECKING:
    from torch import Tensor

    from upernet.model import UPerNet

_COUNT = ".num_batches_tracked"
"""End of the names of batch norm's counts, which old files do not have."""


def load_weights(network: UPerNet, tensors: dict[str, Tensor], where: str, *, partial: bool = False) -> None:
    """Load weights into a network. The names and shapes of tensors must match on both sides.

    Tensors that are loaded are taken out of the mapping, one after the other, so that their memory becomes free.

    Args:
        network: The network, changed in place.
        tensors: The weights by the network's names. Batch norm's counts of batches may be missing.
        where: The file that they were read from, for the error line.
        partial: Leave out heads that only one side has, or that differ in shape; everything else must match.

    Raises:
        WorkError: If they do not match. The network is then unchanged.
    """
    own = network.state_dict()
    left_out: set[str] = set()
    if partial:
        fits = {k for k in tensors if k in own and own[k].shape == tensors[k].shape}
        other = {k for k in own.keys() | tensors.keys() if k not in fits and not k.endswith(_COUNT)}
        left_out = {k.split(".")[1] for k in other if k.startswith("heads.")}

    def is_left_out(key: str) -> bool:
        return key.startswith("heads.") and key.split(".")[1] in left_out

    loaded = {k: v for k, v in tensors.items() if not is_left_out(k)}
    check_tensors(network, loaded | {k: v for k, v in own.items() if is_left_out(k)}, where)
    names = list(loaded)
    del loaded
    with torch.no_grad():
        for key in names:
            own[key].copy_(tensors.pop(key))


def check_tensors(
    network: UPerNet, tensors: Mapping[str, Tensor], where: str, named: Callable[[str], str] = str
) -> None:
    """Compare tensors with those of a network, by name and shape. Batch norm's counts of batches may be missing.

    Args:
        network: The network; it may be on the meta device.
        tensors: The tensors by the network's names.
        where: The file that they were read from, for the error line.
        named: Gives the file's name of a tensor of the network.

    Raises:
        WorkError: If a tensor is missing, has no place in the network, or has another shape.
    """
    own = network.state_dict()
    wrong = [f"{named(k)} is missing" for k in own if k not in tensors and not k.endswith(_COUNT)]
    wrong += [f"{named(k)} has no place" for k in tensors if k not in own]
    for key in own.keys() & tensors.keys():
        here, there = list(own[key].shape), list(tensors[key].shape)
        wrong += [f"{named(key)} is {there} instead of {here}"] if here != there else []
    if wrong:
        config = network.config
        backbone = f"{config.backbone} {config.backbone_args or ''}".strip()
        raise WorkError(
            f"{where}: {len(wrong)} tensors do not fit the network, width {config.width} on {backbone}: "
            f"{first_few(wrong)}"
        )
