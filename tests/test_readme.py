"""What the README and the documents promise to be runnable, is."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.S | re.M)


def test_ci_runs_the_test_command_of_the_readme() -> None:
    command = (ROOT / ".ci" / "run").read_text().strip().splitlines()[-1]
    assert command.endswith("pytest")
    assert command in README


def test_the_first_command_parses_a_picture_that_is_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from upernet.cli import main

    line = next(line for line in README.splitlines() if " upernet predict " in line)
    words = shlex.split(line.split(" upernet ", 1)[1])
    assert main([str(ROOT / w) if w.startswith("docs/") else w for w in words] + ["--out", str(tmp_path)]) == 0
    assert list(tmp_path.glob("*.parsed.jpg"))
    assert list(tmp_path.glob("*.json"))


def test_the_python_example_prints_what_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    example = next(b for b in blocks(README, "python") if "upernet.load" in b)
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    promised = [line.split("  # ", 1)[1] for line in example.splitlines() if line.startswith("print(")]
    assert printed == promised


@pytest.mark.parametrize("path", ["README.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))])
def test_links_and_pictures_exist(path: str) -> None:
    text = (ROOT / path).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text) + re.findall(r'src="([^"]+)"', text):
        if not target.startswith(("http://", "https://")):
            assert ((ROOT / path).parent / target).exists(), f"{path} points to {target}"


def test_the_yaml_of_own_data_is_a_training_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from upernet.data.mixture import bind_sources
    from upernet.options import read_options

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "classes.json").write_text('["background", "road", "roof"]')
    monkeypatch.chdir(tmp_path)
    text = next(b for b in blocks((ROOT / "docs" / "own-data.md").read_text(), "yaml") if "tasks:" in b)
    assert yaml.safe_load(text)
    (tmp_path / "mine.yaml").write_text(text)
    options = read_options("train", ["--config", "mine.yaml"])
    assert list(bind_sources(options["data"], options["tasks"])["mine"].supervision) == ["semantic"]


def test_the_architecture_names_what_is_there() -> None:
    text = " ".join((ROOT / "docs" / "architecture.md").read_text().split())
    pairs = re.findall(r"`([\w/]+\.py)` `([\w.]+)`", text)
    assert len(pairs) > 40
    for file, name in pairs:
        source = (ROOT / "src" / "upernet" / file).read_text()
        for part in name.split("."):
            assert re.search(rf"^\s*(def|class) {part}\b|^{part}\b.* = ", source, flags=re.M), f"{file}: no {name}"


def test_the_layers_of_contributing_are_those_that_are_kept() -> None:
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    text = (ROOT / "CONTRIBUTING.md").read_text()
    table = [row.split("|")[2] for row in text.splitlines() if re.match(r"\| \d+ \|", row)]
    drawn = [name.removesuffix("/").removesuffix(".py") for row in table for name in re.findall(r"`([\w./]+)`", row)]
    assert sorted(drawn) == sorted(name for layer in layers for name in re.findall(r"\w+", layer))
