"""The command `benchmark`. Heavy imports wait until it runs, and no type of torch is named: see `predict.py`."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from upernet.config import InferenceConfig, ModelConfig, OptimConfig
from upernet.contract import Task
from upernet.data.config import DataConfig
from upernet.errors import UserError, WorkError, check
from upernet.files import check_writable, write_whole
from upernet.plain import to_plain
from upernet.screen import progress

PHOTO = (512, 683)
"""Height and width of a photograph, for models whose classes are those of no known data set."""
PROTOCOL = (
    "the network, resizing its logits and arg-max are timed, loading and resizing the image are not; the device is "
    "waited for before and after each image; gradients, cuDNN benchmark off; implementations take turns image by image"
)
"""How fps and latency are measured (SPEC D3)."""
MEANING = (
    "ms: median per image (batch), from input to label map; CPU: time of all threads; GiB: peak of the memory that "
    "PyTorch holds, weights included; ×: median ratio over images to upernet"
)


def benchmark(
    model: str | ModelConfig | None = None,
    size: tuple[int, int] | None = None,
    batch: int = 1,
    images: int = 200,
    compare: list[Literal["mmseg", "transformers", "smp"]] | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["float32", "bf16", "fp16"] = "float32",
    threads: int | None = None,
    out: Path = Path("benchmark.json"),
    trust: list[str] = [],  # noqa: B006 (never changed; the command line shows it)
    tasks: dict[str, Task] | None = None,
    data: DataConfig | None = None,
    optim: OptimConfig | None = None,
    inference: InferenceConfig | None = None,
) -> int:
    """Measure speed, memory, multiply-adds and parameters of a model, or of a recipe with random weights.

    The protocol is that of the published figures: images run one at a time, and the first five are not counted.

    Args:
        model: A name (see upernet models), a model folder, a checkpoint of other software, or an address. If neither
            this nor --config is given, it is upp-mini. With --config, options such as --model.backbone resnet101c
            change the recipe's network.
        size: Height and width of the network's input and of its answer in pixels, such as 512 1024. If not given, they
            are the published test size of the data set.
        batch: Number of images that run at once.
        images: Number of runs, of which the first five are not counted.
        compare: Other software to run alongside, image by image. Without names, all three are run.
        device: Where to compute; auto takes a GPU if there is one.
        precision: Arithmetic. bf16 and fp16 are mixed precision (autocast).
        threads: Number of CPU threads. If not given, PyTorch chooses it.
        out: File for the report, in JSON.
        trust: Your own modules, from which the model may import its tasks.
        tasks: The tasks of the recipe.
        data: The data of the recipe. Memory in training is measured with its batch and crop.
        optim: The optimiser of the recipe. Memory in training is measured with it.
        inference: How the recipe shows images to the network. Its sliding windows are used here.

    Returns:
        Exit status: 0.

    Raises:
        UserError: If an option is not valid, or the model or the device does not exist.
        WorkError: If there is not enough memory.
    """
    check("--images", images, 6, example=200)
    check("--batch", batch, 1)
    check("--threads", threads, 1, example=4)
    check("--size", size and min(size), 32, example="512 1024")
    check_writable("--out", out)
    if tasks is None and (isinstance(model, ModelConfig) or data or optim or inference):
        raise UserError("tasks: there are none; give a recipe, such as --config ade20k/upernet_r50_512x512_80k.yaml")
    if isinstance(model, str) and tasks is not None:
        raise UserError(
            f"--model {model} and --config both give a network; leave one out, or change the recipe's: --model.backbone"
        )

    import torch

    from upernet import __version__
    from upernet.compare.costs import DISCARDED, measure
    from upernet.compare.implementation import Trial
    from upernet.compare.ours import our_implementation, seeded_network
    from upernet.compare.peers import PEERS, peer_implementation
    from upernet.compare.report import describe_costs, describe_machine
    from upernet.device import find_device
    from upernet.model.counts import count_multiply_adds, count_parameters
    from upernet.store.loading import load_model

    where = find_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    if isinstance(model, str) or tasks is None:
        name = model if isinstance(model, str) else "upp-mini"
        network, tasks, inference = load_model(name, trust)
    else:
        name = "random weights"
        network, inference = seeded_network(model or ModelConfig(), tasks), inference or InferenceConfig()
    shown, answer = _sizes(size, tasks, inference)
    absent: dict[str, str] = {}
    with _out_of_memory(f"--size {shown[0]} {shown[1]} and --batch {batch} do not fit into the memory"):
        image = torch.rand(batch, 3, *shown, generator=torch.Generator().manual_seed(0)) * 255
        trial = Trial(image.to(where), answer, inference)
        if batch > 1 and trial.window_count > 1:
            raise UserError(f"--batch {batch}: one image makes {trial.window_count} sliding windows already; valid: 1")
        network = network.to(where)
        by_part = {part: n * trial.window_count for part, n in count_multiply_adds(network, trial.window_size).items()}
        implementations = [our_implementation(network, tasks, trial, __version__)]
        for peer in PEERS if compare == [] else dict.fromkeys(compare or ()):
            try:
                implementations.append(peer_implementation(peer, network, tasks, trial, precision))
            except UserError as error:
                absent[peer] = str(error)
            except Exception as error:  # a failure of other software must not stop the rest
                absent[peer] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        with progress("measuring", images * len(implementations)) as advance:
            costs = measure(implementations, where, precision, images, advance)
    report: dict[str, Any] = {
        "model": name,
        "version": __version__,
        "date": _now(),
        "command": _command(),
        "machine": describe_machine(where),
        "protocol": PROTOCOL,
        "network": to_plain(network.config),
        "input": list(shown),
        "answer": list(answer),
        "window": None if inference.window is None else list(trial.window_size),
        "windows": trial.window_count,
        "batch": batch,
        "precision": precision,
        "images": images,
        "discarded": DISCARDED,
        "parameters": count_parameters(network),
        "multiply_adds": by_part,
        "contenders": [describe_costs(each, costs, batch, where) for each in implementations],
        "not_compared": absent,
    }
    del implementations, network  # they would count as memory in training
    report["training"] = _training(model, tasks, data, optim, where, precision)
    _show(report)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, lambda file: file.write(json.dumps(report, indent=1, allow_nan=False).encode()))
    print(f"report: {out}")
    return 0


def _sizes(
    size: tuple[int, int] | None, tasks: Mapping[str, Task], inference: InferenceConfig
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Sizes (height, width) of the network's input and of the label map, in pixels."""
    from upernet.data.sets import SETS
    from upernet.inference.sizes import network_size

    if size is not None:
        return size, size
    names = [list(task.classes.names) for task in tasks.values()]
    known = (kind.photograph for kind in SETS.values() if kind.photograph and list(kind.classes) in names)
    photo = next(known, PHOTO)
    return network_size(*photo, inference), photo


def _training(
    model: str | ModelConfig | None,
    tasks: dict[str, Task],
    data: DataConfig | None,
    optim: OptimConfig | None,
    device: Any,
    precision: str,
) -> dict[str, Any]:
    """Peak memory of a training step of a recipe, or the reason why it is not measured."""
    from upernet.compare.costs import is_plain_segmentation, training_peak
    from upernet.compare.ours import seeded_network

    if isinstance(model, str) or data is None:
        return {"not_measured": "only a recipe has a batch and a crop (--config)"}
    if not is_plain_segmentation(tasks):
        return {"not_measured": "only recipes of plain segmentation have one kind of step"}
    crop = data.augment.crop
    if data.augment.short_sides:
        return {"not_measured": "the recipe does not crop, so that its batches differ in size"}
    settings = {"batch": data.batch, "crop": list(crop)}
    if device.type != "cuda":
        return {**settings, "not_measured": "PyTorch reports it on a GPU only"}
    with _out_of_memory(f"data.batch {data.batch} does not fit into the memory of the GPU; try --data.batch 1"):
        network = seeded_network(model or ModelConfig(), tasks).to(device)
        peak = training_peak(network, optim or OptimConfig(), data.batch, crop, precision)
    return {**settings, "memory_gib": None if peak is None else peak / 2**30}


# --- around the measurement -----------------------------------------------------------------------------------------


@contextmanager
def _out_of_memory(message: str) -> Iterator[None]:
    """Raise a `WorkError` with this message if the block runs out of memory."""
    from upernet.device import is_out_of_memory

    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise WorkError(message) from None


def _now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat(timespec="seconds")


def _command() -> str | None:
    """The command line as typed, or None if the function was called from Python."""
    return f"upernet {shlex.join(sys.argv[1:])}" if sys.argv[1:2] == ["benchmark"] else None


# --- on screen ------------------------------------------------------------------------------------------------------


def _show(report: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.text import Text

    screen = Console(highlight=False)

    def tell(line: str, style: str = "") -> None:
        screen.print(Text(line, style))

    machine = report["machine"]
    where = f"{machine['gpu']}, TF32 {'on' if machine['tf32'] else 'off'}" if "gpu" in machine else machine["cpu"]
    tell(f"{report['network']['backbone']}, {report['model']}", "bold")
    windows = f" in {report['windows']} windows of {_times(report['window'])}" if report["window"] else ""
    kept = report["images"] - report["discarded"]
    tell(
        f"{_times(report['input'])}{windows}, answer {_times(report['answer'])}, batch {report['batch']}, "
        f"{report['precision']}; {kept} of {report['images']} images"
    )
    tell(f"{where}, {machine['threads']} threads, torch {machine['torch']}, upernet {report['version']}")
    tell("")
    tell(_parts("parameters", {k: f"{v:,}" for k, v in report["parameters"].items()}))
    tell(_parts("multiply-adds per image", {k: f"{v / 1e9:,.1f} G" for k, v in report["multiply_adds"].items()}))
    training = report["training"]
    if "memory_gib" in training:
        crops = f"{training['batch']} crops of {_times(training['crop'])}"
        tell(f"memory in training: {training['memory_gib']:.2f} GiB at a batch of {crops}")
    else:
        tell(f"memory in training: not measured, {training['not_measured']}")
    tell("")
    screen.print(_table(report["contenders"]))
    tell("")
    for peer in report["contenders"][1:]:
        network = "; ".join(peer["differs"]) or "same network"
        agreement = f"answers on equal weights, in float32, agree to {peer['disagreement']:.0e}"
        tell(f"{peer['name']} {peer['version']}: {network}; {agreement}")
    for name, reason in report["not_compared"].items():
        tell(f"{name}: {reason}")
    tell(MEANING, "dim")


def _table(implementations: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    on_cpu, several = "cpu_ms" in implementations[0], len(implementations) > 1
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "": lambda c: c["name"],
        "fps": lambda c: f"{c['fps']:#.3g}".rstrip("."),
        "ms": lambda c: _ms(c["latency_ms"]["median"]),
        "5–95 %": lambda c: f"{_ms(c['latency_ms']['5 %'])}–{_ms(c['latency_ms']['95 %'])}",
    }
    if on_cpu:
        columns["CPU ms"] = lambda c: _ms(c["cpu_ms"])
    columns["GiB"] = lambda c: "" if c["memory_gib"] is None else f"{c['memory_gib']:.2f}"
    if several:
        columns["M par"] = lambda c: f"{c['parameters'] / 1e6:.1f}"
        columns["G MAC"] = lambda c: f"{c['multiply_adds'] / 1e9:.1f}"
        columns["time"] = lambda c: f"×{c['time_ratio']:.2f}"
        if on_cpu:
            columns["CPU"] = lambda c: f"×{c['cpu_time_ratio']:.2f}"
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for number, title in enumerate(columns):
        table.add_column(title, justify="right" if number else "left", no_wrap=True)
    for implementation in implementations:
        table.add_row(*(cell(implementation) for cell in columns.values()))
    return table


def _parts(title: str, values: Mapping[str, str]) -> str:
    parts = ", ".join(f"{name} {value}" for name, value in values.items() if name != "total")
    return f"{title}: {values['total']} ({parts})"


def _times(size: list[int]) -> str:
    return f"{size[0]}×{size[1]}"


def _ms(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"
