"""The command `train`: what it refuses before anything is written, and what is left when it is stopped halfway."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_data import facade
from processes import Running, running
from runs import recipe, steps_of, write

from upernet.cli import main
from upernet.store.loading import load_model


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("tasks", {}, "tasks: there are none; for example semantic:"),
        ("data.sources", {}, "task 'object': no source trains it"),
        ("run.init", "no-such-model", "no-such-model: no such model; give a folder"),
        ("run.backbone_weights", "/no/such/file.pth", "/no/such/file.pth"),
        ("tasks.part.init_args.parts", {"barn": ["door"]}, "unknown class 'barn'; valid: building, else"),
        ("model.backbone", "resnet5", "timm has no model 'resnet5'; close names: "),
        ("data.sources.places.train", "nowhere", "source 'places': "),
    ],
)
def test_wrong_trainings_are_told_before_anything_is_written(
    path: str, value: Any, line: str, fake_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = recipe(fake_root, tmp_path / "out")
    *parents, last = path.split(".")
    block = content
    for key in parents:
        block = block[key]
    block[last] = value
    assert main(["train", "--config", write(tmp_path / "wrong.yaml", content)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("upernet: ")
    assert line in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_told(fake_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write(tmp_path / "recipe.yaml", recipe(fake_root, tmp_path / "out"))
    assert main(["train", "--config", config, "--run.device", "cuda"]) == 2
    assert "run.device: cuda, but this machine has no usable GPU" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_damaged_image_is_failed_work_and_the_run_can_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line from a loading worker, exit code 1, and a state from which the repaired data is trained on."""
    content = recipe(tmp_path, tmp_path / "out")
    root = facade(tmp_path / "mini_multitask" / "facade", counts={"train": 6, "val": 1})
    del content["data"]["sources"]["places"], content["tasks"]["scene"]
    content["data"]["workers"] = 1
    config = write(tmp_path / "mine.yaml", content)
    photo = root / "images" / "train" / "train_4.jpg"
    whole = photo.read_bytes()
    photo.write_bytes(whole[:100])
    assert main(["train", "--config", config]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"upernet: source 'fronts': {photo}: ")
    assert torch.load(tmp_path / "out" / "state.pt", weights_only=True)["step"] < 4
    photo.write_bytes(whole)
    assert main(["train", "--config", config]) == 0
    assert steps_of(tmp_path / "out", "lr") == [1, 2, 3, 4]


@contextmanager
def endless(fake_root: Path, folder: Path, workers: int) -> Iterator[Running]:
    """A training that nothing but a signal ends and that saves at no other time, once it has made a few steps.

    Args:
        fake_root: Its data.
        folder: Where `long.yaml` and its run, `out`, are written.
        workers: Processes that read its images.
    """
    content = recipe(fake_root, folder / "out")
    content["data"]["workers"] = workers
    content["run"] |= {"steps": 20_000, "save_every": 20_000, "val_every": 0}
    metrics = folder / "out" / "metrics.csv"
    with running(["train", "--config", write(folder / "long.yaml", content)]) as command:
        deadline = time.monotonic() + 240
        while not metrics.is_file() or len(metrics.read_text().splitlines()) < 20:
            assert command.process.is_alive(), command.errors.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield command


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_run_that_can_be_taken_up_again(end: signal.Signals, fake_root: Path, tmp_path: Path) -> None:
    """Ctrl-C, and what schedulers send when time is up, reach the process and its loading workers at once."""
    with endless(fake_root, tmp_path, workers=1) as command:
        assert command.process.pid is not None
        os.killpg(command.process.pid, end)
        code, errors = command.finish()
    assert code == 130
    assert errors.endswith("upernet: stopped\n")
    assert "the same command goes on from there" in errors
    assert "Traceback" not in errors
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.yaml", "metrics.csv", "state.pt", "tensorboard",
    ]  # fmt: skip
    step = torch.load(tmp_path / "out" / "state.pt", weights_only=True)["step"]
    assert step == steps_of(tmp_path / "out", "lr")[-1]

    words = ["train", "--config", str(tmp_path / "long.yaml")]
    assert main([*words, "--data.workers", "0", "--run.steps", str(step + 1)]) == 0
    assert steps_of(tmp_path / "out", "lr") == list(range(1, step + 2))
    assert load_model(tmp_path / "out" / "model")[0].config.backbone == "test_resnet"


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_a_loader_that_is_killed_is_failed_work_and_nothing_is_lost(fake_root: Path, tmp_path: Path) -> None:
    """As where the memory of the machine does not suffice."""
    with endless(fake_root, tmp_path, workers=2) as command:
        pid = command.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        code, errors = command.finish(50)  # the other worker is not waited for
    assert code == 1
    assert errors.splitlines()[-1].startswith("upernet: a process that reads images has died (")
    assert "Traceback" not in errors
    assert torch.load(tmp_path / "out" / "state.pt", weights_only=True)["step"] > 0
