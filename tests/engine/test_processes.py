"""Several processes that train together: as torchrun really starts them, and with what torchrun and srun tell them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from processes import by_srun, in_two_processes
from runs import recipe, steps_of, write

from upernet.cli import main
from upernet.store.loading import load_model

LAST_WORDS = """
import atexit, glob, os, runpy
def threads():
    return "threads: " + " ".join(open(name).read().strip() for name in glob.glob("/proc/self/task/*/comm")) + "\\n"
# The first to be registered runs last; one call writes a whole line, which the other process cannot cut.
atexit.register(lambda: os.write(2, threads().encode()))
runpy.run_module("upernet", run_name="__main__", alter_sys=True)
"""
"""`python -m upernet` that says at its very end what threads it has."""


@dataclass(frozen=True)
class Started:
    """Two processes of torchrun's that have trained the first half of a run.

    Attributes:
        config: YAML of the whole run.
        out: The run's folder; not to be written to.
        code: Exit code of torchrun.
        errors: Error streams of all processes.
    """

    config: str
    out: Path
    code: int
    errors: str


@pytest.fixture(scope="module")
def started(fake_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Started:
    folder = tmp_path_factory.mktemp("torchrun")
    (folder / "last_words.py").write_text(LAST_WORDS)
    content = recipe(fake_root, folder / "out")
    del content["tasks"]["part"], content["data"]["sources"]["fronts"]["targets"]["part"]
    content["optim"] |= {"freeze_norm": 0.0, "accumulate": 2, "schedule": "constant"}
    config = write(folder / "recipe.yaml", content)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words = ["train", "--config", config, "--run.steps", "2"]
    done = subprocess.run(
        [*torchrun, str(folder / "last_words.py"), *words], capture_output=True, text=True, timeout=240, check=False
    )
    return Started(config, folder / "out", done.returncode, done.stderr)


def test_torchrun_starts_processes_that_end_in_order(started: Started) -> None:
    """A thread of gloo that is left would abort a process, its work done."""
    assert started.code == 0, started.errors
    assert started.errors.count("done: ") == 1
    assert "Traceback" not in started.errors
    threads = [line for line in started.errors.splitlines() if line.startswith("threads: ")]
    assert len(threads) == 2
    assert not any("gloo" in line for line in threads)
    assert steps_of(started.out, "lr") == [1, 2]


def test_two_processes_train_to_the_weights_of_one_with_twice_the_batch(started: Started, tmp_path: Path) -> None:
    """Batch norm keeps its statistics, since each process has its own; the run is taken up halfway.

    Crops are padded at random, so that processes have different numbers of labelled pixels.
    """
    shutil.copytree(started.out, tmp_path / "two")
    words = ["train", "--config", started.config, "--run.out"]
    assert main([*words, str(tmp_path / "one"), "--data.batch", "4"]) == 0
    codes, errors = in_two_processes([*words, str(tmp_path / "two")])
    assert codes == [0, 0], errors
    assert "at step 2" in " ".join(errors[0].split())
    ours, theirs = (load_model(tmp_path / name / "model")[0].state_dict() for name in ("one", "two"))
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-4, atol=1e-6, msg=name)
    assert steps_of(tmp_path / "two", "lr") == [1, 2, 3, 4]
    one, two = (yaml.safe_load((tmp_path / n / "model" / "config.yaml").read_text())["info"] for n in ("one", "two"))
    assert two["validation"] == one["validation"]


def test_two_processes_of_srun_measure_the_network_that_they_save(fake_root: Path, tmp_path: Path) -> None:
    """Each has statistics of its own on a CPU; the first one alone says what is done."""
    config = write(tmp_path / "recipe.yaml", recipe(fake_root, tmp_path / "out"))
    more = ["--run.steps", "2", "--optim.norm_momentum", "0.9", "--optim.ema", "null"]
    codes, errors = in_two_processes(["train", "--config", config, *more], by_srun)
    assert codes == [0, 0], errors
    assert [text.count("done: ") for text in errors] == [1, 0]
    model, report = tmp_path / "out" / "model", tmp_path / "report.json"
    assert main(["evaluate", "--config", config, "--model", str(model), "--out", str(report), "--device", "cpu"]) == 0
    told = yaml.safe_load((model / "config.yaml").read_text())["info"]["validation"]
    for result in json.loads(report.read_text())["results"]:
        found = {name: round(value, 4) for name, value in result["values"].items()}
        assert told[f"{result['source']}/{result['task']}"] == pytest.approx(found, abs=1e-4)


def test_an_image_that_one_process_cannot_read_stops_both(fake_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(fake_root / "mini_multitask", root / "mini_multitask")
    for broken in sorted((root / "mini_multitask" / "scene15").rglob("*.jpg"))[::2]:
        broken.write_bytes(b"no picture")
    config = write(tmp_path / "recipe.yaml", recipe(root, tmp_path / "out"))
    codes, errors = in_two_processes(["train", "--config", config, "--run.steps", "20"])
    assert codes == [1, 1], errors
    lines = [text.splitlines()[-1] for text in errors]
    assert all(line.startswith("upernet: ") for line in lines)
    assert any("scene15" in line for line in lines)
