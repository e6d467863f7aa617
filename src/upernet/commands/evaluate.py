"""The command `evaluate`. Heavy imports wait until it runs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from upernet.config import PAPER_INFERENCE, InferenceConfig
from upernet.data.config import DataConfig
from upernet.errors import UserError
from upernet.files import check_folder, check_writable, write_whole
from upernet.plain import to_plain
from upernet.screen import print_line, progress

TTA_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""Scales of the published multi-scale figures (SPEC D2)."""


def evaluate(
    data: DataConfig,
    model: list[str] | str | dict = "upp-mini",
    out: Path | None = None,
    sources: list[str] | None = None,
    split: str | None = None,
    short_side: list[int] | None = None,
    max_side: int | None = None,
    window: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
    whole: bool = False,
    tta: bool = False,
    scales: list[float] | None = None,
    protocol: Literal["published", "recent"] | None = None,
    paper: bool = False,
    save_predictions: Path | None = None,
    further: bool = False,
    per_class: bool = False,
    trust: list[str] = [],  # noqa: B006 (never changed; the command line shows it)
    device: Literal["auto", "cpu", "cuda"] = "auto",
    engine: Literal["auto", "torch", "openvino", "onnxruntime"] = "auto",
    reference: bool = False,
    precision: Literal["float32", "tf32", "bf16", "fp16"] = "float32",
) -> int:
    """Measure a model on the validation split of each source, in the source's own labels.

    If torchrun or srun starts several processes, they share the images and make one report.

    Args:
        data: Sources and the meaning of their labels, as in a training file; settings for training are not used.
        model: A name (see upernet models), a model folder, a checkpoint of other software, the authors' two files, an
            address, or an .onnx of upernet export.
        out: File for the report, in JSON. If not given, none is written.
        sources: Names of the sources to evaluate. If not given, all are.
        split: Split to evaluate, instead of each source's own `val`.
        short_side: Shorter side of the images as the network sees them, in pixels, instead of the model's own. Several,
            such as 300 375 450 525 600, are averaged.
        max_side: Largest longer side of the images, in pixels, instead of the model's own. Scales multiply it, several
            shorter sides do not.
        window: Height and width of sliding windows in pixels, such as [769,769], instead of the model's own.
        stride: Distance from one window to the next, down and across, in pixels, such as [513,513].
        whole: Show images whole, even if the model uses sliding windows.
        tta: Average over scales 0.5 to 1.75, each plain and flipped (published as ms+flip).
        scales: Scales to average over, such as [0.5,1,2]; with tta, each is flipped too.
        protocol: The size that scales multiply. With published, which is the default, it is the box that images are
            fitted into; with recent, each image's own size, as in recent versions of MMSegmentation.
        paper: Measure as the paper does: its metrics (data.protocol) and sizes (shorter side 450, longer side at most
            1200, multiples of 32, whole images), and its table. Other options change this.
        save_predictions: Folder for predicted label maps, as PNG. Those of Cityscapes have the ids that its server
            expects, those of ADE20K count from 1, others have the label ids of their source.
        further: Also print Dice, F-score, precision, recall and the SceneParse150 score.
        per_class: Also print the figures of every class.
        trust: Your own modules, from which the model may import its tasks.
        device: Where to compute; auto takes a GPU if there is one.
        engine: Software that runs the network. auto takes OpenVINO on a CPU where it is installed and its graph of the
            model is on disk, or there are enough images to pay for preparing it; otherwise torch.
        reference: Run the plain network in PyTorch, without the exact rewriting that makes it faster.
        precision: Arithmetic of PyTorch: float32, tf32 on a GPU, or bf16 or fp16 mixed with float32. Engines compute in
            float32.

    Returns:
        Exit status: 0.

    Raises:
        UserError: If an option is not valid, or the model or a source cannot be used.
    """
    from dataclasses import replace

    from rich.console import Console

    from upernet.data.mixture import bind_sources
    from upernet.engine.evaluator import evaluate_source
    from upernet.engine.logs import per_class_table, results_table, size_rule
    from upernet.engine.paper_table import PaperTable
    from upernet.engine.processes import join
    from upernet.engine.skipped import SkippedImages
    from upernet.engine.submission import writer
    from upernet.runtimes.choice import on_engine
    from upernet.store.loading import open_model

    if isinstance(model, dict) or not model:
        raise UserError(
            "model: the file describes a network without weights; name a model, for example --model runs/mine/model"
        )
    files = [model] if isinstance(model, str) else model
    name = " + ".join(files)
    if whole and (window or stride):
        raise UserError(f"--whole contradicts windows of {list(window or stride or ())}; leave one of them out")
    if protocol and not (tta or scales):
        raise UserError(f"--protocol {protocol} needs scales; give --tta or --scales too, such as --scales [0.5,1,2]")
    if out is not None:
        check_writable("--out", out)
    if save_predictions is not None:
        check_folder("--save_predictions", save_predictions, "predictions")
    if short_side and len(short_side) > 1 and (tta or scales):
        raise UserError(f"--short_side {short_side} contradicts --{'tta' if tta else 'scales'}; leave one of them out")
    if paper:
        data = replace(data, protocol="paper")
    data = data.measured(sources, split)
    results = []
    skipped = SkippedImages(lambda line: print_line(line, sys.stderr))
    with join(device) as (rank, world, where):
        network, tasks, inference = open_model(files if len(files) > 1 else files[0], trust)
        inference = PAPER_INFERENCE if paper else inference
        options = {"max_side": max_side, "window": window, "stride": stride}
        changes: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
        if short_side:
            several = len(short_side) > 1
            changes |= {"short_sides": tuple(short_side)} if several else {"short_side": short_side[0]}
            changes |= {"scales": (1.0,), "scale_of": "box"} if several else {"short_sides": ()}
        if whole:
            changes |= {"window": None, "stride": None}
        if tta or scales is not None:
            changes["scales"] = TTA_SCALES if scales is None else tuple(scales)
            changes["flip"] = tta
            changes["scale_of"] = "image" if protocol == "recent" else "box"
            changes["short_sides"] = ()
        inference = replace(inference, **changes)
        bound = bind_sources(data, tasks)
        images = sum(len(source.items(str(source.config.val))[rank::world]) for source in bound.values())
        ready = on_engine(network, engine, where, images=images, reference=reference, precision=precision)
        del network  # an engine has its own copy
        with progress("evaluating", images, shown=rank == 0) as advance:
            for source in bound.values():
                results += evaluate_source(
                    ready,
                    tasks,
                    source,
                    inference,
                    device=where,
                    advance=advance,
                    save=None if save_predictions is None else writer(save_predictions, source),
                    skip=lambda one: skipped.add([one]),
                    rank=rank,
                    world=world,
                )
    if rank > 0:
        return 0
    screen = Console()
    screen.print(results_table(results, f"{name}; {size_rule(inference)}", inference, further))
    table = PaperTable.of(name, results, tasks) if data.protocol == "paper" else None
    if table is not None:
        screen.print(table.screen())
    if per_class:
        for result in results:
            screen.print(per_class_table(result))
    if out is not None:
        content = _report(name, inference, precision, data.protocol, bound, results)
        if table is not None:
            content["paper"] = table.plain()
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, lambda file: file.write(json.dumps(content, indent=1, allow_nan=False).encode()))
    return 0


def _report(
    model: str,
    inference: InferenceConfig,
    precision: str,
    metrics: str,
    sources: Mapping[str, Any],
    results: Sequence[Any],
) -> dict[str, Any]:
    """The report as plain values: the results, and everything needed to repeat the measurement."""
    from datetime import UTC, datetime

    from upernet import __version__
    from upernet.engine.logs import ignore_rule, protocol, size_rule

    def describe(r: Any) -> dict[str, Any]:
        config = sources[r.source].config
        data = {"class_path": config.dataset.class_path(), "root": config.dataset.root}
        head = {"source": r.source, "data": data, "split": config.val, "task": r.task, "images": r.images}
        head["skipped"] = r.skipped
        per_class = {name: _finite(v) for name, v in r.per_class.items()}
        return head | {"values": _finite(r.values), "further": _finite(r.further), "per_class": per_class}

    return {
        "model": model,
        "version": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "metrics": metrics,
        "protocol": protocol(inference),
        "sizes": size_rule(inference),
        "ignored": ignore_rule(results),
        "inference": to_plain(inference),
        "precision": precision,
        "results": [describe(r) for r in results],
    }


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    """Replace NaN, which JSON does not know, with None: a class that never occurs has no figure."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
