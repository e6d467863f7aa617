"""Time, memory and exactness on a GPU: our forms of the network beside other software, in one run.

    python benchmarks/gpu.py [--budget 570] [--out gpu.json] [--device cuda] [--batch 1] [--no-compile] [--tiny]

UPerNet R-50 and R-101 with random weights, 150 classes at 512×512 and 19 at 1024×2048, in bf16, tf32 and float32, from
image to label map. Forms of ours:

    plain                 the network as `model/` writes it down
    fused                 the rewritten form, its taps by matrix products
    fused, gather         the same, the fusion compiled by `torch.compile`, its taps by a gather
    fused, graph          what `upernet` runs: the rewritten form in a CUDA graph
    fused, compiled       the rewritten form compiled as a whole, for its size
    mmseg, transformers   other software, where it is installed

All take turns image by image; medians are shown. "of peak" is the share of the card's dense matrix peak that the plain
network's multiply-adds would take in that time, so that forms that save work may exceed what they use. "off" is the
largest difference of logits from the plain network in float64, in standard deviations; "equal" the share of pixels of
the same class.

Every network and size is measured in a process of its own. The report is written after every part, as JSON and beside
it as a table in Markdown. Nothing starts that would not end within the budget of seconds, as far as the parts before it
tell. A part that fails is named, and the next one begins. `--device cpu --tiny` rehearses everything in a minute. The
package need not be installed: PYTHONPATH=src is enough.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from upernet.compare.agreement import exact_answers
from upernet.compare.contender import Contender
from upernet.compare.costs import DISCARDED, measure
from upernet.compare.implementation import Implementation, Shown, Trial
from upernet.compare.ours import first_logits, label_maps, seeded_network
from upernet.compare.report import describe_costs, describe_machine
from upernet.compare.runner import in_one_line
from upernet.compare.twins import peer_contender
from upernet.config import InferenceConfig, ModelConfig
from upernet.contract import Task
from upernet.files import write_whole
from upernet.fused import fuse
from upernet.fused.merging import FusedMergingConv
from upernet.model import UPerNet
from upernet.model.counts import count_multiply_adds
from upernet.plain import from_plain
from upernet.recipes import merge_recipes, read_recipe
from upernet.runtimes.pytorch import TorchNetwork
from upernet.store.loading import load_model
from upernet.store.native import save_model

PEAKS = {
    "H200": {"float32": 67, "tf32": 495, "bf16": 989, "fp16": 989},
    "H100 PCIe": {"float32": 51, "tf32": 378, "bf16": 756, "fp16": 756},
    "H100 NVL": {"float32": 60, "tf32": 417, "bf16": 835, "fp16": 835},
    "H100": {"float32": 67, "tf32": 495, "bf16": 989, "fp16": 989},
    "A100": {"float32": 19.5, "tf32": 156, "bf16": 312, "fp16": 312},
    "L40S": {"float32": 91.6, "tf32": 183, "bf16": 362, "fp16": 362},
    "L40": {"float32": 90.5, "tf32": 90.5, "bf16": 181, "fp16": 181},
    "L4": {"float32": 30.3, "tf32": 60, "bf16": 121, "fp16": 121},
    "RTX 4090": {"float32": 82.6, "tf32": 82.6, "bf16": 165, "fp16": 165},
}
"""Part of a card's name → dense peak in TFLOP/s, two for a multiply-add, from the maker's data sheets."""
NETWORKS = [
    (recipe.format(depth), size)
    for depth in ("r50", "r101")
    for recipe, size in (
        ("ade20k/upernet_{}_512x512_80k.yaml", (512, 512)),
        ("cityscapes/upernet_{}_512x1024_40k.yaml", (1024, 2048)),
    )
]
"""Recipes, and the height and width of the image in pixels."""
PRECISIONS = ("bf16", "tf32", "float32")
FORMS = ("plain", "fused", "fused, gather", "fused, graph", "fused, compiled")
SLOW = {"fused, compiled": ("bf16",)}
"""Form → the precisions for which it is measured, where preparing it takes long."""
EXPECTED = 60.0
"""Seconds that a part may take, before any has been measured."""


# --- one network at one size, in a process of its own -----------------------------------------------------------------


def open_ours(folder: Path, form: str, trial: Trial) -> Callable[[], Implementation]:
    """An `Opening` of our network in one of `FORMS`."""
    plain, tasks, _ = load_model(folder)
    device = trial.image.device

    def prepare() -> Implementation:
        network = plain if form == "plain" else fuse(plain, winograd=False, in_place=True)
        runs = TorchNetwork(network.to(device), trial.precision, graphs=form == "fused, graph")
        if form == "fused, gather":
            for module in network.modules():
                if isinstance(module, FusedMergingConv):
                    module.compile(dynamic=True)
        elif form == "fused, compiled":
            network.compile(dynamic=False)
        return Implementation(
            "", lambda: label_maps(runs, tasks, trial), lambda: first_logits(runs, tasks, trial), runs
        )

    return prepare


def read_network(recipe: str, tiny: bool) -> tuple[UPerNet, dict[str, Task], InferenceConfig]:
    """A recipe's network with random weights."""
    kinds = {"model": ModelConfig, "tasks": dict[str, Task], "inference": InferenceConfig}
    values = merge_recipes(read_recipe(recipe), kinds)[-1][1]
    config, tasks, inference = (from_plain(kind, values.get(key, {}), key) for key, kind in kinds.items())
    if tiny:
        small = {"channels": [8, 16, 32, 64], "layers": [1, 1, 1, 1]}
        config = replace(config, backbone="resnet18", backbone_args=small, width=16)
    return seeded_network(config, tasks), tasks, inference


def measure_network(number: int, args: argparse.Namespace) -> None:
    """Measure one of `NETWORKS`, and rewrite the file of its figures after every precision."""
    recipe, size = NETWORKS[number]
    size = (size[0] // 8, size[1] // 8) if args.tiny else size
    device = torch.device(args.device)
    deadline = time.monotonic() + args.budget
    network, tasks, inference = read_network(recipe, args.tiny)
    work = count_multiply_adds(network, size)["total"]
    shown = Shown(size, size, inference, args.batch, device.type)
    found: dict[str, Any] = {"recipe": recipe, "size": list(size), "batch": args.batch, "multiply_adds": work}
    found |= {"machine": describe_machine(device), "parts": {}, "absent": {}}
    expected, images = args.expected, DISCARDED + (3 if args.tiny else 30 if size[0] < 1024 else 15)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        save_model(folder, network, tasks, inference)
        peers = []
        for name in ("mmseg", "transformers"):
            try:
                peers.append(peer_contender(name, network, tasks, inference, folder))
            except Exception as error:  # other software may fail in any way
                found["absent"][name] = str(in_one_line(error))
        twins = {id(twin): twin for twin in (network, *(peer.exact for peer in peers)) if twin is not None}
        exact = {key: exact_answers(twin, shown.trial()) for key, twin in twins.items()}
        for precision in PRECISIONS:
            if precision == "tf32" and device.type != "cuda":
                continue
            if time.monotonic() + expected > deadline:
                found["absent"][precision] = f"{deadline - time.monotonic():.0f} s were left"
                write_text(Path(args.out), json.dumps(found))
                continue
            begin = time.monotonic()
            ours = [
                Contender(form, partial(open_ours, folder, form), network, form="plain" if form == "plain" else "fused")
                for form in FORMS
                if precision in SLOW.get(form, PRECISIONS)
                and not (args.no_compile and form in ("fused, gather", "fused, compiled"))
            ]
            try:
                part = measure_part([*ours, *peers], replace(shown, precision=precision), images, exact)
            except Exception as error:  # whatever goes wrong, the next part begins
                part = {"failed": {"all": str(in_one_line(error))}}
            expected = 1.3 * (time.monotonic() - begin)
            found["parts"][precision] = part | {"seconds": time.monotonic() - begin}
            write_text(Path(args.out), json.dumps(found))
            if device.type == "cuda":
                torch.cuda.empty_cache()


def measure_part(contenders: Sequence[Contender], shown: Shown, images: int, exact: dict[int, Any]) -> dict[str, Any]:
    """Figures of all contenders in one precision, and why some failed."""
    device = torch.device(shown.device)
    costs, failed = measure(contenders, shown, torch.get_num_threads(), images, apart=False)
    first = [each.label for each in contenders if each.label in costs][:1]
    described = {
        each.label: describe_costs(
            each,
            costs,
            first,
            shown.batch,
            torch.get_num_threads(),
            device,
            exact[id(each.exact)].compare(costs[each.label].logits, costs[each.label].ids),
        )
        for each in contenders
        if each.label in costs
    }
    return {"contenders": described, "failed": {label: str(error) for label, error in failed.items()}}


# --- all of them ------------------------------------------------------------------------------------------------------


def measure_all(args: argparse.Namespace) -> dict[str, Any]:
    """Measure every network in a process of its own, and write the report after each part."""
    begin, report = time.monotonic(), {"command": sys.argv[1:], "networks": []}
    expected = 5.0 if args.tiny else EXPECTED
    for number in range(len(NETWORKS)):
        left = args.budget - (time.monotonic() - begin)
        if left < expected:
            report["networks"].append({"recipe": NETWORKS[number][0], "absent": {"all": f"{left:.0f} s were left"}})
            continue
        with tempfile.TemporaryDirectory() as place:
            own = Path(place) / "figures.json"
            words = [sys.executable, __file__, "--network", str(number), "--budget", str(left), "--out", str(own)]
            words += ["--device", args.device, "--batch", str(args.batch), "--expected", str(expected)]
            words += ["--tiny"] * args.tiny + ["--no-compile"] * args.no_compile
            process = subprocess.Popen(words, start_new_session=True)
            figures: dict[str, Any] = {"recipe": NETWORKS[number][0], "parts": {}, "absent": {}}
            code, seen = None, 0.0
            while code is None:
                time.sleep(0.2)
                code = process.poll()
                if own.exists() and own.stat().st_mtime > seen:
                    seen = own.stat().st_mtime
                    figures = json.loads(own.read_text())
                    write(args.out, report | {"networks": [*report["networks"], figures]})
                if code is None and time.monotonic() - begin > args.budget:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    code = "the budget was spent"
            if code != 0:
                figures["absent"]["rest"] = f"ended: {code}"
        report["networks"].append(figures)
        parts = [part["seconds"] for part in figures["parts"].values()]
        expected = 1.3 * max(parts, default=expected)
        write(args.out, report)
    return report


def write(out: Path, report: dict[str, Any]) -> None:
    """Write the report as JSON and as a table in Markdown."""
    write_text(out, json.dumps(report, indent=1))
    write_text(out.with_suffix(".md"), table(report))


def write_text(path: Path, text: str) -> None:
    """Write a file that another process may read at any time."""
    write_whole(path, lambda file: file.write(text.encode()))


def table(report: dict[str, Any]) -> str:
    """The report as a table in Markdown, one for each network."""
    lines = []
    for figures in report["networks"]:
        size = "×".join(map(str, figures.get("size", ())))
        card = figures.get("machine", {}).get("gpu", "CPU")
        lines += [f"### {figures['recipe']} {size}", "", f"{card}", ""]
        lines += [
            "| precision | form | fps | ms | time | first use, s | GiB | of peak | off | equal, % |",
            "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
        ]
        notes = dict(figures["absent"])
        for precision, part in figures.get("parts", {}).items():
            notes |= {f"{precision}, {label}": why for label, why in part.get("failed", {}).items()}
            peak = next((p[precision] for name, p in PEAKS.items() if re.search(rf"\b{name}\b", card)), None)
            for label, c in part.get("contenders", {}).items():
                rate = 2e-12 * figures["multiply_adds"] * c["fps"]
                cells = [
                    *(precision, label, f"{c['fps']:.1f}", f"{c['latency_ms']['median']:.2f}"),
                    *(f"×{c['time_ratio']:.2f}", f"{c['first_use_s']:.1f}"),
                    "" if c["memory_gib"] is None else f"{c['memory_gib']:.2f}",
                    "" if peak is None else f"{100 * rate / peak:.0f} %",
                    *(f"{c['disagreement']:.0e}", f"{100 * c['equal_classes']:.3f}"),
                ]
                lines.append(f"| {' | '.join(cells)} |")
        lines += ["", *(f"- {name}: {why}" for name, why in notes.items()), ""]
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    options.add_argument("--tiny", action="store_true", help="networks and images of a rehearsal")
    options.add_argument("--no-compile", action="store_true", help="leave out what is compiled")
    options.add_argument("--budget", type=float, default=570, help="seconds")
    options.add_argument("--batch", type=int, default=1)
    options.add_argument("--out", type=Path, default=Path("gpu.json"))
    options.add_argument("--network", type=int, help=argparse.SUPPRESS)
    options.add_argument("--expected", type=float, help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.network is not None:
        measure_network(args.network, args)
    else:
        print(table(measure_all(args)))


if __name__ == "__main__":
    main()
