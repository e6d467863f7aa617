"""The command line: commands, exit codes, and one line for what went wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from own_recipe import told, write_recipe

import upernet.cli
import upernet.commands.predict
from upernet.cli import main
from upernet.commands import COMMANDS
from upernet.errors import UserError, WorkError


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_recipe(tmp_path)


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
        (
            ModuleNotFoundError("x", name="pyarrow"),
            2,
            "upernet: predict needs pyarrow; pip install 'upernet[d",
        ),
    ],
)
def test_what_a_command_raises_becomes_an_exit_code(
    raised: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> int:
        raise raised

    monkeypatch.setattr(upernet.cli, "find_command", lambda name: command)
    monkeypatch.setattr(upernet.cli, "read_options", lambda name, words: {})
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # a broken pipe takes it away
    assert main(["predict"]) == code
    err = capsys.readouterr().err
    assert err.startswith(line)
    assert err.count("\n") == bool(line)


@pytest.mark.parametrize("code", [0, 1])
def test_the_exit_code_of_a_command_is_passed_on(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def command() -> int:
        return code

    monkeypatch.setattr(upernet.cli, "find_command", lambda name: command)
    monkeypatch.setattr(upernet.cli, "read_options", lambda name, words: {})
    assert main(["predict"]) == code


def test_a_missing_data_folder_is_told(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    line = told(capsys, "train", "--config", config, "--run.out", tmp_path / "run")
    assert "${NOWHERE}/town: an environment variable is not set" in line
    assert not (tmp_path / "run").exists()


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
    "words",
    ["--help", "--version", "predict --help", "train --help", "evaluate --help", "discover --help", "benchmark --help"],
)
def test_help_loads_no_torch(words: str) -> None:
    run = subprocess.run([sys.executable, "-c", HEAVY, *words.split()], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr.strip()) == (0, "")
    assert "upernet" in run.stdout
