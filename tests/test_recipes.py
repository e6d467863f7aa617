"""Training files: what a later one changes of an earlier one, and which of several is wrong."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from own_recipe import told, write_recipe

from upernet.options import read_options
from upernet.recipes import CONFIGS
from upernet.tasks import Scene


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_recipe(tmp_path)


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
        ("nowhere.yaml", "base 'nowhere.yaml' is not a file; name one relative to"),
        ("mine.yaml", "base 'mine.yaml' leads back to this file"),
        ("circle.yaml", "base 'mine.yaml' leads back to this file"),
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


@pytest.mark.parametrize("text", ["a: [", "- 1\n", "text"])
def test_a_file_that_is_no_mapping_is_told(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "wrong.yaml").write_text(text)
    told(capsys, "train", "--config", tmp_path / "wrong.yaml")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("optim: {learning_rate: 1}", "optim: unknown key 'learning_rate' for OptimConfig; valid keys: name, lr, "),
        ("optim: {lr: fast}", "optim.lr: expected a number, such as 0.5, found 'fast'\n"),
        ("optim: {lr: 0}", "optim.lr: 0.0 is not at least 1e-12; for example 0.01\n"),
        (
            "modle: {width: 8}",
            "unknown key 'modle'; valid keys: tasks, data, model, optim, run, inference, base; did you mean model?\n",
        ),
        ("optim: [a", "not valid YAML (while parsing a flow sequence line 1"),
        ("- 1", "not a configuration; expected blocks such as model, tasks and data"),
        ("tasks: {object: {init_args: {width: wide}}}", "tasks.object.width: expected a whole number, such as 512, "),
        (
            "data: {sources: {town: {}, new: {targets: {}}}}",
            "data.sources.new: SourceConfig needs the key 'dataset': a Source, given by class_path and init_args\n",
        ),
        (
            "tasks: {object: {class_path: upernet.tasks.Object, init_args: {labels: [a], losses: "
            "[{class_path: upernet.tasks.CrossEntropy, init_args: {class_weights: median}}]}}}",
            "tasks.object.losses.0.class_weights: expected a list of numbers, such as [0.5], a mapping of strings to "
            "numbers, one of 'inverse_frequency', 'median_frequency', 'effective_number', or null, found 'median'\n",
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
    assert line.removeprefix(f"upernet: {wrong}: ").startswith(part)


def test_a_shipped_file_that_is_not_is_told_with_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    line = told(capsys, "train", "--config", "cityscapes/upernet_r50_512x1024_41k.yaml")
    near = "cityscapes/upernet_r50_512x1024_40k.yaml"
    assert line.startswith(f"upernet: cityscapes/upernet_r50_512x1024_41k.yaml: no such file; shipped files: {near}, ")


def test_without_a_file_the_shipped_ones_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("train", "evaluate"):
        assert "upp/upp_mini.yaml" in told(capsys, command)
