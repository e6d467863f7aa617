"""The command `benchmark`. Heavy imports wait until it runs, and no type of torch's is named: see `predict.py`."""

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
"""Height and width of a photograph of a data set that is not known by its classes."""
PROTOCOL = (
    "network, logits to the size of the answer and arg-max are timed, loading and resizing the image are not; device "
    "waited for before and after each image; gradients off, cuDNN benchmark off; contenders take turns image by image"
)
"""What fps and latency mean (SPEC D3)."""
MEANING = (
    "ms: median per image (batch), from input to label map; CPU: of all threads; GiB: most that PyTorch held, weights "
    "too; ×: median over images, upernet = 1"
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

    By the protocol of the published figures: one image at a time, the first five discarded, fps from the others.

    Args:
        model: A name (see upernet models), a model folder, a checkpoint of other software, or an address; upp-mini if
            neither this nor --config is given. Beside --config, its block of that name, such as --model.backbone
            resnet101c.
        size: Height and width of what the network sees and of its answer, such as 512 1024, in pixels; the published
            test size of the data set if none.
        batch: Images at once.
        images: Images to run, of which the first five are discarded.
        compare: Other software to run beside, image by image; all three if none is named.
        device: Where to compute; auto takes a GPU if there is one.
        precision: Arithmetic; bf16 and fp16 are mixed precision (autocast).
        threads: Threads on the CPU; PyTorch's own choice if none.
        out: File for the report, JSON.
        trust: Modules of your own from which the model may take its tasks.
        tasks: Block of --config.
        data: Block of --config; training memory is measured with its batch and crop.
        optim: Block of --config; training memory is measured with it.
        inference: Block of --config; its windows are those that slide here.

    Returns:
        Exit status: 0.

    Raises:
        UserError: If an option has no valid value, or there is no such model or device.
        WorkError: If the memory does not suffice.
    """
    check("--images", images, 6, example=200)
    check("--batch", batch, 1)
    check("--threads", threads, 1, example=4)
    check("--size", size and min(size), 32, example="512 1024")
    check_writable("--out", out)
    if tasks is None and (isinstance(model, ModelConfig) or data or optim or inference):
        raise UserError("tasks: none given; valid: --config with a recipe, such as ade20k/upernet_r50_512x512_80k.yaml")
    if isinstance(model, str) and tasks is not None:
        raise UserError(
            f"--model {model} is a network of its own; leave out --config, or change it by --model.backbone"
        )

    import torch

    from upernet import __version__
    from upernet.compare.costs import DISCARDED, measure
    from upernet.compare.counts import count_multiply_adds, count_parameters
    from upernet.compare.implementation import Trial
    from upernet.compare.ours import our_implementation, seeded_network
    from upernet.compare.peers import PEERS, peer_implementation
    from upernet.compare.report import describe_costs, describe_machine
    from upernet.device import find_device
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
            raise UserError(f"--batch {batch}: one image is {trial.window_count} windows already; valid: 1")
        network = network.to(where)
        by_part = {part: n * trial.window_count for part, n in count_multiply_adds(network, trial.window_size).items()}
        implementations = [our_implementation(network, tasks, trial, __version__)]
        for peer in PEERS if compare == [] else dict.fromkeys(compare or ()):
            try:
                implementations.append(peer_implementation(peer, network, tasks, trial, precision))
            except UserError as error:
                absent[peer] = str(error)
            except Exception as error:  # whatever other software does, the rest is measured
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
        "contenders": [describe_costs(one, costs, batch, where) for one in implementations],
        "not_compared": absent,
    }
    del implementations, network  # training is measured without them
    report["training"] = _training(model, tasks, data, optim, where, precision)
    _show(report)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, lambda file: file.write(json.dumps(report, indent=1, allow_nan=False).encode()))
    print(f"report: {out}")
    return 0


def _sizes(
    size: tuple[int, int] | None, tasks: Mapping[str, Task], inference: InferenceConfig
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width of the network's input and of the label map."""
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
    """Peak memory of a training step of a recipe, or why there is none."""
    from upernet.compare.costs import is_plain_segmentation, training_peak
    from upernet.compare.ours import seeded_network

    if isinstance(model, str) or data is None:
        return {"not_measured": "only a recipe has a batch and a crop (--config)"}
    if not is_plain_segmentation(tasks):
        return {"not_measured": "only recipes of plain segmentation have one kind of step"}
    how = {"batch": data.batch, "crop": list(data.augment.crop)}
    if device.type != "cuda":
        return {**how, "not_measured": "only PyTorch on a GPU tells it"}
    with _out_of_memory(f"data.batch {data.batch} does not fit into the memory of the GPU; try --data.batch 1"):
        network = seeded_network(model or ModelConfig(), tasks).to(device)
        peak = training_peak(network, optim or OptimConfig(), data.batch, data.augment.crop, precision)
    return {**how, "memory_gib": None if peak is None else peak / 2**30}


# --- around the measurement -----------------------------------------------------------------------------------------


@contextmanager
def _out_of_memory(said: str) -> Iterator[None]:
    from upernet.device import is_out_of_memory

    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise WorkError(said) from None


def _now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat(timespec="seconds")


def _command() -> str | None:
    """The words that were typed; none where Python called the function."""
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
    told = training.get("not_measured") or (
        f"{training['memory_gib']:.2f} GiB at a batch of {training['batch']} crops of {_times(training['crop'])}"
    )
    tell(f"memory in training: {told}" if "memory_gib" in training else f"memory in training: not measured, {told}")
    tell("")
    screen.print(_table(report["contenders"]))
    tell("")
    for one in report["contenders"][1:]:
        network = "; ".join(one["differs"]) or "same network"
        agreement = f"answers on equal weights, in float32, agree to {one['disagreement']:.0e}"
        tell(f"{one['name']} {one['version']}: {network}; {agreement}")
    for name, reason in report["not_compared"].items():
        tell(f"{name}: {reason}")
    tell(MEANING, "dim")


def _table(contenders: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    on_cpu, several = "cpu_ms" in contenders[0], len(contenders) > 1
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
    for one in contenders:
        table.add_row(*(cell(one) for cell in columns.values()))
    return table


def _parts(what: str, values: Mapping[str, str]) -> str:
    parts = ", ".join(f"{name} {value}" for name, value in values.items() if name != "total")
    return f"{what}: {values['total']} ({parts})"


def _times(size: list[int]) -> str:
    return f"{size[0]}×{size[1]}"


def _ms(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"
