"""Training files, the user's own or shipped ones: reading them with their bases, checking and merging them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from upernet.errors import UserError
from upernet.plain import check_types, merge
from upernet.yaml_files import read_yaml

CONFIGS = Path(__file__).parent / "configs"

BLOCKS = ("tasks", "data", "model", "optim", "run", "inference")
"""The blocks of a training file."""

Recipe = tuple[str, dict[str, Any]]
"""The path of a training file, and its content without the key `base`."""


def shipped_recipes() -> list[str]:
    """Names of the training files in the package, such as `upp/upp_mini.yaml`. Those in `base/` are left out."""
    names = sorted(p.relative_to(CONFIGS).as_posix() for p in CONFIGS.rglob("*.yaml"))
    return [name for name in names if not name.startswith("base/")]


def read_recipe(name: str) -> list[Recipe]:
    """Read a training file and the files that it changes: its `base`, the base of that, and so on.

    Args:
        name: A path, or the name of a shipped file. A `base` is a path relative to the file that names it.

    Returns:
        The files, each after its base.

    Raises:
        UserError: If a file does not exist, is not a mapping in YAML, or is its own base.
    """
    path = Path(name)
    if not path.exists() and (CONFIGS / name).is_file():
        path = CONFIGS / name
    if not path.is_file():
        near = get_close_matches(name, shipped_recipes(), n=3) or shipped_recipes()
        raise UserError(f"{name}: no such file; shipped files: {', '.join(near)}")
    return _with_base(path, ())


def _with_base(path: Path, above: Sequence[Path]) -> list[Recipe]:
    content = read_yaml(path)
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: not a configuration; expected blocks such as model, tasks and data")
    own = {key: value for key, value in content.items() if key != "base"}
    base = content.get("base")
    if base is None:
        return [(str(path), own)]
    if not (isinstance(base, str) and (path.parent / base).is_file()):
        raise UserError(f"{path}: base {base!r} is not a file; name one relative to {path.parent}")
    above = (*above, path.resolve())
    if (path.parent / base).resolve() in above:
        raise UserError(f"{path}: base {base!r} leads back to this file; leave the key out")
    return [*_with_base(path.parent / base, above), (str(path), own)]


def merge_recipes(recipes: Sequence[Recipe], kinds: Mapping[str, Any]) -> list[Recipe]:
    """Merge training files step by step, so that an error can be traced to the file that causes it.

    Blocks for which the command has no argument are left out, so that a training file also serves to evaluate.

    Args:
        recipes: The files; later ones change earlier ones.
        kinds: Types of the command's arguments by name.

    Returns:
        For each file, its path, and the values of that file merged with those before it.

    Raises:
        UserError: If a file holds a value of a wrong type or an unknown key.
    """
    stages: list[Recipe] = []
    for path, content in recipes:
        merged = dict(stages[-1][1]) if stages else {}
        for key, value in content.items():
            valid = list(dict.fromkeys((*BLOCKS, *kinds, "base")))
            if key not in valid:
                near = get_close_matches(str(key), valid, n=2)
                hint = f"; did you mean {' or '.join(near)}?" if near else ""
                raise UserError(f"{path}: unknown key {key!r}; valid keys: {', '.join(valid)}{hint}")
            if key in kinds:
                try:
                    merged[key] = combine(kinds[key], merged.get(key), value, key)
                except UserError as error:
                    raise type(error)(f"{path}: {error}") from error
        stages.append((path, merged))
    return stages


def combine(kind: Any, old: Any, new: Any, key: str) -> Any:
    """Check the types of a new value of an argument, and merge it with the old value.

    Args:
        kind: Type of the argument.
        old: Plain values from earlier files, or None.
        new: Plain values from a later file or the command line.
        key: Name of the argument, for error lines.

    Raises:
        UserError: If the new value has a wrong type, an unknown key, or a class that cannot be imported.
    """
    check_types(kind, new, key)
    combined = merge(kind, old, new, key)
    # The earlier file may name a class, and the later one its arguments: those are checked only here.
    check_types(kind, combined, key)
    return combined
