"""Downloads of files by address, kept in PyTorch's usual cache.

Nothing here imports torch. An interrupted download resumes where it stopped. A file whose sha256 is known is compared
with it on every use.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from functools import partial
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from upernet.errors import UserError, WorkError
from upernet.files import file_part, lock, put_in_place
from upernet.screen import print_line
from upernet.zoo.transfer import RESUMES, discard, note_of, read_note, transfer, write_note

_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})(?:\.[A-Za-z]\w*)+$")
_DATE_OR_COUNT = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])|0+[1-9]\d*")
"""Ends of names that look like a hash but are none: a date, `20200605`, or padded steps such as `00080000`."""
_HASHES: dict[tuple[int, ...], str] = {}
"""Hashes of the files that this process has seen: fetching a file and opening it both need its hash."""


def cached_path(address: str) -> Path:
    """The path at which `fetch` keeps the file of an address, in `$TORCH_HOME/hub/checkpoints` as other programs do.

    Raises:
        UserError: If the address does not start with `https://` or `http://`, or names no file.
    """
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host:
        raise UserError(f"{address!r} is no address of weights; for example https://host/model.pth or hf://owner/name")
    last = re.split(r"[/\\]", unquote(parts.path))[-1]
    name = file_part(last, keep=".+=").lstrip(".")
    if not name:
        raise UserError(f"{address!r} names no file; for example https://host/model.pth")
    return cache_folder() / "hub" / "checkpoints" / name


def cache_folder() -> Path:
    """PyTorch's folder for what can be had again: `$TORCH_HOME`, or else `torch` in `$XDG_CACHE_HOME` or `~/.cache`."""
    home = os.environ.get("TORCH_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    return Path(home).expanduser()


def published_hash(name: str) -> str | None:
    """The first digits of the sha256 with which a file name ends, as in `model-aa54cb54.pth`; None if it has none."""
    match = _HASH_IN_NAME.search(name)
    return None if match is None or _DATE_OR_COUNT.fullmatch(match[1]) else match[1]


def is_fetched(address: str) -> bool:
    """Whether the file of an address is in the cache, whole and checked."""
    path = cached_path(address)
    return _is_cached(path, address, published_hash(path.name))


def fetch(
    address: str, *, sha256: str | None = None, mirror: str | None = None, begins: tuple[bytes, ...] | None = None
) -> Path:
    """Find the file of an address in the cache, or download it there.

    Args:
        address: `https://…` or `http://…`.
        sha256: Hash of the file, or at least its first 8 hexadecimal digits; None for the hash with which the file
            name ends, if it does. Without a hash, a cached file is used unless it came from another address.
        mirror: Replaces scheme and host of the address, whose path is kept; None for `$UPERNET_MIRROR`, if that is set.
        begins: Bytes with one of which a file without a hash must begin; None if it may begin with any.

    Returns:
        Path of the whole, checked file.

    Raises:
        UserError: If the address, the hash or the mirror is malformed.
        WorkError: If the file cannot be downloaded, or is not the one that was published.
    """
    path = cached_path(address)
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{8,64}", sha256):
        raise UserError(f"sha256 {sha256!r} is no hash; for example aa54cb54")
    expected = sha256.lower() if sha256 else published_hash(path.name)
    source = _mirrored(address, mirror)
    if _is_cached(path, address, expected):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        waiting = partial(print_line, f"upernet: {path}: waiting for another download of it", sys.stderr)
        # On Windows, if two processes download one file at once, only its hash protects it.
        with lock(path.with_name(f"{path.name}.lock"), waiting):
            if not _is_cached(path, address, expected, tell=True):
                part = path.with_name(f"{path.name}.part")
                transfer(source, part, path.name, checked=expected is not None)
                if expected is not None:
                    _check_hash(part, expected, source)
                else:
                    _check_beginning(part, begins, source)
                    # The name alone does not tell two files called model.pth apart.
                    write_note(path, {"address": address})
                put_in_place(part, path)
                note_of(part).unlink(missing_ok=True)
    except OSError as error:
        raise WorkError(
            f"{address}: cannot write {error.filename or path} ({error.strerror or error}); {RESUMES}, "
            "TORCH_HOME names another folder"
        ) from error
    return path


def file_hash(path: Path) -> str:
    """The sha256 of a file, computed again only if the file was replaced or written to."""
    with open(path, "rb") as file:
        state = os.fstat(file.fileno())
        same = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
        if same not in _HASHES:
            _HASHES[same] = hashlib.file_digest(file, "sha256").hexdigest()
        return _HASHES[same]


def _check_hash(part: Path, expected: str, source: str) -> None:
    actual = file_hash(part)
    if not actual.startswith(expected):
        discard(part)
        raise WorkError(
            f"{source}: sha256 begins with {actual[: max(len(expected), 8)]} instead of {expected}, so it is not the "
            "published file; it was deleted"
        )


def _check_beginning(part: Path, begins: tuple[bytes, ...] | None, source: str) -> None:
    with open(part, "rb") as file:
        found = file.read(8)
    if begins is not None and not found.startswith(begins):
        discard(part)
        raise WorkError(f"{source}: begins with {found!r}, so it is no checkpoint; it was deleted")


# --- addresses ------------------------------------------------------------------------------------------------------


def checked_mirror(mirror: str) -> str:
    """The address of a mirror without a slash at its end.

    Raises:
        UserError: If it is no `https://` or `http://` address.
    """
    try:
        parts = urlsplit(mirror)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        valid = False
    if not valid:
        raise UserError(f"mirror {mirror!r} is no address; for example https://mirror.example/omm")
    return mirror.rstrip("/")


def _mirrored(address: str, mirror: str | None) -> str:
    """The address to request, with the mirror's host if there is one, in characters that HTTP can carry."""
    mirror = mirror or os.environ.get("UPERNET_MIRROR")
    if mirror:
        parts = urlsplit(address)
        address = checked_mirror(mirror) + parts.path + (f"?{parts.query}" if parts.query else "")
    return quote(address.partition("#")[0], safe="%/:=&?~+!$,;'@()*[]")


# --- the cache ------------------------------------------------------------------------------------------------------


def _is_cached(path: Path, address: str, expected: str | None, tell: bool = False) -> bool:
    """Whether a file exists and is the one that the address names; `tell` prints a line if it is another one."""
    if not path.is_file():
        return False
    if expected is None:
        origin = read_note(path).get("address", address)
        if origin == address:
            return True
        why = f"came from {origin}"
    else:
        actual = file_hash(path)
        if actual.startswith(expected):
            return True
        why = f"sha256 begins with {actual[: len(expected)]} instead of {expected}"
    if tell:
        print_line(f"upernet: {path}: {why}; downloading it again", sys.stderr)
    return False
