"""Files by their addresses, kept in the usual cache.

Nothing here imports torch. A download that broke off goes on where it stopped; a file whose sha256 is known is compared
with it on every use.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit

from upernet.errors import UserError, WorkError
from upernet.files import write_whole

TIMEOUT = 30.0
"""Seconds without a byte after which a server counts as gone."""
RETRIES = 3
"""How often a connection that broke off is taken up again before the command gives up."""
PAUSE = 1.0
"""Seconds before the first of these; each further one waits as much longer."""
CHUNK = 1 << 18

_RESUMES = "the same command resumes"
ELSEWHERE = f"{_RESUMES}; --mirror https://mirror.example/omm or UPERNET_MIRROR names another server"
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})(?:\.[A-Za-z]\w*)+$")
_HASHES: dict[tuple[int, ...], str] = {}
"""Of files seen by this process: fetching a file and opening it both ask for its hash."""
_DATE_OR_COUNT = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])|0+[1-9]\d*")
"""What a name can end in that looks like a hash: `20200605`, or padded steps such as `00080000`."""


class _BrokeOff(Exception):
    """The server stopped in the middle of the file."""


class _StartOver(Exception):
    """What is on disk is no beginning of what the server has."""


def cached_path(address: str) -> Path:
    """Where `fetch` keeps the file of an address: `$TORCH_HOME/hub/checkpoints`, shared with other programs.

    Raises:
        UserError: If the address is no `https://` or `http://` one, or names no file.
    """
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host:
        raise UserError(f"{address!r} is no address of weights; for example https://host/model.pth or hf://owner/name")
    last = re.split(r"[/\\]", unquote(parts.path))[-1]
    name = re.sub(r"[^\w.+=-]", "_", last, flags=re.ASCII).lstrip(".")
    if not name:
        raise UserError(f"{address!r} names no file; for example https://host/model.pth")
    home = os.environ.get("TORCH_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    return Path(home).expanduser() / "hub" / "checkpoints" / name


def published_hash(name: str) -> str | None:
    """The beginning of the sha256 that a file name ends in, as in `model-aa54cb54.pth`, if it does."""
    found = _HASH_IN_NAME.search(name)
    return None if found is None or _DATE_OR_COUNT.fullmatch(found[1]) else found[1]


def fetch(address: str, *, sha256: str | None = None, mirror: str | None = None) -> Path:
    """The file of an address, from the cache if it is there, otherwise downloaded into it.

    Args:
        address: `https://…` or `http://…`.
        sha256: Hash of the file or its beginning, at least 8 hexadecimal digits; if none, the file name's own where
            it ends in one. Without any, a cached file is taken for this one unless it came from another address.
        mirror: Stands for scheme and host of the address, whose path is kept; if none, `$UPERNET_MIRROR`.

    Returns:
        Path of the whole, checked file.

    Raises:
        UserError: If the address, the hash or the mirror is none.
        WorkError: If the file cannot be had, or is not the one that was published.
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
        with _lock(path.with_name(f"{path.name}.lock")):
            if not _is_cached(path, address, expected, tell=True):
                _download(source, path, expected)
                if expected is None:
                    # The name alone does not say which of two files called model.pth this is.
                    _write_json(_beside(path, "json"), {"address": address})
                os.replace(_beside(path, "part"), path)
                _beside(path, "part.json").unlink(missing_ok=True)
    except OSError as error:
        raise WorkError(
            f"{address}: cannot write {error.filename or path} ({error.strerror or error}); {_RESUMES}, "
            "TORCH_HOME names another folder"
        ) from error
    return path


# --- addresses ------------------------------------------------------------------------------------------------------


def checked_mirror(mirror: str) -> str:
    try:
        parts = urlsplit(mirror)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        valid = False
    if not valid:
        raise UserError(f"mirror {mirror!r} is no address; for example https://mirror.example/omm")
    return mirror.rstrip("/")


def _mirrored(address: str, mirror: str | None) -> str:
    """The address to ask, with nothing in it that HTTP cannot carry."""
    mirror = mirror or os.environ.get("UPERNET_MIRROR")
    if mirror:
        parts = urlsplit(address)
        address = checked_mirror(mirror) + parts.path + (f"?{parts.query}" if parts.query else "")
    return quote(address.partition("#")[0], safe="%/:=&?~+!$,;'@()*[]")


# --- the cache ------------------------------------------------------------------------------------------------------


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}.{suffix}")


def _is_cached(path: Path, address: str, expected: str | None, tell: bool = False) -> bool:
    if not path.is_file():
        return False
    if expected is None:
        origin = _read_json(_beside(path, "json")).get("address", address)
        if origin == address:
            return True
        why = f"came from {origin}"
    else:
        actual = file_hash(path)
        if actual.startswith(expected):
            return True
        why = f"sha256 begins {actual[: len(expected)]} instead of {expected}"
    if tell:
        print(f"upernet: {path}: {why}; downloading it again", file=sys.stderr)
    return False


def file_hash(path: Path) -> str:
    """The sha256 of a file, computed once as long as the file is the same one and nobody has written to it."""
    with open(path, "rb") as file:
        state = os.fstat(file.fileno())
        same = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
        if same not in _HASHES:
            _HASHES[same] = hashlib.file_digest(file, "sha256").hexdigest()
        return _HASHES[same]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, lambda file: file.write(json.dumps(content).encode()))


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Only one process or thread at a time, by a file that goes away afterwards."""
    while True:
        file = open(path, "ab")  # noqa: SIM115 (the lock lives as long as the file is open)
        try:
            _wait_for(file, path)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    break
        except BaseException:
            file.close()
            raise
        # The one before deleted the file while we waited for it, so the next one would lock another.
        file.close()
    try:
        yield
    finally:
        with suppress(OSError):  # systems that cannot delete an open file keep it
            path.unlink()
        file.close()


def _wait_for(file: IO[bytes], path: Path) -> None:
    if sys.platform == "win32":
        return  # no fcntl there; two downloads of one file at once are left to the hash
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"upernet: {path.with_suffix('')}: waiting for another download of it", file=sys.stderr)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        pass  # file systems without locks, as some network ones


# --- the download ---------------------------------------------------------------------------------------------------


def _download(address: str, path: Path, expected: str | None) -> None:
    """Fill `<file>.part` and compare its hash."""
    part = _beside(path, "part")
    with _progress(path.name) as show:
        dropped = 0
        while True:
            try:
                _go_on(address, part, expected, show)
                break
            except _StartOver:
                _discard(part)
            except _BrokeOff as error:
                dropped += 1
                if dropped > RETRIES:
                    raise WorkError(f"{address}: {error}; {ELSEWHERE}") from error
                time.sleep(PAUSE * dropped)
    if expected is None:
        return
    actual = file_hash(part)
    if not actual.startswith(expected):
        _discard(part)
        raise WorkError(
            f"{address}: sha256 begins {actual[: max(len(expected), 8)]} instead of {expected}, so it is not the "
            "published file; it was deleted"
        )


def _discard(part: Path) -> None:
    for path in (part, _beside(part, "json")):
        path.unlink(missing_ok=True)


def _go_on(address: str, part: Path, expected: str | None, show: Callable[[int, int | None], object]) -> None:
    """One connection: ask for what is missing and append it."""
    state = _read_json(_beside(part, "json"))
    have = part.stat().st_size if part.is_file() and state.get("address") == address else 0
    validator = state.get("validator")
    if not isinstance(validator, str) and expected is None:
        have = 0  # nothing would tell if the server's file had changed in between
    headers = {"User-Agent": "upernet"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if isinstance(validator, str):
            headers["If-Range"] = validator
    try:
        response = _OPENER.open(urllib.request.Request(address, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == 416 and have:
            raise _StartOver from None
        raise WorkError(f"{address}: {_refusal(error)}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = error.reason if isinstance(error, URLError) else error
        if isinstance(why, (ConnectionResetError, http.client.RemoteDisconnected)):
            raise _BrokeOff("the connection broke off before an answer came") from error
        raise WorkError(f"{address}: {_plain(why)}; {ELSEWHERE}") from error
    with response:
        told = _validator(response.headers)
        if have and response.status == 206:
            begin = re.match(r"bytes (\d{1,18})-", response.headers.get("Content-Range", ""))
            if begin is None or int(begin[1]) != have or (validator and told and told != validator):
                raise _StartOver
        else:
            have = 0
            _discard(part)
            _write_json(_beside(part, "json"), {"address": address, "validator": told})
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if re.fullmatch(r"\d{1,18}", length) else None
        show(have, total)
        with open(part, "ab" if have else "wb") as file:
            for chunk in _chunks(response, have, total):
                file.write(chunk)
                have += len(chunk)
                show(have, total)
    if total is not None and have != total:
        raise _BrokeOff(f"the connection broke off after {have:,} of {total:,} bytes")


def _chunks(response: Any, have: int, total: int | None) -> Iterator[bytes]:
    """The body; errors of the network leave as `_BrokeOff`, so that those of the disk can be told from them."""
    while True:
        try:
            chunk = response.read1(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            of = f" of {total:,}" if total is not None else ""
            raise _BrokeOff(f"{_plain(error)} after {have:,}{of} bytes") from error
        if not chunk:
            return
        have += len(chunk)
        yield chunk


def _validator(headers: Any) -> str | None:
    """What tells whether a file has changed; a weak ETag promises no equal bytes."""
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def _refusal(error: HTTPError) -> str:
    if 300 <= error.code < 400:
        return (
            f"redirects to {error.headers.get('Location')!r}, not followed; valid: a few steps of https:// or http://"
        )
    return " ".join(f"HTTP {error.code} {error.reason}; {ELSEWHERE}".split())


def _plain(error: object) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise HTTPError(req.full_url, code, msg, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """HTTP and nothing else: urllib's own opener also reads file:// and ftp://."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


_OPENER = _opener()


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int | None], object]]:
    """A bar with the time left, if somebody is watching; gives what moves it to so many bytes of so many."""
    if not sys.stderr.isatty():
        yield lambda have, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    short = name if len(name) <= 28 else f"{name[:12]}…{name[-15:]}"
    columns = (TextColumn(short), BarColumn(None), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as bar:
        task = bar.add_task(name, total=None)
        yield lambda have, total: bar.update(task, completed=have, total=total)
