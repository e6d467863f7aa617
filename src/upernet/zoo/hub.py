"""Downloads of repositories of the Hugging Face hub."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from upernet.errors import UserError, WorkError
from upernet.zoo.download import checked_mirror
from upernet.zoo.transfer import ELSEWHERE


def fetch_hub(repo: str, *, revision: str | None = None, mirror: str | None = None) -> Path:
    """Fetch the settings and weights of a Hugging Face hub repository into the hub's own cache (`HF_HOME`).

    `pytorch_model.bin`, whole or in shards, is fetched only where there is no safetensors file.

    Args:
        repo: `owner/name`.
        revision: Branch, tag or commit; None for the main branch.
        mirror: Address of a server that answers like the hub; None for `$HF_ENDPOINT`, or else `$UPERNET_MIRROR`. A hub
            token kept on this machine is not sent to a mirror.

    Returns:
        Folder of the files.

    Raises:
        UserError: If `repo`, the revision or the mirror is malformed.
        WorkError: If the repository cannot be downloaded.
    """
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repo, flags=re.ASCII):
        raise UserError(f"{repo!r} is no repository of the hub; for example hf://openmmlab/upernet-swin-tiny")
    if revision is not None and not re.fullmatch(r"\w[\w+-]*([./][\w+-]+)*", revision, flags=re.ASCII):
        raise UserError(f"{revision!r} is no revision; for example hf://{repo}@main")
    named = mirror or (None if os.environ.get("HF_ENDPOINT") else os.environ.get("UPERNET_MIRROR"))
    endpoint = checked_mirror(named) if named else os.environ.get("HF_ENDPOINT") or None
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import constants, snapshot_download

    # The variable is read at import, which may have happened before.
    constants.HF_HUB_DISABLE_TELEMETRY = True
    shown = f"hf://{repo}" + (f"@{revision}" if revision else "")
    patterns = ["*.json", "*.yaml", "*.safetensors"]
    pickled = ["pytorch_model.bin", "pytorch_model-*-of-*.bin"]
    # Without a connection each step falls back on the cached files. To list the repository's files first would fail.
    for allowed in (patterns, patterns + pickled):
        try:
            with _hub_bars():
                folder = Path(
                    snapshot_download(
                        repo,
                        revision=revision,
                        endpoint=endpoint,
                        allow_patterns=allowed,
                        token=False if named else None,
                        library_name="upernet",
                    )
                )
        except Exception as error:  # versions of huggingface_hub differ in their HTTP library, and so in their errors
            lines = str(error).strip().splitlines()
            why = " ".join((lines[0] if lines else type(error).__name__).split())
            why = re.sub(r"^Got: \w+: (\[Errno -?\d+\] )?", "", why).rstrip(".")
            raise WorkError(f"{shown} from {endpoint or constants.ENDPOINT}: {why}; {ELSEWHERE}") from error
        if any(folder.glob("*.safetensors")):
            break
    return folder


@contextmanager
def _hub_bars() -> Iterator[None]:
    """Let the hub show its progress bars only if stderr is a terminal."""
    from huggingface_hub import utils

    quiet = not sys.stderr.isatty() and not utils.are_progress_bars_disabled()  # type: ignore[attr-defined]
    if quiet:
        utils.disable_progress_bars()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if quiet:
            utils.enable_progress_bars()  # type: ignore[attr-defined]
