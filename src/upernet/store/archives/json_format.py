"""JSON files beside a checkpoint: its settings, or its index if it is split into several files."""

from __future__ import annotations

import json
import re
from io import BufferedReader
from pathlib import Path
from typing import Any

from upernet.store.archives.descriptions import RefusedError
from upernet.store.archives.limits import LISTING_BYTES

_SHARD = re.compile(r"\w[\w.+-]{0,200}", re.ASCII)


def parse_json(text: bytes) -> Any:
    """Parse JSON in which no object has a key twice, since readers differ in which of two values they take.

    Raises:
        RefusedError: If a key occurs twice.
        ValueError: If the text is no JSON.
        RecursionError: If it is nested too deeply.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in pairs:
            if key in made:
                raise RefusedError(f"names {key[:100]!r} twice; it may be hostile")
            made[key] = value
        return made

    return json.loads(text.decode(), object_pairs_hook=once)


def parse_settings(path: Path, file: BufferedReader) -> dict[str, Any]:
    """The mapping in a JSON file.

    Raises:
        RefusedError: If the file is too long, no JSON, or no mapping.
    """
    if path.stat().st_size > LISTING_BYTES:
        raise RefusedError(f"is longer than {LISTING_BYTES} bytes; it may be hostile")
    try:
        content = parse_json(file.read())
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"no readable JSON ({error})") from error
    if not isinstance(content, dict):
        raise RefusedError(f"holds a {type(content).__name__}; expected a mapping, such as {{}}")
    return content


def parse_index(path: Path, file: BufferedReader) -> list[Path]:
    """The files that an index names, each once.

    Raises:
        RefusedError: If it names none, or anything but files in its own folder.
    """
    shards = parse_settings(path, file).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise RefusedError("names no weight files beside it")
    files: dict[Path, None] = {}
    for name in shards.values():
        if not isinstance(name, str) or not _SHARD.fullmatch(name):
            raise RefusedError(f"names {str(name)[:100]!r}, which is no file beside it; valid: 'model-1-of-2.bin'")
        if path.parent / name not in files and not (path.parent / name).is_file():
            raise RefusedError(f"names the weight file {name!r}, which is not beside it; download it too")
        files[path.parent / name] = None
    return list(files)
