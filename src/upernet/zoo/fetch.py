"""Downloads of a model's weights by any kind of address."""

from __future__ import annotations

from pathlib import Path

from upernet.zoo.download import fetch
from upernet.zoo.hub import fetch_hub


def fetch_model(address: str, mirror: str | None = None) -> Path:
    """Download the weights of a model, unless they are in the cache.

    Args:
        address: `https://…` of a file, or `hf://owner/name` or `hf://owner/name@revision` of a hub repository.
        mirror: Server to download from instead; see `fetch` and `fetch_hub`.

    Returns:
        The file, or the folder of the repository.

    Raises:
        UserError: If the address is of neither form.
        WorkError: If the weights cannot be downloaded.
    """
    scheme, _, rest = address.partition("://")
    if scheme.lower() == "hf":
        repo, _, revision = rest.partition("@")
        return fetch_hub(repo, revision=revision or None, mirror=mirror)
    return fetch(address, mirror=mirror)
