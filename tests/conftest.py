"""What several tests share: where reference material lies, when it is there."""

from __future__ import annotations

import os
from pathlib import Path

import compiled_modules  # noqa: F401  before PyTorch, which it concerns
import pytest
import torch
from fake_data import everything

ROOT = Path(__file__).parents[1]

# Networks of a few thousand weights gain nothing from threads, and tests may run beside something else.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for processes that tests start
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def _folder(variable: str, default: str) -> Path:
    path = Path(os.environ.get(variable, ROOT / default))
    if not path.is_dir():
        pytest.skip(f"no {path}; set {variable} to the folder to run this test")
    return path


@pytest.fixture(autouse=True)
def _seed() -> None:
    """What a test draws from PyTorch does not depend on the tests before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def spec_dir() -> Path:
    """The specification's data files."""
    return _folder("UPERNET_SPEC", "../shared/spec")


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    """What the reference implementations answer."""
    return _folder("UPERNET_FIXTURES", "../shared/fixtures")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The real data sets."""
    return _folder("UPERNET_DATA", "../shared/data")


@pytest.fixture(scope="session")
def fake_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small made-up data sets in the layout of the real ones; not to be written to."""
    return everything(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a `model`, and `model.onnx` with its logits; not to be written to."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from exports import INFERENCE, network_of, parsing_tasks

    from upernet.cli import main
    from upernet.store.native import save_model

    folder, tasks = tmp_path_factory.mktemp("exported"), parsing_tasks()
    save_model(folder / "model", network_of(tasks), tasks, INFERENCE)
    (folder / "model" / "README.md").write_text("# Made up for tests")
    assert main(["export", str(folder / "model"), str(folder / "model.onnx"), "--checks", "4"]) == 0
    return folder
