"""Downloads of a model's weights by any kind of address."""

from __future__ import annotations

import sys
from pathlib import Path

from upernet.errors import WorkError
from upernet.screen import print_line
from upernet.zoo.download import fetch, is_fetched
from upernet.zoo.hub import fetch_hub
from upernet.zoo.published import Published
from upernet.zoo.transfer import ELSEWHERE

PICKLED = (b"PK\x03\x04", b"\x80")
"""Beginnings of files of PyTorch, zipped or not. A server may answer any address with a page that is no such file."""


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


def fetch_published(model: Published, mirror: str | None = None) -> list[Path]:
    """Download the files of a published model, unless they are in the cache.

    All come from one place. If one of them cannot be had from the first place, all are taken from the second, and a
    line on the error stream says so.

    Args:
        model: The model.
        mirror: Server to download from instead; see `fetch` and `fetch_hub`.

    Raises:
        WorkError: If no place has all files.
    """
    if not model.copies:
        return [fetch_model(address, mirror) for address in model.addresses]
    places = [model.addresses, model.copies]
    places.sort(key=lambda place: not all(map(is_fetched, place)))  # what is here already comes first
    try:
        return [fetch(address, mirror=mirror, begins=PICKLED) for address in places[0]]
    except WorkError as error:
        print_line(f"upernet: {str(error).removesuffix(f'; {ELSEWHERE}')}; trying {places[1][0]}", sys.stderr)
        return [fetch(address, mirror=mirror, begins=PICKLED) for address in places[1]]
