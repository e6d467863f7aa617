"""Words and files become the arguments of a command's function, and every mistake one line."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from fake_data import Memory
from own_recipe import RECIPE, Weather, changed, told, write_recipe

from upernet.cli import main
from upernet.config import InferenceConfig, ModelConfig, OptimConfig, RunConfig
from upernet.data import ImageMaskFolder
from upernet.data.config import AugmentConfig, TargetConfig
from upernet.errors import UserError
from upernet.options import read_options
from upernet.plain import to_plain
from upernet.tasks import Dice, Object
from upernet.working_folder import VARIABLE


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_recipe(tmp_path)


def test_a_file_becomes_dataclasses(config: Path) -> None:
    options = read_options("train", ["--config", str(config)])
    assert options.keys() == {"tasks", "data", "model", "optim", "run", "inference"}
    assert options["model"] == ModelConfig(backbone="test_resnet", width=8, pool_scales=(1, 2))
    assert options["optim"] == OptimConfig(name="adamw", lr=1.5e-3, betas=(0.8, 0.9))
    assert options["run"] == RunConfig(out="runs/mine", steps=3)
    assert options["inference"] == InferenceConfig()
    town = options["data"].sources["town"]
    assert town.dataset == ImageMaskFolder(root="${NOWHERE}/town", labels=["a", "b", "c"], ignore_value=None)
    assert town.targets == {"object": TargetConfig(classes={"a": "sky", "b": ["sky", "car"], "c": None})}
    assert (town.weight, town.val, town.train) == (2.0, None, "train")
    assert options["data"].augment == AugmentConfig(crop=(64, 96))
    assert isinstance(options["data"].augment.crop, tuple)


def test_strangers_are_built_from_their_class_path_alone(config: Path) -> None:
    """Trap: jsonargparse takes dataclass fields for closed types unless subclasses are enabled for the base."""
    options = read_options("train", ["--config", str(config)])
    assert options["tasks"] == {
        "object": Object(labels=["sky", "car"]),
        "weather": Weather(labels={"rain": "#0000ff"}, months=6),
    }
    assert [type(task) for task in options["tasks"].values()] == [Object, Weather]
    assert options["data"].sources["drawn"].dataset == Memory(labels=["rain"], dense=False)


def test_the_name_alone_of_a_class_of_ours_will_do(config: Path) -> None:
    content = changed("tasks.object.class_path", "Object")
    content["data"]["sources"]["town"]["dataset"]["class_path"] = "ImageMaskFolder"
    content["tasks"]["object"]["init_args"]["losses"] = [{"class_path": "Dice"}]
    short = config.with_name("short.yaml")
    short.write_text(yaml.safe_dump(content))
    options = read_options("train", ["--config", str(short)])
    assert options["tasks"]["object"] == Object(labels=["sky", "car"], losses=[Dice()])
    assert type(options["data"].sources["town"].dataset) is ImageMaskFolder
    assert to_plain(options["tasks"]["object"])["class_path"] == "upernet.tasks.Object"


def test_modules_that_a_file_trusts_are_found_in_the_working_folder(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_trusted_module.py").touch()
    (tmp_path / "my_named_module.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.setenv(VARIABLE, "")
    config.write_text(yaml.safe_dump({**RECIPE, "trust": ["my_trusted_module"]}))
    with pytest.raises(UserError, match="my_named_module"):
        read_options("evaluate", ["--config", str(config), "--data.sources.drawn.dataset", "my_named_module.Nothing"])
    for name in ("my_trusted_module", "my_named_module"):
        assert importlib.util.find_spec(name) is not None


def test_a_resolved_configuration_builds_the_same(config: Path, tmp_path: Path) -> None:
    options = read_options("train", ["--config", str(config), "--optim.clip", "2"])
    again = tmp_path / "resolved.yaml"
    again.write_text(yaml.safe_dump(to_plain(options), sort_keys=False))
    resolved = read_options("train", ["--config", str(again)])
    assert resolved == options
    assert list(resolved["data"].sources) == ["town", "drawn"]  # their order decides which is drawn when
    assert list(resolved["tasks"]) == ["object", "weather"]


def test_later_words_change_earlier_ones(config: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("optim: {lr: 0.5}\nrun: {steps: 9}\n")
    words = ["--config", str(config), "--config", str(other), "--run.steps", "11", "--data.augment.crop", "[32, 48]"]
    options = read_options("train", words)
    assert (options["optim"].lr, options["optim"].name) == (0.5, "adamw")
    assert (options["run"].steps, options["run"].out) == (11, "runs/mine")
    assert options["data"].augment.crop == (32, 48)
    assert list(options["data"].sources) == ["town", "drawn"]


def test_a_training_file_serves_to_evaluate(config: Path) -> None:
    options = read_options("evaluate", ["--config", str(config), "--model", "runs/mine/model", "--split", "test"])
    assert (options["model"], options["split"], options["per_class"]) == ("runs/mine/model", "test", False)
    assert options["data"] == read_options("train", ["--config", str(config)])["data"]
    before = read_options("evaluate", ["--model", "runs/mine/model", "--config", str(config)])["model"]
    assert before in ("runs/mine/model", RECIPE["model"])


def test_a_model_must_be_named_to_evaluate(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = told(capsys, "evaluate", "--config", config)
    assert "name a model, for example --model runs/mine/model" in line


@pytest.mark.parametrize(
    "words",
    [
        ["--per_class", "--sources", "town"],
        ["--sources", "[town]", "--per_class"],
        ["--per_class=true", "--sources=town"],
        ["--sources", "town", "--per_class", "true"],
    ],
    ids=" ".join,
)
def test_a_flag_alone_is_true_and_one_word_a_list(config: Path, words: list[str]) -> None:
    options = read_options("evaluate", ["--config", str(config), "--model", "m", *words])
    assert (options["per_class"], options["sources"], options["model"]) == (True, ["town"], "m")
    off = read_options("evaluate", ["--config", str(config), "--model", "m", "--per_class", "false"])
    assert (off["per_class"], off["sources"]) == (False, None)


@pytest.mark.parametrize("word", ["m", "hf://owner/name@main", "runs/a b/[1], c/model", "2024"])
def test_a_model_is_one_word_or_the_authors_two_files(config: Path, word: str) -> None:
    fixed = ["--config", str(config), "--per_class"]
    assert read_options("evaluate", [*fixed, "--model", word])["model"] == word
    assert read_options("evaluate", [*fixed, f"--model={word}"])["model"] == word
    two = read_options("evaluate", ["--model", word, "decoder_epoch_40.pth", *fixed])
    assert (two["model"], two["per_class"]) == ([word, "decoder_epoch_40.pth"], True)
    several = read_options("evaluate", [*fixed, "--model", word, "--short_side", "300", "450"])
    assert (several["model"], several["short_side"]) == (word, [300, 450])


def test_options_change_a_file_wherever_they_stand(config: Path) -> None:
    options = read_options("train", ["--run.steps", "11", "--config", str(config), "--optim.lr=0.5"])
    assert (options["run"].steps, options["optim"].lr) == (11, 0.5)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--optim.lrr", "1"], "unrecognized arguments: --optim.lrr 1; did you mean optim.lr or "),
        (["--optim.lr", "fast"], "optim.lr: expected a number, such as 0.5, found 'fast'\n"),
        (["--run.out", "7", "--optim.lr", "fast"], "optim.lr: expected a number, such as 0.5, found 'fast'\n"),
        (["--optim.name", "lion"], "optim.name: expected one of 'sgd', 'adamw', found 'lion'\n"),
        (["--data.augment.crop", "[8, 8]"], "data.augment.crop: 8 is not at least 32; for example [512, 512]\n"),
        (
            ["--data.augment.crop", "[64]"],
            "data.augment.crop: expected a list of 2 whole numbers, such as [512, 512], found [64]\n",
        ),
        (
            ["--tasks.object.init_args.width", "wide"],
            "tasks.object.width: expected a whole number, such as 512, found 'wide'\n",
        ),
        (
            ["--tasks.object.init_args.losses", "[{class_path: upernet.tasks.Focal, init_args: {gama: 3}}]"],
            "tasks.object.losses.0: unknown key 'gama' for Focal; valid keys: weight, class_weights, beta, "
            "count_images, gamma, alpha; did you mean gamma?\n",
        ),
        (["stray"], "unrecognized arguments: stray"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_wrong_options_are_told(words: list[str], part: str, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = told(capsys, "train", "--config", config, *words)
    assert line.removeprefix("upernet: train: ").startswith(part)


def test_a_file_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "train", "--config", "nowhere.yaml").startswith("upernet: nowhere.yaml: no such file; ")


def test_options_of_commands_without_a_file_are_told_too(capsys: pytest.CaptureFixture[str]) -> None:
    line = told(capsys, "predict", "photo.jpg", "--top", "five")
    assert line == "upernet: predict: top: expected a whole number, such as 512, found 'five'\n"


def test_what_neither_file_nor_words_give_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data.yaml").write_text("data: {}\n")
    assert "are required: tasks" in told(capsys, "train", "--config", tmp_path / "data.yaml")


def test_words_may_complete_a_file(tmp_path: Path) -> None:
    source = {"dataset": {"class_path": "upernet.data.VOC"}, "targets": {}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"tasks": {}, "data": {"sources": {"voc": source}}}))
    words = ["--config", str(tmp_path / "mine.yaml"), "--data.sources.voc.dataset.init_args.root", "5"]
    assert read_options("train", words)["data"].sources["voc"].dataset.root == "5"


def test_words_that_look_like_numbers_stay_words(config: Path, tmp_path: Path) -> None:
    """In a file, quotes tell; on the command line, what is wanted."""
    content = changed("run.out", "1e5")
    config.write_text(yaml.safe_dump(content))
    assert "out: 1e5" in config.read_text()
    config.write_text(config.read_text().replace("out: 1e5", "out: '1e5'"))
    assert read_options("train", ["--config", str(config)])["run"].out == "1e5"
    assert read_options("train", ["--config", str(config), "--run.out", "1e6"])["run"].out == "1e6"


def test_a_number_without_point_is_one(config: Path) -> None:
    config.write_text(yaml.safe_dump(changed("optim.lr", 0.5)).replace("lr: 0.5", "lr: 2e-3"))
    assert read_options("train", ["--config", str(config)])["optim"].lr == 2e-3
    assert read_options("train", ["--config", str(config), "--optim.lr", "1e-3"])["optim"].lr == 1e-3


@pytest.mark.parametrize(
    ("path", "value", "part"),
    [
        ("modle", {"width": 8}, "modle"),
        ("model.widht", 8, "widht"),
        ("tasks.object.init_args.labls", ["a"], "labls"),
        ("tasks.object.class_path", "upernet.tasks.Objct", "Objct"),
        ("tasks.object.class_path", "nowhere_at_all.Task", "nowhere_at_all"),
        ("tasks.object.class_path", "upernet.data.VOC", "VOC"),
        ("data.sources.town.wieght", 2, "wieght"),
        ("data.sources.town.targets.object.clases", {"a": "sky"}, "clases"),
        ("data.sources.town.dataset.init_args.rot", "/", "rot"),
        ("data.sources.drawn.targets.object.classes", {"rain": "sky"}, "constant"),
        ("run.steps", "many", "many"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_files_are_told(
    path: str, value: Any, part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(changed(path, value)))
    assert part in told(capsys, "train", "--config", tmp_path / "wrong.yaml", "--run.out", tmp_path / "run")


def test_help_of_a_command_tells_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train", "--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for key in ("--optim.lr", "--run.steps", "--model.backbone", "--data.augment.crop", "--tasks", "--config"):
        assert key in text


def test_help_of_a_command_tells_the_meaning_of_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "Height and width of the crop, which is what the network sees, in pixels." in text


class Bomb:
    """Nothing that any block of a configuration asks for."""

    built: ClassVar[list[int]] = []

    def __init__(self, size: int = 0) -> None:
        self.built.append(size)


@pytest.mark.parametrize("block", ["run", "optim.betas"])
def test_blocks_that_a_command_does_not_read_build_nothing(tmp_path: Path, block: str) -> None:
    """A file from a stranger must not choose what is run."""
    bomb = {"class_path": f"{__name__}.Bomb", "init_args": {"size": 3}}
    path = tmp_path / "theirs.yaml"
    path.write_text(yaml.safe_dump(changed(block, bomb), sort_keys=False))
    Bomb.built.clear()
    read_options("evaluate", ["--config", str(path), "--model", "upp-mini"])
    assert Bomb.built == []


def test_a_class_named_among_free_values_is_not_built(tmp_path: Path) -> None:
    bomb = {"class_path": f"{__name__}.Bomb", "init_args": {"size": 3}}
    path = tmp_path / "theirs.yaml"
    content = changed("model", {"backbone_args": {"extra": bomb}})
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    Bomb.built.clear()
    options = read_options("train", ["--config", str(path)])
    assert "extra" in options["model"].backbone_args
    assert Bomb.built == []


def test_an_option_that_is_close_to_one_is_told(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = told(capsys, "train", "--config", config, "--optm.lr", "1")
    assert "unrecognized arguments: --optm.lr 1; did you mean optim.lr or " in line


@pytest.mark.parametrize("words", [[], ["--tasks.p.class_path", "my_own_project.Place"]], ids=["file", "option"])
def test_a_module_in_the_working_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    (tmp_path / "my_own_project.py").write_text("from upernet.tasks import Scene\n\n\nclass Place(Scene):\n    pass\n")
    named = "upernet.tasks.Scene" if words else "my_own_project.Place"
    (tmp_path / "mine.yaml").write_text(
        f"tasks: {{p: {{class_path: {named}, init_args: {{labels: [x]}}}}}}\ndata: {{}}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.delitem(sys.modules, "my_own_project", raising=False)
    task = read_options("train", ["--config", "mine.yaml", *words])["tasks"]["p"]
    assert type(task).__name__ == "Place"
    assert os.environ[VARIABLE].split(os.pathsep) == [str(tmp_path), "my_own_project"]


def test_words_that_name_no_class_leave_the_module_path_alone(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dill.py").write_text("raise SystemExit\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    before = [*sys.path]
    read_options(
        "train", ["--config", str(config), "--run.out", "dill.out", "--tasks.object.init_args.target", "dill.x"]
    )
    read_options("predict", ["dill.jpg", "--model", "dill.model", "--out", "dill"])
    assert sys.path == before
    assert VARIABLE not in os.environ
