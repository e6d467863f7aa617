"""The command `evaluate`. Heavy imports wait until it runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Literal

from upernet.config import UserError
from upernet.data.config import DataConfig
from upernet.files import write_whole


def evaluate(
    data: DataConfig,
    model: str | dict = "upp-mini",
    out: Path | None = None,
    sources: list[str] | None = None,
    split: str | None = None,
    short_side: int | None = None,
    per_class: bool = False,
    trust: list[str] = [],  # noqa: B006 (never changed; the command line shows it)
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> int:
    """Measure a model on the validation split of each source, in the source's own label space.

    Args:
        data: Sources and what their labels mean; a training YAML will do, its other blocks are not read.
        model: A name (see upernet models), a model folder, a checkpoint of other software, or an address.
        out: File for the report, JSON.
        sources: Only these of the sources.
        split: This split instead of each source's own `val`.
        short_side: Show images at this shorter side instead of the model's own, in pixels.
        per_class: Print every class too.
        trust: Modules of your own from which the model may take its tasks.
        device: Where to run.
    """
    from dataclasses import replace

    from rich.console import Console
    from rich.progress import Progress

    from upernet import __version__
    from upernet.checkpoint import load_model
    from upernet.config import to_plain
    from upernet.data.mixture import bind_sources
    from upernet.engine.evaluator import evaluate_source
    from upernet.engine.logs import PROTOCOL, per_class_table, results_table
    from upernet.parser import find_device

    if not isinstance(model, str):
        raise UserError(
            "model: the YAML describes a network; name the trained one, for example --model runs/mine/model"
        )
    unknown = [name for name in sources or [] if name not in data.sources]
    if unknown:
        raise UserError(f"sources: {unknown[0]!r} is not one of {', '.join(data.sources)}")
    chosen = {
        name: replace(source, val=split or source.val)
        for name, source in data.sources.items()
        if (not sources or name in sources) and (split or source.val)
    }
    if not chosen:
        raise UserError("data.sources: nothing to evaluate; give a --config with sources")
    network, tasks, inference = load_model(model, trust)
    if short_side is not None:
        inference = replace(inference, short_side=short_side)
    network = network.to(find_device(device))
    bound = bind_sources(replace(data, sources=chosen), tasks)
    screen, status = Console(), Console(stderr=True)
    images = sum(len(source.items(str(source.config.val))) for source in bound.values())
    results = []
    with Progress(console=status, disable=not status.is_terminal, transient=True) as bar:
        task = bar.add_task("evaluating", total=images)
        for source in bound.values():
            results += evaluate_source(network, tasks, source, inference, advance=lambda: bar.advance(task))
    screen.print(results_table(results, f"{model}, shorter side {inference.short_side or 'as is'}"))
    if per_class:
        for result in results:
            screen.print(per_class_table(result))
    if out is not None:
        report = {
            "model": model,
            "version": __version__,
            "protocol": PROTOCOL,
            "inference": to_plain(inference),
            "results": [
                {"source": r.source, "split": bound[r.source].config.val, "task": r.task, "images": r.images}
                | {"values": _finite(r.values), "per_class": {name: _finite(v) for name, v in r.per_class.items()}}
                for r in results
            ],
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, lambda file: file.write(json.dumps(report, indent=1, allow_nan=False).encode()))
    return 0


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    """JSON knows no NaN: a class that never occurs has no figure."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
