"""From a YAML file to a run, a model, a report: train, stop, go on, evaluate, parse, on made-up data."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fake_data import SCENE15, Memory, facade
from safetensors.torch import load_file
from torch import Tensor

import upernet
from upernet.cli import main, read_options
from upernet.data.sets.voc import VOC_LABELS
from upernet.labels import ClassSets
from upernet.store.loading import load_model
from upernet.tasks import Scene


@dataclass(kw_only=True)
class Mood(Scene):
    """A stranger's task, registered nowhere: a scene that is sure of itself."""

    temperature: float = 2.0

    def loss(self, logits: Tensor, target: Tensor, sets: ClassSets) -> Tensor:
        return super().loss(logits * self.temperature, target, sets)

    def probabilities(self, logits: Tensor) -> Tensor:
        return super().probabilities(logits * self.temperature)


def recipe(fake_root: Path, out: Path) -> dict[str, Any]:
    mini = fake_root / "mini_multitask"
    facade = {"class_path": "upernet.data.Facade", "init_args": {"root": str(mini / "facade")}}
    parts = {"building": "building/-", "door": "building/door", "window": "building/window"}
    others = dict.fromkeys(["various", "car", "pavement", "road", "sky", "vegetation"])
    return {
        "model": {"backbone": "test_resnet", "width": 8},
        "tasks": {
            "object": {"class_path": "upernet.tasks.Object", "init_args": {"labels": ["building", "else"], "width": 8}},
            "part": {
                "class_path": "upernet.tasks.Part",
                "init_args": {"parts": {"building": ["door", "window"]}, "width": 8},
            },
            "scene": {"class_path": "upernet.tasks.Scene", "init_args": {"labels": SCENE15, "width": 8}},
        },
        "data": {
            "batch": 2,
            "workers": 0,
            "augment": {"crop": [32, 32], "brightness": 0.2},
            "sources": {
                "fronts": {
                    "dataset": facade,
                    "targets": {
                        "object": {"classes": dict.fromkeys(others, "else") | dict.fromkeys(parts, "building")},
                        "part": {"classes": others | parts},
                    },
                },
                "places": {
                    "dataset": {"class_path": "upernet.data.ClassFolder", "init_args": {"root": str(mini / "scene15")}},
                    "targets": {"scene": {}},
                },
            },
        },
        "optim": {"lr": 0.02, "ema": 0.5},
        "run": {"out": str(out), "steps": 4, "device": "cpu", "log_every": 1, "save_every": 1, "val_every": 2},
        "inference": {"short_side": 48},
    }


def write(path: Path, content: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(content))
    return str(path)


def steps_of(folder: Path, metric: str) -> list[int]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row["metric"] == metric]


@pytest.fixture(scope="module")
def run(fake_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("run")
    config = write(folder / "recipe.yaml", recipe(fake_root, folder / "out"))
    assert main(["train", "--config", config]) == 0
    return folder / "out"


def test_a_run_leaves_a_model_that_loads(run: Path) -> None:
    assert steps_of(run, "lr") == [1, 2, 3, 4]
    assert sorted(set(steps_of(run, "top-1"))) == [2, 4]
    model, tasks, inference = load_model(run / "model")
    assert list(tasks) == ["object", "part", "scene"]
    assert inference.short_side == 48
    assert all(value.isfinite().all() for value in model.state_dict().values())
    info = yaml.safe_load((run / "model" / "config.yaml").read_text())["info"]
    assert info["step"] == 4
    assert set(info["validation"]) == {"fronts/object", "fronts/part", "places/scene"}


def test_the_resolved_configuration_runs_again_to_the_same_weights(run: Path, tmp_path: Path) -> None:
    words = ["--config", str(run / "config.yaml"), "--run.out", str(tmp_path)]
    assert read_options("train", words)["run"].steps == 4
    assert main(["train", *words]) == 0
    one, other = (load_file(folder / "model" / "model.safetensors") for folder in (run, tmp_path))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_evaluate_says_what_the_last_validation_said(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "deep" / "report.json"
    words = [
        "--config",
        str(run / "config.yaml"),
        "--model",
        str(run / "model"),
        "--device",
        "cpu",
        "--per_class",
        "true",
    ]
    assert main(["evaluate", *words, "--out", str(report)]) == 0
    screen = capsys.readouterr().out
    assert all(word in screen for word in ("fronts", "places", "mIoU-bg", "top-1", "building/window", "bedroom"))
    told = json.loads(report.read_text())
    measured = {f"{r['source']}/{r['task']}": {k: round(v, 4) for k, v in r["values"].items()} for r in told["results"]}
    assert measured == yaml.safe_load((run / "model" / "config.yaml").read_text())["info"]["validation"]
    assert {(r["source"], r["split"], r["images"]) for r in told["results"]} == {
        ("fronts", "val", 2),
        ("places", "val", 15),
    }
    assert told["version"] == upernet.__version__
    assert told["inference"]["short_side"] == 48
    assert [path.name for path in report.parent.iterdir()] == ["report.json"]


def test_evaluate_on_some_sources_another_split_and_size(run: Path, tmp_path: Path) -> None:
    words = ["--config", str(run / "config.yaml"), "--model", str(run / "model"), "--out", str(tmp_path / "r.json")]
    assert main(["evaluate", *words, "--sources", "[fronts]", "--split", "train", "--short_side", "32"]) == 0
    told = json.loads((tmp_path / "r.json").read_text())
    assert {(r["source"], r["split"], r["images"]) for r in told["results"]} == {("fronts", "train", 4)}
    assert told["inference"]["short_side"] == 32


def test_a_report_is_json_for_everybody(run: Path, fake_root: Path, tmp_path: Path) -> None:
    """The standard has no NaN, and a class that no image shows has no accuracy."""
    content = recipe(fake_root, tmp_path)
    meaning = dict.fromkeys(VOC_LABELS) | {"cat": "else", "person": "building", "bird": ["else", "building"]}
    content["data"]["sources"] = {
        "voc": {
            "dataset": {
                "class_path": "upernet.data.VOC",
                "init_args": {"root": str(fake_root / "voc_mini" / "VOCdevkit" / "VOC2012")},
            },
            "targets": {"object": {"classes": meaning}},
        }
    }
    report = tmp_path / "report.json"
    words = ["--config", write(tmp_path / "voc.yaml", content), "--model", str(run / "model"), "--out", str(report)]
    assert main(["evaluate", *words]) == 0

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    (result,) = json.loads(report.read_text(), parse_constant=refuse)["results"]
    assert result["per_class"]["bird"]["Acc"] is None
    assert result["per_class"]["bird"]["IoU"] == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--sources", "[front]"], "sources: 'front' is not one of fronts, places"),
        (["--split", "nowhere"], "source 'fronts': "),
        (["--model", "no-such-model"], "no-such-model: no model; give a folder"),
    ],
)
def test_wrong_evaluations_are_told(words: list[str], line: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--config", str(run / "config.yaml"), "--model", str(run / "model"), *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"upernet: {line}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("tasks", {}, "tasks: none given; for example semantic:"),
        ("data.sources", {}, "task 'object': no source trains it"),
        ("run.init", "no-such-model", "no-such-model: no model; give a folder"),
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


def in_two_processes(config: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The command under torchrun, on this machine's processor."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "upernet"]
    return subprocess.run(
        [*start, "train", "--config", config, *words], capture_output=True, text=True, timeout=240, check=False
    )


def test_two_processes_train_to_the_weights_of_one_with_twice_the_batch(fake_root: Path, tmp_path: Path) -> None:
    """Batch norm keeps its statistics, since each process has its own; the second run is taken up in between.

    Crops are padded at random, so that processes have different numbers of labelled pixels.
    """
    content = recipe(fake_root, tmp_path / "out")
    del content["tasks"]["part"], content["data"]["sources"]["fronts"]["targets"]["part"]
    content["optim"] |= {"freeze_norm": 0.0, "accumulate": 2, "schedule": "constant"}
    config = write(tmp_path / "recipe.yaml", content)
    assert main(["train", "--config", config, "--data.batch", "4", "--run.out", str(tmp_path / "one")]) == 0
    for steps in ("2", "4"):
        done = in_two_processes(config, "--run.out", str(tmp_path / "two"), "--run.steps", steps)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("done: ") == 1
    ours, theirs = (load_model(tmp_path / name / "model")[0].state_dict() for name in ("one", "two"))
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-4, atol=1e-6, msg=name)
    assert steps_of(tmp_path / "two", "lr") == [1, 2, 3, 4]
    one, two = (yaml.safe_load((tmp_path / n / "model" / "config.yaml").read_text())["info"] for n in ("one", "two"))
    assert two["validation"] == one["validation"]


def test_two_processes_measure_the_network_that_they_save(fake_root: Path, tmp_path: Path) -> None:
    """Each has statistics of its own on a CPU."""
    config = write(tmp_path / "recipe.yaml", recipe(fake_root, tmp_path / "out"))
    done = in_two_processes(config, "--run.steps", "2", "--optim.norm_momentum", "0.9", "--optim.ema", "null")
    assert done.returncode == 0, done.stderr
    model, report = tmp_path / "out" / "model", tmp_path / "report.json"
    assert main(["evaluate", "--config", config, "--model", str(model), "--out", str(report), "--device", "cpu"]) == 0
    told = yaml.safe_load((model / "config.yaml").read_text())["info"]["validation"]
    for result in json.loads(report.read_text())["results"]:
        found = {name: round(value, 4) for name, value in result["values"].items()}
        assert told[f"{result['source']}/{result['task']}"] == pytest.approx(found, abs=1e-4)


def test_srun_starts_several_too(fake_root: Path, tmp_path: Path) -> None:
    """With the variables that it sets; at the end no thread of gloo is left, which would abort a process that ends."""
    config = write(tmp_path / "recipe.yaml", recipe(fake_root, tmp_path / "out"))
    threads = "[open(name).read().strip() for name in glob.glob('/proc/self/task/*/comm')]"
    told_last = f"import atexit, glob, sys; atexit.register(lambda: print({threads}, file=sys.stderr))"
    program = f"{told_last}; from upernet.cli import main; raise SystemExit(main())"
    words = [sys.executable, "-c", program, "train", "--config", config, "--run.steps", "1"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = dict.fromkeys(("SLURM_NTASKS", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS_PER_NODE"), "2")
    told |= {"SLURM_JOB_NAME": "upernet", "SLURM_NODELIST": "localhost", "SLURM_NNODES": "1", "SLURM_NODEID": "0"}
    ranks = [
        subprocess.Popen(
            words,
            env=os.environ | told | {"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "MASTER_PORT": str(port)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    said = [process.communicate(timeout=240)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], said
    assert [text.count("done: ") for text in said] == [1, 0]
    assert all(text.splitlines()[-1].startswith("['") and "gloo" not in text.splitlines()[-1] for text in said)


def test_an_image_that_one_process_cannot_read_stops_both(fake_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(fake_root, root)
    for broken in sorted((root / "mini_multitask" / "scene15").rglob("*.jpg"))[::2]:
        broken.write_bytes(b"no picture")
    content = recipe(root, tmp_path / "out")
    done = in_two_processes(write(tmp_path / "recipe.yaml", content), "--run.steps", "20")
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("upernet: ")]
    assert any("scene15" in line for line in lines)
    assert len(lines) == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", str(run / "config.yaml"), "--run.device", "cuda"]) == 2
    assert "run.device: cuda, but this machine has no usable GPU" in capsys.readouterr().err


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


def test_a_photograph_is_parsed(run: Path, fake_root: Path, tmp_path: Path) -> None:
    photo = next((fake_root / "mini_multitask" / "facade" / "images" / "val").iterdir())
    assert main(["predict", str(photo), "--model", str(run / "model"), "--out", str(tmp_path), "--device", "cpu"]) == 0
    told = json.loads((tmp_path / f"{photo.stem}.json").read_text())
    assert set(told["tasks"]) == {"object", "part", "scene"}
    assert upernet.load(run / "model", device="cpu")(photo)["object"].shape == (48, 64)


def test_a_second_stage_starts_from_the_first_and_trains_the_new_head_alone(
    run: Path, fake_root: Path, tmp_path: Path
) -> None:
    content = recipe(fake_root, tmp_path / "out")
    content["tasks"]["texture"] = {
        "class_path": "upernet.tasks.Texture",
        "init_args": {"labels": ["rough", "smooth"], "width": 8, "convs": 1},
    }
    content["data"]["sources"]["surfaces"] = {
        "dataset": {"class_path": "fake_data.Memory", "init_args": {"labels": ["rough", "smooth"], "dense": False}},
        "targets": {"texture": {}},
    }
    content["optim"] = {"train_only": ["texture"], "lr": 0.1}
    content["run"] |= {"init": str(run / "model"), "steps": 3}
    assert main(["train", "--config", write(tmp_path / "two.yaml", content)]) == 0
    one, two = (load_file(folder / "model" / "model.safetensors") for folder in (run, tmp_path / "out"))
    assert {name for name in two if name not in one} == {name for name in two if name.startswith("heads.texture.")}
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_strangers_task_and_source_need_nothing_but_a_class_path(fake_root: Path, tmp_path: Path) -> None:
    content = recipe(fake_root, tmp_path / "out")
    content["tasks"] = {
        "mood": {
            "class_path": f"{__name__}.Mood",
            "init_args": {"labels": ["calm", "wild"], "width": 8, "temperature": 3.0},
        }
    }
    content["data"]["sources"] = {
        "drawn": {
            "dataset": {"class_path": "fake_data.Memory", "init_args": {"labels": ["calm", "wild"], "dense": False}},
            "targets": {"mood": {}},
        }
    }
    content["run"]["steps"] = 2
    config = write(tmp_path / "mine.yaml", content)
    assert main(["train", "--config", config]) == 0
    _, tasks, _ = load_model(tmp_path / "out" / "model")
    assert tasks == {"mood": Mood(labels=["calm", "wild"], width=8, temperature=3.0)}
    assert type(tasks["mood"]) is Mood
    report = tmp_path / "r.json"
    assert main(["evaluate", "--config", config, "--model", str(tmp_path / "out" / "model"), "--out", str(report)]) == 0
    (result,) = json.loads(report.read_text())["results"]
    assert (result["task"], result["images"], list(result["values"])) == ("mood", 2, ["top-1"])
    parser = upernet.load(tmp_path / "out" / "model", device="cpu")
    assert parser(Memory().read(Memory().items("val")[0])[0])["mood"] in ("calm", "wild")


def endless(root: Path, out: Path, workers: int) -> dict[str, Any]:
    """A recipe that nothing but a signal ends, and that saves at no other time."""
    content = recipe(root, out)
    content["data"]["workers"] = workers
    content["run"] |= {"steps": 100_000, "save_every": 100_000, "val_every": 0}
    return content


@contextmanager
def training(config: str, out: Path) -> Iterator[subprocess.Popen[str]]:
    """The real command in a session of its own, once it has made a few steps; ended with the block at the latest."""
    code = "import sys; from upernet.cli import main; sys.exit(main())"
    words = [sys.executable, "-c", code, "train", "--config", config]
    process = subprocess.Popen(words, start_new_session=True, stderr=subprocess.PIPE, text=True)
    try:
        metrics = out / "metrics.csv"
        deadline = time.monotonic() + 500
        while time.monotonic() < deadline and process.poll() is None:
            if metrics.is_file() and len(metrics.read_text().splitlines()) > 20:
                break
            time.sleep(0.2)
        assert process.poll() is None
        yield process
    finally:
        process.kill()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_run_that_can_be_taken_up_again(end: signal.Signals, fake_root: Path, tmp_path: Path) -> None:
    """Ctrl-C, and what schedulers send when time is up, reach the process and its loading workers at once."""
    config = write(tmp_path / "long.yaml", endless(fake_root, tmp_path / "out", workers=1))
    with training(config, tmp_path / "out") as process:
        os.killpg(process.pid, end)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err.endswith("upernet: stopped\n")
    assert "the same command goes on from there" in err
    assert "Traceback" not in err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.yaml", "metrics.csv", "state.pt", "tensorboard",
    ]  # fmt: skip
    step = torch.load(tmp_path / "out" / "state.pt", weights_only=True)["step"]
    assert step == steps_of(tmp_path / "out", "lr")[-1]

    assert main(["train", "--config", config, "--data.workers", "0", "--run.steps", str(step + 1)]) == 0
    assert steps_of(tmp_path / "out", "lr") == list(range(1, step + 2))
    assert load_model(tmp_path / "out" / "model")


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_a_loader_that_is_killed_is_failed_work_and_nothing_is_lost(fake_root: Path, tmp_path: Path) -> None:
    """As where the memory of the machine does not suffice."""
    config = write(tmp_path / "long.yaml", endless(fake_root, tmp_path / "out", workers=2))
    with training(config, tmp_path / "out") as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        _, err = process.communicate(timeout=50)  # the other worker is not waited for
    assert process.returncode == 1
    assert err.splitlines()[-1].startswith("upernet: a process that reads images has died (")
    assert "Traceback" not in err
    assert torch.load(tmp_path / "out" / "state.pt", weights_only=True)["step"] > 0
