"""Transfer of one file by HTTP, resumed where an earlier one broke off. Nothing here imports torch.

While `<file>.part` grows, the note `<file>.part.json` beside it holds the address that it comes from and the validator
(an ETag or a date) that changes with the server's file.
"""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from upernet.errors import WorkError
from upernet.files import write_whole
from upernet.screen import transfer_progress

TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as lost."""
RETRIES = 3
"""How often a broken connection is opened again before the command gives up."""
PAUSE = 1.0
"""Seconds before the first retry; the second waits twice as long, and so on."""
CHUNK = 1 << 18
"""Most bytes read at once."""
RESUMES = "the same command resumes"
ELSEWHERE = f"{RESUMES}; --mirror https://mirror.example/omm or UPERNET_MIRROR names another server"


class _BrokeOff(Exception):
    """The connection ended in the middle of the file."""


class _StartOver(Exception):
    """The bytes on disk are not the beginning of the server's file."""


def transfer(address: str, part: Path, name: str, *, checked: bool) -> None:
    """Download an address into a file, and resume where an earlier transfer from the same address broke off.

    Args:
        address: `https://…` or `http://…`, in characters that HTTP can carry.
        part: The file to fill. It is discarded first if it comes from another address.
        name: Name before the progress bar.
        checked: Whether the caller compares a hash afterwards. If not, a transfer resumes only if the server gave a
            validator, by which a changed file is recognised.

    Raises:
        WorkError: If the server refuses, cannot be reached, or breaks off more than `RETRIES` times; `part` is kept.
        OSError: If `part` cannot be written.
    """
    with transfer_progress(name) as show:
        broken = 0
        while True:
            try:
                _connect_once(address, part, checked, show)
                return
            except _StartOver:
                discard(part)
            except _BrokeOff as error:
                broken += 1
                if broken > RETRIES:
                    raise WorkError(f"{address}: {error}; {ELSEWHERE}") from error
                time.sleep(PAUSE * broken)


def discard(part: Path) -> None:
    """Delete an unfinished file and its note."""
    for path in (part, note_of(part)):
        path.unlink(missing_ok=True)


def note_of(path: Path) -> Path:
    """The path of the note beside a file, which holds the address that the file comes from."""
    return path.with_name(f"{path.name}.json")


def read_note(path: Path) -> dict[str, Any]:
    """The note of a file; empty if it is missing or damaged."""
    try:
        content = json.loads(note_of(path).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_note(path: Path, content: dict[str, Any]) -> None:
    """Write the note of a file."""
    write_whole(note_of(path), lambda file: file.write(json.dumps(content).encode()))


def _connect_once(address: str, part: Path, checked: bool, show: Callable[[int, int | None], None]) -> None:
    """Request the missing bytes over one connection and append them to the file."""
    note = read_note(part)
    have = part.stat().st_size if part.is_file() and note.get("address") == address else 0
    validator = note.get("validator")
    if not isinstance(validator, str) and not checked:
        have = 0  # a change of the server's file could not be noticed
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
        current = _validator(response.headers)
        if have and response.status == 206:
            begin = re.match(r"bytes (\d{1,18})-", response.headers.get("Content-Range", ""))
            if begin is None or int(begin[1]) != have or (validator and current and current != validator):
                raise _StartOver
        else:
            have = 0
            discard(part)
            write_note(part, {"address": address, "validator": current})
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
    """The body in chunks. Errors of the network are raised as `_BrokeOff`, to differ from those of the disk."""
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
    """The value by which a changed file is recognised. A weak ETag is not used: it does not promise equal bytes."""
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def _refusal(error: HTTPError) -> str:
    if 300 <= error.code < 400:
        return f"redirects to {error.headers.get('Location')!r}, not followed; valid: a few redirects to https:// or http://"
    return " ".join(f"HTTP {error.code} {error.reason}; {ELSEWHERE}".split())


def _plain(error: object) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to HTTP addresses only."""

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
