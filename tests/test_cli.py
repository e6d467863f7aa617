"""The command line: options and files become the arguments of a function, and every mistake one line."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from fake_data import Memory

import upernet.cli
import upernet.commands.predict
from upernet.cli import COMMANDS, CONFIGS, main, read_options
from upernet.config import InferenceConfig, ModelConfig, OptimConfig, RunConfig
from upernet.data import ImageMaskFolder
from upernet.data.config import AugmentConfig, TargetConfig
from upernet.errors import UserError, WorkError
from upernet.plain import to_plain
from upernet.tasks import Object, Scene


@dataclass(kw_only=True)
class Weather(Scene):
    """A stranger's task with a field of its own, known to nobody but its YAML."""

    months: int = 12


YAML: dict[str, Any] = {
    "model": {"backbone": "test_resnet", "width": 8, "pool_scales": [1, 2]},
    "tasks": {
        "object": {"class_path": "upernet.tasks.Object", "init_args": {"labels": ["sky", "car"]}},
        "weather": {"class_path": f"{__name__}.Weather", "init_args": {"labels": {"rain": "#0000ff"}, "months": 6}},
    },
    "data": {
        "batch": 2,
        "augment": {"crop": [64, 96]},
        "sources": {
            "town": {
                "dataset": {
                    "class_path": "upernet.data.ImageMaskFolder",
                    "init_args": {"root": "${NOWHERE}/town", "labels": ["a", "b", "c"], "ignore_value": None},
                },
                "targets": {"object": {"classes": {"a": "sky", "b": ["sky", "car"], "c": None}}},
                "weight": 2,
                "val": None,
            },
            "drawn": {
                "dataset": {"class_path": "fake_data.Memory", "init_args": {"labels": ["rain"], "dense": False}},
                "targets": {"weather": {}, "object": {"constant": ["sky"]}},
            },
        },
    },
    "optim": {"name": "adamw", "lr": 1.5e-3, "betas": [0.8, 0.9]},
    "run": {"out": "runs/mine", "steps": 3},
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(YAML, sort_keys=False))
    return path


def told(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """The one line on the error stream of a command that was used wrongly."""
    assert main([str(word) for word in words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("upernet: ")
    return err


# --- a file becomes objects -----------------------------------------------------------------------------------------


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


def test_a_file_changes_its_base(config: Path, tmp_path: Path) -> None:
    """Of tasks and sources it names all that there shall be, each with no more than what changes."""
    folder = tmp_path / "further"
    folder.mkdir()
    (folder / "second.yaml").write_text("base: ../mine.yaml\noptim: {lr: 0.5}\ndata: {sources: {town: {weight: 5}}}\n")
    (folder / "third.yaml").write_text("base: second.yaml\ntasks: {weather: {}, object: {}}\nrun: {steps: 9}\n")
    options, first = (read_options("train", ["--config", str(path)]) for path in (folder / "third.yaml", config))
    assert (options["optim"].lr, options["optim"].name) == (0.5, "adamw")
    assert (options["run"].steps, options["run"].out) == (9, "runs/mine")
    assert options["tasks"] == first["tasks"]
    assert options["data"].sources == {"town": replace(first["data"].sources["town"], weight=5)}


@pytest.mark.parametrize(
    ("base", "says"),
    [
        ("nowhere.yaml", "base 'nowhere.yaml' is no file; name one relative to"),
        ("mine.yaml", "base 'mine.yaml' leads back to it"),
        ("circle.yaml", "base 'mine.yaml' leads back to it"),
    ],
)
def test_a_base_that_cannot_be_is_told(
    tmp_path: Path, base: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "circle.yaml").write_text("base: mine.yaml\n")
    (tmp_path / "mine.yaml").write_text(f"base: {base}\n")
    assert says in told(capsys, "train", "--config", tmp_path / "mine.yaml")


def test_a_later_block_of_tasks_replaces_the_earlier_one(config: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("tasks: {place: {class_path: upernet.tasks.Scene, init_args: {labels: [x]}}}\n")
    options = read_options("train", ["--config", str(config), "--config", str(other)])
    assert options["tasks"] == {"place": Scene(labels=["x"])}


def test_a_training_file_serves_to_evaluate(config: Path) -> None:
    options = read_options("evaluate", ["--config", str(config), "--model", "runs/mine/model", "--split", "test"])
    assert (options["model"], options["split"], options["per_class"]) == ("runs/mine/model", "test", False)
    assert options["data"] == read_options("train", ["--config", str(config)])["data"]
    before = read_options("evaluate", ["--model", "runs/mine/model", "--config", str(config)])["model"]
    assert before in ("runs/mine/model", YAML["model"])


def test_a_model_must_be_named_to_evaluate(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = told(capsys, "evaluate", "--config", config)
    assert "name the trained one, for example --model runs/mine/model" in line


# --- words as people type them --------------------------------------------------------------------------------------


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


def test_options_change_a_file_wherever_they_stand(config: Path) -> None:
    options = read_options("train", ["--run.steps", "11", "--config", str(config), "--optim.lr=0.5"])
    assert (options["run"].steps, options["optim"].lr) == (11, 0.5)


def test_without_a_file_the_shipped_ones_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("train", "evaluate"):
        assert "upp/upp_mini.yaml" in told(capsys, command)


def test_a_module_beside_the_files_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_project.py").write_text("from upernet.tasks import Scene\n\n\nclass Place(Scene):\n    pass\n")
    (tmp_path / "mine.yaml").write_text(
        "tasks: {p: {class_path: my_own_project.Place, init_args: {labels: [x]}}}\ndata: {}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    task = read_options("train", ["--config", "mine.yaml"])["tasks"]["p"]
    assert type(task).__name__ == "Place"


# --- shipped files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--config", "upp/upp_mini.yaml"], ["--config=upp/upp_mini.yaml"]])
def test_a_shipped_file_is_found_by_name(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_options("train", words)["run"].out == "runs/upp-mini"


def test_a_file_that_is_here_comes_first(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "upp").mkdir()
    shutil.copy(config, tmp_path / "upp" / "upp_mini.yaml")
    monkeypatch.chdir(tmp_path)
    assert read_options("train", ["--config", "upp/upp_mini.yaml"])["run"].out == "runs/mine"
    assert (CONFIGS / "upp" / "upp_mini.yaml").is_file()


# --- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--optim.lrr", "1"], "lrr"),
        (["--optim.lr", "fast"], "fast"),
        (["--optim.name", "lion"], "lion"),
        (["--data.augment.crop", "[8, 8]"], "augment.crop: 8 is not at least 32; for example [512, 512]"),
        (["--data.augment.crop", "[64]"], "64"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["stray"], "stray"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_wrong_options_are_told(words: list[str], part: str, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert part in told(capsys, "train", "--config", config, *words)


def changed(path: str, value: Any) -> dict[str, Any]:
    """The file with one value changed; `path` with dots."""
    content: dict[str, Any] = yaml.safe_load(yaml.safe_dump(YAML, sort_keys=False))
    *parents, last = path.split(".")
    block = content
    for key in parents:
        block = block[key]
    block[last] = value
    return content


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


@pytest.mark.parametrize("text", ["a: [", "- 1\n", "text"])
def test_a_file_that_is_no_mapping_is_told(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "wrong.yaml").write_text(text)
    told(capsys, "train", "--config", tmp_path / "wrong.yaml")


def test_an_unknown_command_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "trian") == f"upernet: no command 'trian'; commands: {', '.join(COMMANDS)}\n"


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    wrong = capsys.readouterr().out
    for words in (["--help"], ["-h"], ["help"]):
        assert main(words) == 0
        assert capsys.readouterr().out == wrong
    lines = [line.split(maxsplit=1) for line in wrong.splitlines()]
    assert all([name for name in COMMANDS if line[:1] == [name]] for line in lines if line[:1] and line[0] in COMMANDS)
    assert {line[0] for line in lines if len(line) == 2} >= set(COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"upernet {upernet.__version__}\n"


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (UserError("no"), 2, "upernet: no\n"),
        (WorkError("broken"), 1, "upernet: broken\n"),
        (OSError(28, "No space left on device", "out/x"), 1, "upernet: out/x: No space left on device\n"),
        (KeyboardInterrupt(), 130, "upernet: stopped\n"),
        (BrokenPipeError(), 1, ""),
        (ModuleNotFoundError("x", name="lightning.fabric"), 2, "upernet: predict needs lightning.fabric; pip install"),
    ],
)
def test_what_a_command_raises_becomes_an_exit_code(
    raised: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> int:
        raise raised

    monkeypatch.setattr(upernet.cli, "_function", lambda name: command)
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # a broken pipe takes it away
    assert main(["predict"]) == code
    err = capsys.readouterr().err
    assert err.startswith(line)
    assert err.count("\n") == bool(line)


@pytest.mark.parametrize("code", [0, 1])
def test_the_exit_code_of_a_command_is_passed_on(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def command() -> int:
        return code

    monkeypatch.setattr(upernet.cli, "_function", lambda name: command)
    assert main(["predict"]) == code


def test_a_missing_data_folder_is_told(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    line = told(capsys, "train", "--config", config, "--run.out", tmp_path / "run")
    assert "${NOWHERE}/town: an environment variable is not set" in line
    assert not (tmp_path / "run").exists()


# --- nothing heavy before it is needed ------------------------------------------------------------------------------

HEAVY = """
import sys
from upernet.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
heavy = {"torch", "torchvision", "timm", "lightning", "torchmetrics", "gradio", "matplotlib"} & set(sys.modules)
print(*sorted(heavy), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    "words", ["--help", "--version", "predict --help", "train --help", "evaluate --help", "benchmark --help"]
)
def test_help_loads_no_torch(words: str) -> None:
    run = subprocess.run([sys.executable, "-c", HEAVY, *words.split()], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr.strip()) == (0, "")
    assert "upernet" in run.stdout


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
    assert "Height and width of what the network sees, in pixels." in " ".join(capsys.readouterr().out.split())


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


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (
            "optim: {learning_rate: 1}",
            "Group 'optim' does not accept option 'learning_rate'; valid: name, lr, backbone_lr",
        ),
        ("optim: {lr: fast}", 'Parser key "optim.lr": Expected a float. Got value: fast;'),
        ("modle: {width: 8}", "Option 'modle.width' is not accepted; did you mean model.width"),
        ("optim: [a", "no YAML (while parsing a flow sequence line 1"),
        ("- 1", "no configuration; expected blocks such as model, tasks and data"),
        (
            "tasks: {object: {class_path: upernet.tasks.Object, init_args: {labels: [a], losses: "
            "[{class_path: upernet.tasks.CrossEntropy, init_args: {class_weights: median}}]}}}",
            "median is none of list[float], dict[str, float], 'inverse_frequency', 'median_frequency', "
            "'effective_number', null;",
        ),
    ],
)
def test_of_several_files_the_wrong_one_is_named(
    text: str, part: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong, last = tmp_path / "wrong.yaml", tmp_path / "last.yaml"
    wrong.write_text(text if text.startswith(("-", "optim: [")) else f"base: {config.name}\n{text}\n")
    last.write_text("base: wrong.yaml\nrun: {seed: 1}\n")
    line = told(capsys, "train", "--config", last)
    assert line.startswith(f"upernet: {wrong}: ")
    assert part in line


def test_a_shipped_file_that_is_not_is_told_with_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    line = told(capsys, "train", "--config", "cityscapes/upernet_r50_512x1024_41k.yaml")
    near = "cityscapes/upernet_r50_512x1024_40k.yaml"
    assert line.startswith(f"upernet: cityscapes/upernet_r50_512x1024_41k.yaml: no such file; shipped are {near}, ")


def test_an_option_that_is_close_to_one_is_told(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = told(capsys, "train", "--config", config, "--optm.lr", "1")
    assert "unrecognized arguments: --optm.lr 1; did you mean optim.lr or " in line
