"""Weights from the network, by any address of a model."""

from __future__ import annotations

from pathlib import Path

from upernet.zoo.download import fetch
from upernet.zoo.hub import fetch_hub


def fetch_model(address: str, mirror: str | None = None) -> Path:
    """Fetch the weights of a model by address.

    Args:
        address: `https://…` of a file, or `hf://owner/name` or `hf://owner/name@revision` of a hub repository.
        mirror: See `fetch` and `fetch_hub`.

    Returns:
        The file, or the folder of the repository.

    Raises:
        UserError: If the address is of neither form.
        WorkError: If it cannot be had.
    """
    scheme, _, rest = address.partition("://")
    if scheme.lower() == "hf":
        repo, _, revision = rest.partition("@")
        return fetch_hub(repo, revision=revision or None, mirror=mirror)
    return fetch(address, mirror=mirror)
