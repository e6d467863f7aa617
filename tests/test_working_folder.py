"""Whose files are executed: those that the user names, and none for its name alone."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_data import blocks, cityscapes, image_mask_folder, picture
from PIL import Image
from tiny_model import save

from upernet.working_folder import VARIABLE, allow_modules

TRAPS = ("dill", "yaml", "numpy", "csv", "email", "torch", "signal")
"""Modules that some library imports where they are installed, or that every one imports."""
TRAP = "from pathlib import Path\n\nPath(__file__).with_suffix('.ran').touch()\nraise SystemExit('trapped')\n"
SCRIPT = "import sys\n\nfrom upernet.cli import main\n\nif __name__ == '__main__':\n    sys.exit(main())\n"
"""What an installer writes as the command `upernet`."""
PROJECT = "from upernet.tasks import Semantic\n\n\nclass Own(Semantic):\n    pass\n"


def run(folder: Path, *words: str) -> None:
    """Run Python in a folder; it must succeed."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a photograph, data, a training file, and the command `upernet` beside it."""
    folder = tmp_path_factory.mktemp("working") / "here"
    image_mask_folder(folder / "town", ["sky", "car"])
    Image.fromarray(picture(blocks("photo", [0, 1]))).save(folder / "photo.jpg")
    save(folder / "model")
    cityscapes(folder / "streets", train_ids=False, label_ids=True)
    (folder.parent / "upernet").write_text(SCRIPT)
    source = {
        "dataset": {
            "class_path": "upernet.data.ImageMaskFolder",
            "init_args": {"root": "town", "labels": ["sky", "car"]},
        },
        "targets": {"semantic": {}},
    }
    content: dict[str, Any] = {
        "model": {"backbone": "test_resnet", "width": 8},
        "tasks": {"semantic": {"class_path": "upernet.tasks.Semantic", "init_args": {"labels": ["sky", "car"]}}},
        "data": {"batch": 2, "workers": 0, "augment": {"crop": [32, 32]}, "sources": {"town": source}},
        "run": {"steps": 1, "device": "cpu", "out": "shipped"},
        "inference": {"short_side": 48},
    }
    (folder / "shipped.yaml").write_text(yaml.safe_dump(content))
    content["tasks"]["semantic"]["class_path"] = "my_own_project.Own"
    content["data"]["workers"] = 2
    content["run"]["out"] = "own"
    (folder / "own.yaml").write_text(yaml.safe_dump(content))
    return folder


@pytest.fixture
def trapped(place: Path) -> Iterator[Path]:
    for name in TRAPS:
        (place / f"{name}.py").write_text(TRAP)
    yield place
    assert not list(place.glob("*.ran"))
    for name in TRAPS:
        (place / f"{name}.py").unlink()


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "upernet", "predict", "photo.jpg", "--model", "model"],
        ["../upernet", "train", "--config", "shipped.yaml"],
        ["../upernet", "prepare", "cityscapes", "streets", "--workers", "2"],
    ],
    ids=["python -m upernet predict", "upernet train", "upernet prepare"],
)
def test_files_beside_a_photograph_are_not_executed(trapped: Path, words: list[str]) -> None:
    run(trapped, *words)


def test_a_module_that_is_named_is_found_and_no_other(trapped: Path) -> None:
    """In a training file, in the processes that load its batches, and by `--trust`."""
    place = trapped
    (place / "my_own_project.py").write_text("from my_own_helpers import CLASSES\n\n" + PROJECT)
    (place / "my_own_helpers.py").write_text("CLASSES = 2\n")
    run(place, "-m", "upernet", "train", "--config", "own.yaml")
    assert "class_path: my_own_project.Own" in (place / "own" / "model" / "config.yaml").read_text()
    run(
        place,
        "../upernet",
        "predict",
        "photo.jpg",
        "--model",
        "own/model",
        "--out",
        "found",
        "--trust",
        "my_own_project",
    )
    assert list((place / "found").glob("*.json"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    return tmp_path


def found(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def test_modules_that_are_named_are_found_with_those_that_they_import(here: Path) -> None:
    (here / "my_lonely_module.py").write_text("def late():\n    import my_lonely_package.inner, dill_of_mine, json\n")
    (here / "my_lonely_package").mkdir()
    (here / "my_lonely_package" / "inner.py").write_text("from my_other import x\n")
    for name in ("dill_of_mine", "my_other", "my_bystander", "json"):
        (here / f"{name}.py").touch()
    before = [*sys.path]
    allow_modules(["my_lonely_module.tasks"])
    assert sys.path == before
    assert [found(n) for n in ("my_lonely_module", "my_lonely_package", "dill_of_mine", "my_other")] == [True] * 4
    assert not found("my_bystander")
    assert "json" not in os.environ[VARIABLE].split(os.pathsep)


@pytest.mark.parametrize(
    "names", [[], ["upernet.tasks"], ["json"], ["yaml.nodes"], ["nowhere_at_all"], ["../photo"], ["", "."]], ids=str
)
def test_other_names_allow_nothing(here: Path, names: list[str]) -> None:
    for name in ("json", "yaml", "upernet", "dill"):
        (here / f"{name}.py").touch()
    allow_modules(names)
    assert VARIABLE not in os.environ
    assert not found("dill")


def test_a_file_that_is_no_python_allows_itself_alone(here: Path) -> None:
    (here / "my_broken_module.py").write_text("import (\n")
    allow_modules(["my_broken_module"])
    assert os.environ[VARIABLE].split(os.pathsep) == [str(here), "my_broken_module"]


def test_started_processes_find_the_same_modules(here: Path) -> None:
    (here / "my_lonely_module.py").touch()
    (here / "my_bystander.py").touch()
    allow_modules(["my_lonely_module"])
    code = "import upernet, my_lonely_module, importlib.util; print(importlib.util.find_spec('my_bystander'))"
    elsewhere = here.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=elsewhere, capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"
