"""Plain values as objects: every type that a field may have, and one line for every value that does not fit it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NewType

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import told_by

from upernet.config import InferenceConfig, ModelConfig, OptimConfig, RunConfig
from upernet.errors import UserError, WorkError
from upernet.plain import Configurable, check_types, from_plain, to_plain
from upernet.tasks import CrossEntropy, Dice, Object, Scene, Task

if TYPE_CHECKING:
    from fractions import Fraction


@dataclass(kw_only=True)
class Shape(Configurable):
    """A stranger's configurable class."""

    sides: int
    name: str = "none"
    colour: tuple[int, ...] = (1, 2)
    secret: int = field(default=0, init=False)


@dataclass(kw_only=True)
class Square(Shape):
    sides: int = 4

    def __post_init__(self) -> None:
        if self.name == "work":
            raise WorkError("name: the disk is full")
        if self.name == "bug":
            raise KeyError("no such\nkey")


@dataclass(kw_only=True)
class Unresolved(Shape):
    ratio: Fraction | None = None


@dataclass
class Drawing:
    """Shapes at any depth."""

    shapes: list[Shape] = field(default_factory=list)
    by_name: dict[str, Shape | None] = field(default_factory=dict)
    frame: Square | None = None


def refused(kind: Any, value: Any, key: str = "here") -> str:
    return told_by(lambda: from_plain(kind, value, key))


# --- values of one type ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value", "built"),
    [
        (bool, False, False),
        (int, 7, 7),
        (float, 7, 7.0),
        (float, 0.5, 0.5),
        (str, "7", "7"),
        (Path, "a/b", Path("a/b")),
        (Path, Path("a"), Path("a")),
        (None, None, None),
        (Any, {"a": [1]}, {"a": [1]}),
        (Literal["a", 2], 2, 2),
        (int | None, None, None),
        (str | list[str], ["a"], ["a"]),
        (list[float] | dict[str, float] | None, {"a": 1}, {"a": 1.0}),
        (list[int], (1, 2), [1, 2]),
        (list, [1, "a"], [1, "a"]),
        (tuple[int, ...], [1, 2, 3], (1, 2, 3)),
        (tuple[int, float], [1, 2], (1, 2.0)),
        (tuple[()] | None, None, None),
        (dict[str, tuple[int, int]], {"a": [1, 2]}, {"a": (1, 2)}),
        (dict, {1: 2}, {1: 2}),
        (Sequence[int], [1], [1]),
        (Mapping[str, int], {"a": 1}, {"a": 1}),
        (datetime.date, datetime.date(2020, 1, 2), datetime.date(2020, 1, 2)),
        (NewType("Metres", float), 3, 3),
        (Any | None, 3, 3),
        (datetime.date | None, None, None),
    ],
    ids=str,
)
def test_a_value_of_its_type_is_read(kind: Any, value: Any, built: Any) -> None:
    read = from_plain(kind, value, "here")
    assert (read, type(read)) == (built, type(built))


@pytest.mark.parametrize(
    ("kind", "value", "line"),
    [
        (bool, "false", "here: expected true or false, found 'false'"),
        (bool, 0, "here: expected true or false, found 0"),
        (int, True, "here: expected a whole number, such as 512, found true"),
        (int, 8.0, "here: expected a whole number, such as 512, found 8.0"),
        (int, "8", "here: expected a whole number, such as 512, found '8'"),
        (float, False, "here: expected a number, such as 0.5, found false"),
        (float, None, "here: expected a number, such as 0.5, found null"),
        (float, "0.5", "here: expected a number, such as 0.5, found '0.5'"),
        (str, 3, "here: expected a string, such as 'car', found 3"),
        (Path, 3, "here: expected a path, such as 'runs/mine', found 3"),
        (Literal["a", "b"], "c", "here: expected one of 'a', 'b', found 'c'"),
        (Literal[1, 2], True, "here: expected one of 1, 2, found true"),
        (int | None, "x", "here: expected a whole number, such as 512, or null, found 'x'"),
        (list[int], 3, "here: expected a list of whole numbers, such as [512], found 3"),
        (list[str], "car", "here: expected a list of strings, such as ['car'], found 'car'"),
        (list[int], [1, "x"], "here.1: expected a whole number, such as 512, found 'x'"),
        (tuple[int, int], [1], "here: expected a list of 2 whole numbers, such as [512, 512], found [1]"),
        (tuple[int, int] | None, [1, None], "here.1: expected a whole number, such as 512, found null"),
        (dict[str, float], [1], "here: expected a mapping of strings to numbers, found [1]"),
        (dict[str, float], {"a": "b"}, "here.a: expected a number, such as 0.5, found 'b'"),
        (dict[str, float], {1: 1}, "here: expected a string, such as 'car', as a key, found 1"),
        (str | list[str] | None, {"a": 1}, "here: expected a string, such as 'car', a list of strings, such as "
                                           "['car'], or null, found {'a': 1}"),
        (list[str] | dict[str, str] | str, [1], "here.0: expected a string, such as 'car', found 1"),
        (datetime.date, "2020-01-02", "here: expected a value of type date, found '2020-01-02'"),
    ],
    ids=str,
)  # fmt: skip
def test_a_value_of_another_type_is_told_with_a_valid_one(kind: Any, value: Any, line: str) -> None:
    assert refused(kind, value) == line


def test_a_whole_number_too_large_for_a_float_is_told() -> None:
    assert refused(float, 10**400).startswith("here: expected a number, such as 0.5, found 1000")


def test_long_and_endless_values_are_shortened() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert len(refused(list[str], [["x" * 10_000]])) < 200
    assert refused(list[str], endless).startswith("here.0: expected a string")


# --- dataclasses ----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(
    width=st.integers(1, 999),
    scales=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    mean=st.tuples(*[st.floats(0, 1)] * 3),
    norm=st.booleans(),
    options=st.dictionaries(st.text("abc", min_size=1), st.one_of(st.integers(), st.booleans(), st.text())),
)
def test_a_network_comes_back_from_yaml(
    width: int, scales: list[int], mean: tuple[float, float, float], norm: bool, options: dict[str, Any]
) -> None:
    config = ModelConfig(
        width=width, pool_scales=tuple(scales), mean=mean, level_norm=norm, backbone_args=options, pooling="precise"
    )
    plain = yaml.safe_load(yaml.safe_dump(to_plain(config)))
    assert from_plain(ModelConfig, plain, "here") == config


SLIDING = InferenceConfig(window=(64, 96), stride=(32, 48), scales=(0.5, 1.0), flip=True, scale_of="image")


@pytest.mark.parametrize("config", [ModelConfig(), InferenceConfig(short_side=64), SLIDING, OptimConfig(), RunConfig()])
def test_every_block_comes_back(config: Any) -> None:
    assert from_plain(type(config), to_plain(config), "here") == config


def test_what_is_left_out_has_its_default() -> None:
    assert from_plain(InferenceConfig, {"max_side": 70}, "here") == InferenceConfig(max_side=70)


def test_an_unknown_key_is_told_with_those_that_are_valid() -> None:
    assert refused(InferenceConfig, {"antialiasing": 3}, "inference") == (
        "inference: unknown key 'antialiasing' for InferenceConfig; valid keys: short_side, max_side, short_sides, "
        "multiple, antialias, window, stride, resize_twice, scales, flip, scale_of; did you mean antialias?"
    )
    assert refused(InferenceConfig, {7: 3}).startswith("here: unknown key 7 for InferenceConfig; valid keys: ")


@pytest.mark.parametrize("values", [None, 3, "text", [1]])
def test_what_is_no_mapping_is_told(values: Any) -> None:
    assert refused(ModelConfig, values).startswith("here: expected a mapping for ModelConfig, found ")


def test_what_a_class_says_of_its_fields_bears_the_whole_key() -> None:
    assert refused(ModelConfig, {"width": 0}, "model") == "model.width: 0 is not at least 1; for example 512"
    assert refused(Task, {"class_path": "upernet.tasks.Scene", "init_args": {"weight": -1}}, "tasks.x").startswith(
        "tasks.x.weight: -1.0 is not at least 0"
    )
    dice = {"class_path": "upernet.tasks.Dice", "init_args": {"smooth": -1}}
    spec = {"class_path": "upernet.tasks.Object", "init_args": {"labels": ["a"], "losses": [dice]}}
    assert refused(Task, spec, "tasks.x").startswith("tasks.x.losses.0: Dice.smooth: -1.0 is not at least 0")


# --- classes that are named -----------------------------------------------------------------------------------------


def spec(kind: str, /, **init_args: Any) -> dict[str, Any]:
    return {"class_path": f"{__name__}.{kind}", "init_args": init_args}


def test_a_class_is_built_by_its_path() -> None:
    assert from_plain(Shape, spec("Square", name="unit", colour=[9]), "here") == Square(name="unit", colour=(9,))
    assert from_plain(Task, {"class_path": "upernet.tasks.Scene"}, "here") == Scene()  # type: ignore[type-abstract]
    empty = {"class_path": "upernet.tasks.Scene", "init_args": None}  # as YAML has a key without a value
    assert from_plain(Task, empty, "here") == Scene()  # type: ignore[type-abstract]


def test_objects_in_lists_mappings_and_unions_are_built() -> None:
    plain = {"shapes": [spec("Square")], "by_name": {"a": spec("Square", sides=3), "b": None}, "frame": spec("Square")}
    assert from_plain(Drawing, plain, "here") == Drawing([Square()], {"a": Square(sides=3), "b": None}, Square())
    task = {
        "class_path": "upernet.tasks.Object",
        "init_args": {
            "labels": ["a"],
            "losses": [{"class_path": "upernet.tasks.CrossEntropy"}, to_plain(Dice(power=1))],
        },
    }
    built = from_plain(Task, task, "here")  # type: ignore[type-abstract]
    assert built == Object(labels=["a"], losses=[CrossEntropy(), Dice(power=1)])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (None, "here: expected class_path: package.module.Class, found null"),
        ({}, "here: expected class_path: package.module.Class, found {}"),
        ({"class_path": "Scnee"}, "here: cannot import 'upernet.tasks.Scnee'"),
        ({"class_path": 3}, "here: expected class_path: package.module.Class, found 3"),
        ({"class_path": ".Scene"}, "here: expected class_path"),
        ({"class_path": "no_such_package.Scene"}, "here: cannot import 'no_such_package.Scene': No module named"),
        ({"class_path": "upernet.tasks.Scnee"}, "here: cannot import 'upernet.tasks.Scnee'"),
        ({"class_path": "upernet.data.VOC"}, "here: 'upernet.data.VOC' is not a subclass of Task"),
        ({"class_path": "os.system"}, "here: 'os.system' is not a subclass of Task"),
        ({"class_path": "upernet.tasks.Task"}, "here: Task cannot be built: Can't instantiate abstract class Task"),
        (
            {"class_path": "upernet.tasks.Scene", "init_args": {"losses": [{"class_path": "upernet.tasks.Scene"}]}},
            "here.losses.0: 'upernet.tasks.Scene' is not a subclass of Loss",
        ),
        ({"class_path": "upernet.tasks.Scene", "init_args": {"label": []}}, "here: unknown key 'label' for Scene"),
        ({"class_path": "upernet.tasks.Scene", "init_args": [1]}, "here: expected a mapping for Scene, found [1]"),
        (
            {"class_path": "upernet.tasks.Scene", "labels": []},
            "here: unknown key 'labels' for Task; valid keys: ",
        ),
    ],
)
def test_a_class_that_cannot_be_had_is_told(spec: Any, message: str) -> None:
    assert refused(Task, spec).startswith(message)


def test_a_missing_key_is_told() -> None:
    line = "here: Shape needs the key 'sides': a whole number, such as 512"
    assert refused(Shape, spec("Shape", name="x")) == line
    assert refused(Shape, {"class_path": f"{__name__}.Shape"}) == line


def test_a_key_that_is_no_argument_is_told() -> None:
    line = "here: unknown key 'secret' for Square; valid keys: sides, name, colour"
    assert refused(Shape, spec("Square", secret=1)) == line


def test_what_a_class_raises_is_told() -> None:
    assert refused(Shape, spec("Square", name="bug")) == r"here: Square cannot be built: 'no such\nkey'"
    with pytest.raises(WorkError, match=r"^here\.name: the disk is full$"):
        from_plain(Shape, spec("Square", name="work"), "here")


def test_types_that_cannot_be_resolved_are_told() -> None:
    assert refused(Shape, spec("Unresolved", sides=3)) == (
        "here: the types of Unresolved cannot be resolved (name 'Fraction' is not defined); "
        "import them at the top of its module, not for type checkers only"
    )


# --- values that others complete ------------------------------------------------------------------------------------


def test_types_are_checked_where_keys_and_classes_are_still_missing() -> None:
    check_types(dict[str, Task], {"a": {}, "b": {"init_args": {"whatever": 1}}}, "tasks")
    check_types(Shape, spec("Shape"), "here")
    check_types(OptimConfig, {"lr": -1.0}, "optim")  # values are checked when the object is built
    for kind, value, line in (
        (OptimConfig, {"lr": "fast"}, "optim.lr: expected a number"),
        (dict[str, Task], {"a": {"init_arg": {}}}, "optim.a: unknown key 'init_arg' for Task"),
        (Shape, spec("Shape", sides="x"), "optim.sides: expected a whole number"),
    ):
        with pytest.raises(UserError) as caught:
            check_types(kind, value, "optim")
        assert str(caught.value).startswith(line)
