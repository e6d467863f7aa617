"""The command `benchmark`. Heavy imports wait until it runs, and no type of torch is named: see `predict.py`."""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
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
    "waited for before and after each image; gradients, cuDNN benchmark off; implementations take turns image by "
    "image, on a CPU each in a fresh process of its own"
)
"""How fps and latency are measured (SPEC D3)."""
WIDTH = 100
"""Columns of what is written where no terminal says how many it has."""
MEANING = (
    "ms: median per image (batch), from input to label map; CPU: time of all threads; ×: how many times as long as the "
    "first row, median ratio over images; first: seconds from the network in memory to the first answer; GiB: peak of "
    "PyTorch's tensors, weights included; proc.: peak of the whole process; off: largest difference of logits from the "
    "plain network in float64, in standard deviations; equal: share of pixels of the same class as there"
)


def benchmark(
    model: str | ModelConfig | None = None,
    size: tuple[int, int] | None = None,
    batch: int = 1,
    images: int = 200,
    engine: list[Literal["auto", "torch", "openvino", "onnxruntime"]] = ["auto"],  # noqa: B006 (never changed)
    reference: bool = False,
    compare: list[Literal["plain", "mmseg", "transformers", "smp", "onnxruntime", "openvino", "mnn"]] | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["float32", "tf32", "bf16", "fp16"] = "float32",
    threads: list[int] | None = None,
    layers: bool = False,
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
        model: A name (see upernet models), a model folder, a checkpoint of other software, an address, or an ONNX file
            of upernet export. If neither this nor --config is given, it is upp-mini. With --config, options such as
            --model.backbone resnet101c change the recipe's network.
        size: Height and width of the network's input and of its answer in pixels, such as 512 1024. If not given, they
            are the published test size of the data set.
        batch: Number of images that run at once.
        images: Number of runs, of which the first five are not counted.
        engine: The engines that run our network; several are measured beside each other. auto is openvino on a CPU
            where it is installed, and else torch.
        reference: Measure the plain network in PyTorch, not its fused form.
        compare: What to run alongside, image by image: the plain network, followed as it is written; libraries with
            this network; and engines that run the plain network's graph. Without names, all are run.
        device: Where to compute; auto takes a GPU if there is one.
        precision: Arithmetic: float32, tf32 on a GPU, or bf16 or fp16 mixed with float32 (autocast).
        threads: Number of CPU threads; with several numbers, each is measured. If not given, PyTorch chooses it.
        layers: Also measure the network layer by layer, in PyTorch on the CPU, before and after it is fused.
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
        WorkError: If there is not enough memory, or our own network cannot be run.
    """
    check("--images", images, 6, example=200)
    check("--batch", batch, 1)
    check("--threads", min(threads) if threads else None, 1, example=4)
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
    from upernet.compare.agreement import exact_answers
    from upernet.compare.costs import DISCARDED, measure
    from upernet.compare.implementation import Shown
    from upernet.compare.ours import seeded_network
    from upernet.compare.report import describe_costs, describe_machine
    from upernet.device import check_precision, find_device
    from upernet.model.counts import count_multiply_adds, count_parameters
    from upernet.store.exported import is_exported, read_exported
    from upernet.store.loading import load_model
    from upernet.store.native import save_model

    where = find_device(device)
    check_precision(precision, where)
    if isinstance(model, str) or tasks is None:
        name = model if isinstance(model, str) else "upp-mini"
        if is_exported(Path(name)):
            changed = {"reference": reference, "compare": compare is not None, "layers": layers}
            _check_exported(name, engine, [option for option, given in changed.items() if given], where.type, precision)
            network, (_, config, tasks, inference) = None, read_exported(Path(name), trust)
        else:
            network, tasks, inference = load_model(name, trust)
    else:
        name = "random weights"
        network, inference = seeded_network(model or ModelConfig(), tasks), inference or InferenceConfig()
    engines = [] if network is None else _engines(engine, reference, where.type, precision)
    input_size, answer = _sizes(size, tasks, inference)
    shown = Shown(input_size, answer, inference, batch, where.type, precision)
    usual = torch.get_num_threads()
    described: list[dict[str, Any]] = []
    absent: dict[str, str] = {}
    told_layers = None
    with (
        tempfile.TemporaryDirectory() as place,
        _out_of_memory(f"--size {input_size[0]} {input_size[1]} and --batch {batch} do not fit into the memory"),
    ):
        trial = shown.trial()
        if batch > 1 and trial.window_count > 1:
            raise UserError(f"--batch {batch}: one image makes {trial.window_count} sliding windows already; valid: 1")
        trusted = [*trust, *_modules(tasks)]
        by_part: dict[str, int] = {}
        if network is None:
            ours = [_exported_contender(Path(name).absolute(), trusted)]
            contenders = ours
        else:
            counted = count_multiply_adds(network, trial.window_size)
            by_part = {part: n * trial.window_count for part, n in counted.items()}
            folder = Path(place)
            save_model(folder, network, tasks, inference)
            config = network.config
            ours = [_our_contender(one, reference, network, folder, trusted) for one in engines]
            contenders = [*ours, *_others(compare, network, tasks, shown, folder, trusted, absent)]
        networks = {id(c.exact): c.exact for c in contenders}.items()
        exact = {key: None if model is None else exact_answers(model, trial) for key, model in networks}
        for count in dict.fromkeys(threads or [usual]):
            torch.set_num_threads(count)  # on a GPU, this process computes
            with progress("measuring", images * len(contenders)) as advance:
                costs, failed = measure(contenders, shown, count, images, advance)
            absent |= {label: str(error) for label, error in failed.items()}
            labels = [each.label for each in ours if each.label in costs]
            if not labels:
                raise failed[ours[0].label]
            described += [
                describe_costs(
                    each,
                    costs,
                    labels,
                    batch,
                    count,
                    where,
                    None if truth is None else truth.compare(costs[each.label].logits, costs[each.label].ids),
                )
                for each in contenders
                for truth in (exact[id(each.exact)],)
                if each.label in costs
            ]
        if layers:
            told_layers = _layers(network, tasks, replace(shown, device="cpu"))
        torch.set_num_threads(usual)
    report: dict[str, Any] = {
        "model": name,
        "version": __version__,
        "date": _now(),
        "command": _command(),
        "machine": describe_machine(where) | {"threads": max(threads or [usual])},
        "protocol": PROTOCOL,
        "network": to_plain(config),
        "input": list(input_size),
        "answer": list(answer),
        "window": None if inference.window is None else list(trial.window_size),
        "windows": trial.window_count,
        "batch": batch,
        "precision": precision,
        "images": images,
        "discarded": DISCARDED,
        "parameters": {} if network is None else count_parameters(network),
        "multiply_adds": by_part,
        "contenders": described,
        "not_compared": absent,
        "layers": told_layers,
    }
    del contenders, ours, exact, trial, network  # they would count as memory in training
    report["training"] = _training(model, tasks, data, optim, where, precision)
    _show(report)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, lambda file: file.write(json.dumps(report, indent=1, allow_nan=False).encode()))
    print(f"report: {out}")
    return 0


def _engines(wanted: Sequence[Any], reference: bool, device: str, precision: str) -> list[Any]:
    """The engines that run our network, without repetition.

    Raises:
        UserError: If one of them does not compute on the device, in the precision, or the plain network.
    """
    from importlib.util import find_spec

    from upernet.runtimes.choice import ENGINES, PREFERRED

    usual = device == "cpu" and precision == "float32" and not reference
    there = all(find_spec(package) is not None for package in ENGINES[PREFERRED].packages)
    best = ENGINES[PREFERRED].name if usual and there else "torch"
    engines = list(dict.fromkeys(best if one == "auto" else one for one in wanted or ["auto"]))
    for one in engines:
        if one != "torch" and reference:
            raise UserError(f"--engine {one}: --reference is the plain network in PyTorch; try --compare {one}")
        if one != "torch" and not usual:
            raise UserError(f"--engine {one}: is measured on a CPU in float32 only; valid here: torch")
    return engines


def _check_exported(name: str, engine: Sequence[str], options: Sequence[str], device: str, precision: str) -> None:
    """Refuse what an exported file cannot do.

    Raises:
        UserError: If there is such an option.
    """
    for option in options:
        raise UserError(f"--{option}: {name} is an exported graph without its network; give the model it was made of")
    for one in engine:
        if one not in ("auto", "onnxruntime"):
            raise UserError(f"--engine {one}: {name} is an exported graph; valid here: onnxruntime")
    if device != "cpu" or precision != "float32":
        raise UserError(f"{name}: an exported graph computes on the CPU in float32; try --device cpu")


def _exported_contender(path: Path, trust: Sequence[str]) -> Any:
    from functools import partial

    from upernet.compare.contender import Contender
    from upernet.compare.ours import open_exported

    return Contender("upernet", partial(open_exported, path, trust), None, engine="onnxruntime", form="exported")


def _our_contender(engine: Any, reference: bool, network: Any, folder: Path, trust: Sequence[str]) -> Any:
    from functools import partial

    from upernet.compare.contender import Contender
    from upernet.compare.ours import open_ours
    from upernet.model.counts import count_parameters

    return Contender(
        "upernet",
        partial(open_ours, folder, trust, engine, reference),
        network,
        engine=engine,
        form="plain" if reference else "fused",
        parameters=count_parameters(network)["total"],
    )


def _others(
    compare: Sequence[str] | None,
    network: Any,
    tasks: Mapping[str, Task],
    shown: Any,
    folder: Path,
    trust: Sequence[str],
    absent: dict[str, str],
) -> Iterator[Any]:
    """Yield what else is asked for; why some cannot be compared is added to `absent`."""
    from functools import partial

    from upernet.compare.contender import Contender
    from upernet.compare.graphs import ENGINES
    from upernet.compare.ours import open_plain
    from upernet.compare.peers import PEERS
    from upernet.compare.runner import in_one_line
    from upernet.compare.twins import GraphWriter, peer_contender

    graphs = GraphWriter(network, tasks, folder, trust)
    for name in ["plain", *PEERS, *ENGINES] if compare == [] else dict.fromkeys(compare or ()):
        try:
            if name == "plain":
                yield Contender(name, partial(open_plain, folder, trust), network)
            elif name in PEERS:
                yield peer_contender(name, network, tasks, shown.inference, folder)
            else:
                yield graphs.contender(name, shown)
        except Exception as error:  # a failure of other software must not stop the rest
            absent[name] = str(in_one_line(error))


def _modules(tasks: Mapping[str, Task]) -> set[str]:
    """The modules from which this process has imported the tasks, for those that it starts."""
    from upernet.plain import class_paths

    named = class_paths({name: to_plain(task) for name, task in tasks.items()}, "tasks")
    return {module.partition(".")[0] for _, path in named if (module := path.rpartition(".")[0])}


def _layers(network: Any, tasks: Mapping[str, Task], shown: Any) -> list[dict[str, Any]]:
    """Multiply-adds and CPU time of each layer before and after fusing, in the order in which they appear."""
    from upernet.compare.layers import measure_layers
    from upernet.fused import fuse

    before, after = measure_layers([network, fuse(network)], tasks, shown.trial())
    return [
        {
            "name": name,
            **{
                when: {"multiply_adds": form[name].multiply_adds, "cpu_ms": form[name].cpu_seconds * 1e3}
                if name in form
                else None
                for when, form in (("before", before), ("after", after))
            },
        }
        for name in dict.fromkeys([*before, *after])
    ]


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
    precision: Literal["float32", "tf32", "bf16", "fp16"],
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
    if not screen.is_terminal:
        screen.width = WIDTH

    def tell(line: str, style: str = "") -> None:
        screen.print(Text(line, style))

    machine = report["machine"]
    where = machine.get("gpu", machine["cpu"])
    tell(f"{report['network']['backbone']}, {report['model']}", "bold")
    windows = f" in {report['windows']} windows of {_times(report['window'])}" if report["window"] else ""
    kept = report["images"] - report["discarded"]
    tell(
        f"{_times(report['input'])}{windows}, answer {_times(report['answer'])}, batch {report['batch']}, "
        f"{report['precision']}; {kept} of {report['images']} images"
    )
    tell(f"{where}, torch {machine['torch']}, upernet {report['version']}")
    tell("")
    if report["parameters"]:
        tell(_parts("parameters", {k: f"{v:,}" for k, v in report["parameters"].items()}))
        tell(_parts("multiply-adds per image", {k: f"{v / 1e9:,.1f} G" for k, v in report["multiply_adds"].items()}))
    training = report["training"]
    if "memory_gib" in training:
        crops = f"{training['batch']} crops of {_times(training['crop'])}"
        tell(f"memory in training: {training['memory_gib']:.2f} GiB at a batch of {crops}")
    else:
        tell(f"memory in training: not measured, {training['not_measured']}")
    for threads in dict.fromkeys(c["threads"] for c in report["contenders"]):
        rows = [c for c in report["contenders"] if c["threads"] == threads]
        tell("")
        tell(f"{threads} {'thread' if threads == 1 else 'threads'}", "bold")
        screen.print(_table(rows))
        for row in rows[1:]:
            if row.get("relative_times"):
                tell(_relative(row))
        for row in rows:
            if row["next_use_s"] is not None:
                tell(f"{_label(row)}: first answer after {row['next_use_s']:.1f} s once its graph is on disk")
    if report["layers"] is not None:
        tell("")
        screen.print(_layer_table(report["layers"]))
    tell("")
    for peer in {c["name"]: c for c in report["contenders"] if c["name"] != "upernet"}.values():
        tell(f"{peer['name']} {peer['version']}: {'; '.join(peer['differs']) or 'same network'}")
    for name, reason in report["not_compared"].items():
        tell(f"{name}: {reason}")
    tell(MEANING, "dim")


def _relative(ours: Mapping[str, Any]) -> str:
    """How many times as long as ours each of the others takes, by CPU time where it is known."""
    kind, unit = ("cpu", "CPU time") if "cpu_ms" in ours else ("time", "time")
    others = ", ".join(f"{name} ×{ratio[kind]:.2f}" for name, ratio in ours["relative_times"].items())
    return f"{unit} relative to {_label(ours)}: {others}"


def _label(contender: Mapping[str, Any]) -> str:
    own = contender["name"] == "upernet"
    plain = " plain" if own and contender["form"] == "plain" else ""
    return f"upernet {contender['engine']}{plain}" if own else contender["name"]


def _table(contenders: list[dict[str, Any]]) -> Any:
    on_cpu, several = "cpu_ms" in contenders[0], len(contenders) > 1
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "": _label,
        "fps": lambda c: f"{c['fps']:#.3g}".rstrip("."),
        "ms": lambda c: _ms(c["latency_ms"]["median"]),
        "5–95 %": lambda c: f"{_ms(c['latency_ms']['5 %'])}–{_ms(c['latency_ms']['95 %'])}",
    }
    if on_cpu:
        columns["CPU ms"] = lambda c: _ms(c["cpu_ms"])
    if several:
        columns["time"] = lambda c: f"×{c['time_ratio']:.2f}"
        if on_cpu:
            columns["CPU"] = lambda c: f"×{c['cpu_time_ratio']:.2f}"
    columns["first"] = lambda c: f"{c['first_use_s']:.1f}"
    columns["GiB"] = lambda c: _or_blank(c["memory_gib"], "{:.2f}")
    if on_cpu:
        columns["proc."] = lambda c: _or_blank(c["process_gib"], "{:.2f}")
    columns["G MAC"] = lambda c: _or_blank(c["multiply_adds"], "{:.1f}", 1e9)
    columns["off"] = lambda c: _or_blank(c["disagreement"], "{:.0e}")
    columns["equal %"] = lambda c: _or_blank(c["equal_classes"], "{:.3f}", 0.01)
    return _rows(columns, contenders)


def _layer_table(layers: list[dict[str, Any]]) -> Any:
    """Multiply-adds and CPU time by layer, before and after fusing."""

    def cell(when: str, key: str, form: str, unit: float) -> Callable[[dict[str, Any]], str]:
        return lambda row: _or_blank(row[when] and row[when][key], form, unit)

    total: dict[str, Any] = {"name": "all"}
    for when in ("before", "after"):
        known = [row[when] for row in layers if row[when] is not None]
        total[when] = {key: sum(one[key] for one in known) for key in ("multiply_adds", "cpu_ms")}
    columns: dict[str, Callable[[dict[str, Any]], str]] = {"layer": lambda row: row["name"]}
    for when in ("before", "after"):
        columns[f"G MAC {when}"] = cell(when, "multiply_adds", "{:.2f}", 1e9)
    for when in ("before", "after"):
        columns[f"CPU ms {when}"] = cell(when, "cpu_ms", "{:.1f}", 1)
    return _rows(columns, [*layers, total])


def _rows(columns: Mapping[str, Callable[[dict[str, Any]], str]], rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for number, title in enumerate(columns):
        table.add_column(title, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(cell(row) for cell in columns.values()))
    return table


def _or_blank(value: float | None, form: str, unit: float = 1) -> str:
    return "" if value is None else form.format(value / unit)


def _parts(title: str, values: Mapping[str, str]) -> str:
    parts = ", ".join(f"{name} {value}" for name, value in values.items() if name != "total")
    return f"{title}: {values['total']} ({parts})"


def _times(size: list[int]) -> str:
    return f"{size[0]}×{size[1]}"


def _ms(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"
