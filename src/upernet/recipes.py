"""Training files, own or shipped ones: each read with the files that it changes, checked and merged."""

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
"""What a training file holds."""

Recipe = tuple[str, dict[str, Any]]
"""Where a file lies, and what it says, without its key `base`."""


def shipped_recipes() -> list[str]:
    """Names of the training files in the package, such as `upp/upp_mini.yaml`, without those in `base/`."""
    names = sorted(p.relative_to(CONFIGS).as_posix() for p in CONFIGS.rglob("*.yaml"))
    return [name for name in names if not name.startswith("base/")]


def read_recipe(given: str) -> list[Recipe]:
    """A training file after those that it changes: its `base`, the base of that one, and so on.

    Args:
        given: A path, or the name of a shipped file. A `base` is a path relative to the file that names it.

    Raises:
        UserError: If a file does not exist, is no mapping in YAML, or is its own base.
    """
    path = Path(given)
    if not path.exists() and (CONFIGS / given).is_file():
        path = CONFIGS / given
    if not path.is_file():
        near = get_close_matches(given, shipped_recipes(), n=3) or shipped_recipes()
        raise UserError(f"{given}: no such file; shipped are {', '.join(near)}")
    return _with_base(path, ())


def _with_base(path: Path, above: Sequence[Path]) -> list[Recipe]:
    content = read_yaml(path)
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: no configuration; expected blocks such as model, tasks and data")
    said = {key: value for key, value in content.items() if key != "base"}
    base = content.get("base")
    if base is None:
        return [(str(path), said)]
    if not (isinstance(base, str) and (path.parent / base).is_file()):
        raise UserError(f"{path}: base {base!r} is no file; name one relative to {path.parent}")
    above = (*above, path.resolve())
    if (path.parent / base).resolve() in above:
        raise UserError(f"{path}: base {base!r} leads back to it")
    return [*_with_base(path.parent / base, above), (str(path), said)]


def merge_recipes(recipes: Sequence[Recipe], kinds: Mapping[str, Any]) -> list[Recipe]:
    """Each file with all that it and those before it say of the arguments of a command.

    A training file also serves to evaluate: blocks that the command has no argument for are left out.

    Args:
        recipes: The files, later ones changing earlier ones.
        kinds: Types of the command's arguments by name.

    Raises:
        UserError: If a file holds a value of a wrong type or an unknown key.
    """
    stages: list[Recipe] = []
    for path, said in recipes:
        merged = dict(stages[-1][1]) if stages else {}
        for key, value in said.items():
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
    """What earlier files and a later one say of one argument, its types checked.

    Raises:
        UserError: If the later one holds a value of a wrong type, an unknown key, or a class that cannot be imported.
    """
    check_types(kind, new, key)
    combined = merge(kind, old, new, key)
    check_types(
        kind, combined, key
    )  # the class of a task may stand in the earlier file, its arguments in the later one
    return combined
