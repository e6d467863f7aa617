"""Every field of every dataclass that a file may hold refuses every value of another type, in one line."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from own_recipe import RECIPE

import upernet.config
import upernet.data
import upernet.data.config
import upernet.tasks
from upernet.contract import Loss, Task
from upernet.data.config import DataConfig
from upernet.data.source import Source
from upernet.errors import UserError
from upernet.options import read_options
from upernet.plain import Configurable, from_plain
from upernet.store.native import CONFIG, read_model_config
from upernet.yaml_files import write_yaml

# --- the fields -----------------------------------------------------------------------------------------------------


def blocks() -> list[type]:
    """Every dataclass of a configuration."""
    modules = (upernet.config, upernet.data.config)
    found = {value for module in modules for value in vars(module).values() if inspect.isclass(value)}
    return sorted((k for k in found if is_dataclass(k) and k.__name__.endswith("Config")), key=lambda k: k.__name__)


def classes(base: type) -> list[type]:
    """Every class of ours that YAML may name where `base` is wanted."""
    for room in (upernet.tasks, upernet.data):
        for name in room.__all__:  # they are imported on first use
            getattr(room, name)
    found, waiting = [], [base]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if not inspect.isabstract(kind) and kind.__module__.startswith("upernet."):
            found.append(kind)
    return sorted(found, key=lambda k: k.__name__)


PLACES: list[tuple[type, str, Any]] = [
    (kind, field.name, get_type_hints(kind)[field.name])
    for kind in (*blocks(), *classes(Task), *classes(Loss), *classes(Source))
    for field in fields(kind)
    if field.init
]
"""Class, field and type."""


def test_the_walk_finds_what_there_is() -> None:
    names = {kind.__name__ for kind, _, _ in PLACES}
    assert names >= {
        "ModelConfig", "InferenceConfig", "OptimConfig", "RunConfig", "DataConfig", "SourceConfig", "TargetConfig",
        "AugmentConfig", "Object", "Part", "Scene", "Semantic", "CrossEntropy", "Dice", "VOC", "ClassFolder",
    }  # fmt: skip
    assert len(PLACES) > 150


# --- the values -----------------------------------------------------------------------------------------------------

SCALARS: list[Any] = [None, True, 7, -0.5, "false", "7", ""]
VALUES: list[Any] = [
    *SCALARS,
    [],
    {},
    *([scalar] for scalar in SCALARS),
    *([scalar, scalar] for scalar in SCALARS),
    *({"a": scalar} for scalar in SCALARS),
    {1: "a"},
    [[]],
    [{}],
    {"a": []},
    {"a": {}},
    {"class_path": "upernet.tasks.Scene", "init_args": {"width": "7"}},
    [{"class_path": "upernet.tasks.Dice", "init_args": {"power": True}}],
    {"class_path": "upernet.tasks.Texture", "init_args": {"losses": [{"class_path": "upernet.tasks.Scene"}]}},
]
ANY = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=4)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=5,
)


def fits(kind: Any, value: Any) -> bool:
    """Whether a plain value is of a type; said apart from the code that is tested."""
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin in (Union, UnionType):
        return any(fits(one, value) for one in args)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in args)
    if origin is list or (origin is tuple and Ellipsis in args):
        return isinstance(value, list) and all(fits(args[0], one) for one in value)
    if origin is tuple:
        return isinstance(value, list) and len(value) == len(args) and all(map(fits, args, value))
    if origin is dict:
        return isinstance(value, dict) and all(fits(args[0], k) and fits(args[1], v) for k, v in value.items())
    if inspect.isclass(kind) and issubclass(kind, Configurable):
        return False  # none of the values is a whole one
    if is_dataclass(kind):
        return value == {}
    return type(value) in {float: (int, float), int: (int,), bool: (bool,), str: (str,), NoneType: (NoneType,)}[kind]


def parts(value: Any) -> Iterator[Any]:
    """A value and everything in it."""
    yield value
    for inner in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from parts(inner)


# --- the roads ------------------------------------------------------------------------------------------------------


def spec(kind: type, name: str, value: Any) -> dict[str, Any]:
    root = {"root": "x"} if issubclass(kind, Source) else {}
    return {"class_path": f"{kind.__module__}.{kind.__name__}", "init_args": root | {name: value}}


def read(kind: type, name: str, value: Any, folder: Path) -> Any:
    """Read a value in a field: from a model folder where it belongs there, else from a training file's block.

    Returns:
        What was built.
    """
    block = kind.__name__.removesuffix("Config").lower()
    if block in ("optim", "run"):
        return from_plain(kind, {name: value}, block)
    if issubclass(kind, (Task, Loss)) or block in ("model", "inference"):
        model: dict[str, Any] = {"model": {}, "tasks": {}}
        if issubclass(kind, Task):
            model["tasks"] = {"t": spec(kind, name, value)}
        elif issubclass(kind, Loss):
            model["tasks"] = {"t": spec(upernet.tasks.Object, "losses", [spec(kind, name, value)])}
        else:
            model[block] = {name: value}
        (folder / CONFIG).write_text(write_yaml(model))
        return read_model_config(folder)
    source = {"dataset": spec(upernet.data.VOC, "root", "x"), "targets": {}}
    if issubclass(kind, Source):
        source["dataset"] = spec(kind, name, value)
    elif block == "target":
        source["targets"] = {"t": {name: value}}
    elif block == "augment":
        source["augment"] = {name: value}
    elif block == "source":
        source[name] = value
    data: dict[str, Any] = {"sources": {"s": source}}
    return from_plain(DataConfig, data | {name: value} if kind is DataConfig else data, "data")


def check_refused(kind: type, name: str, value: Any, folder: Path) -> None:
    try:
        built = read(kind, name, value, folder)
    except UserError as error:
        check_line(str(error), name, value)
    else:
        pytest.fail(f"{kind.__name__}.{name} takes {value!r}: {built}")


def check_line(line: str, name: str, value: Any) -> None:
    assert "\n" not in line
    assert f".{name}" in line, line
    assert any(told in line for told in ("expected", "unknown key", "needs the key", "is not a subclass of")), line
    shown = {None: "null", True: "true", False: "false"}
    reprs = {shown[v] if v is None or isinstance(v, bool) else reprlib.repr(v) for v in parts(value)}
    assert any(one in line for one in reprs), line


@pytest.mark.parametrize("kind", sorted({kind for kind, _, _ in PLACES}, key=lambda k: k.__name__))
def test_every_field_refuses_values_of_another_type(kind: type, tmp_path: Path) -> None:
    for owner, name, wanted in PLACES:
        if owner is kind:
            wrong = [value for value in VALUES if not fits(wanted, value)]
            assert wrong or wanted is Any or wanted == dict[str, Any]
            for value in wrong:
                check_refused(kind, name, value, tmp_path)


@settings(deadline=None, max_examples=150)
@given(place=st.sampled_from(PLACES), value=ANY)
def test_no_field_takes_what_is_not_of_its_type(
    place: tuple[type, str, Any], value: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Nor does any value end in another error than ours, be it of the type or not."""
    kind, name, wanted = place
    folder = tmp_path_factory.getbasetemp()
    if not fits(wanted, value):
        check_refused(kind, name, value, folder)
        return
    try:
        read(kind, name, value, folder)
    except UserError as error:
        assert "\n" not in str(error)


BLOCKS = [place for place in PLACES if place[0].__module__ == "upernet.config"]


@pytest.mark.parametrize("place", BLOCKS[::6], ids=lambda place: f"{place[0].__name__}.{place[1]}")
def test_the_command_line_refuses_them_too(place: tuple[type, str, Any], tmp_path: Path) -> None:
    kind, name, wanted = place
    block = kind.__name__.removesuffix("Config").lower()
    path = tmp_path / "mine.yaml"
    for value in [v for v in VALUES if not fits(wanted, v)][:2]:
        path.write_text(yaml.safe_dump(RECIPE | {block: {name: value}}))
        with pytest.raises(UserError) as caught:
            read_options("train", ["--config", str(path)])
        assert str(caught.value).startswith(f"{path}: {block}.{name}")
        check_line(str(caught.value), name, value)


@pytest.mark.parametrize(
    "words",
    [
        ["--inference.flip", "maybe"],
        ["--model.width", "8.5"],
        ["--optim.lr", "true"],
        ["--run.steps", "[1]"],
        ["--data.batch", "null"],
        ["--model.mean", "[1, 2, x]"],
        ["--tasks.object.init_args.detach", "7"],
        ["--data.sources.town.weight", "heavy"],
    ],
    ids=" ".join,
)
def test_words_of_a_wrong_type_are_refused(words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    with pytest.raises(UserError) as caught:
        read_options("train", ["--config", str(path), *words])
    key = words[0].removeprefix("--").replace(".init_args", "")
    assert str(caught.value).startswith(f"train: {key}")
    assert "expected" in str(caught.value)
