"""The command `discover`. Heavy imports wait until it runs, and no type of torch is named: see `predict.py`."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Literal

from upernet.contract import Task
from upernet.data.config import DataConfig
from upernet.engine.knowledge.thresholds import Thresholds
from upernet.errors import UserError, check
from upernet.files import check_folder, make_folder
from upernet.screen import print_line, progress

MOST_WORKERS = 8
"""Most processes that are started unless a number is given: each holds the model in memory."""

CATCH_ALL = "other"
"""Name of a class that stands for whatever is none of the others; it may fill the tables, so a line tells of it."""


def discover(
    inputs: list[str] = [],  # noqa: B006 (never changed; the command line shows it)
    model: list[str] | str | dict = "upp-mini",
    out: Path = Path("knowledge"),
    data: DataConfig | None = None,
    tasks: dict[str, Task] | None = None,
    sources: list[str] | None = None,
    split: str | None = None,
    ignore: list[str] = [],  # noqa: B006 (never changed; the command line shows it)
    min_area: float = Thresholds.min_area,
    min_part_area: float = Thresholds.min_part_area,
    min_share: float = Thresholds.min_share,
    min_pixel_share: float = Thresholds.min_pixel_share,
    top: int = Thresholds.top,
    min_images: int = Thresholds.min_images,
    replicates: int = 500,
    examples: int = 6,
    page_mb: float = 30.0,
    workers: int = 0,
    threads: int = 1,
    chunk: int = 32,
    keep: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    engine: Literal["auto", "torch", "openvino", "onnxruntime"] = "auto",
    reference: bool = False,
    precision: Literal["float32", "tf32", "bf16", "fp16"] = "float32",
    trust: list[str] = [],  # noqa: B006 (never changed; the command line shows it)
    mirror: str | None = None,
) -> int:
    """Find out how scenes, objects, parts, materials and textures go together in many images, and write tables of it.

    With --config, annotations are used where an image has them, and the model's answers where it has none. Targets with
    `evaluate: false` are for training alone and are not used. A call that was interrupted goes on where it stopped. If
    torchrun or srun starts several processes, they share the images.

    Args:
        inputs: Image files, folders (searched to any depth) and globs such as 'photos/**/*.jpg'. They have no
            annotations.
        model: A name (see upernet models), a model folder, a checkpoint of other software, the authors' two files as
            [encoder.pth,decoder.pth], an address, or an .onnx of upernet export; none to use annotations alone.
        out: Folder for the results.
        data: Sources of annotated images and the meaning of their labels, as in a training file; settings for training
            are not used.
        tasks: Tasks of the training file. They are used with --model none only; a model has its own.
        sources: Names of the sources to use. If not given, all are.
        split: Split to use, instead of each source's own `val`.
        ignore: Classes that say nothing, such as other: what has one of them counts as unknown.
        min_area: Smallest share of an image's pixels with which an object appears in it.
        min_part_area: Smallest share of an image's pixels with which a part appears in it; 0 for one pixel.
        min_share: Smallest share of a scene's images with which an object is shown in the tables, and of an object's
            images with which a part is.
        min_pixel_share: Smallest share of pixels with which a material or texture is shown in the tables, before what
            is left is brought to 100 %.
        top: Most materials or textures in a row of the tables.
        min_images: Smallest number of images with a scene, object, part or material that has a row in the tables.
        replicates: Number of replicates of the bootstrap that gives the intervals of shares of pixels.
        examples: Number of example images of each concept.
        page_mb: Largest size of the page with the examples, in MB.
        workers: Number of processes that work at the same time on CPUs; 0 takes one per processor core, at most 8. A
            GPU is used by the process itself.
        threads: Number of CPU threads of each process. Another number may change the last bits of predictions.
        chunk: Number of images after which finished work is stored.
        keep: Keep the stored work, so that the same images can be counted again with other thresholds.
        device: Where to compute; auto takes a GPU if there is one.
        engine: Software that runs the network. auto takes OpenVINO on a CPU where it is installed and its graph of the
            model is on disk, or there are enough images to pay for preparing it; otherwise torch. A call that goes on
            keeps the engine with which it was begun.
        reference: Run the plain network in PyTorch, without the exact rewriting that makes it faster.
        precision: Arithmetic of PyTorch: float32, tf32 on a GPU, or bf16 or fp16 mixed with float32. Engines compute in
            float32.
        trust: Your own modules, from which the model may import its tasks.
        mirror: Address to download from instead of the published host. If not given, the variable UPERNET_MIRROR
            is used, if set.

    Returns:
        Exit status: 0, or 1 if an image could not be read; all others are counted nevertheless.

    Raises:
        UserError: If an option is not valid, or the model, a source or the folder cannot be used.
        WorkError: If a process is killed.
    """
    thresholds = Thresholds(
        min_area=min_area,
        min_part_area=min_part_area,
        min_share=min_share,
        min_pixel_share=min_pixel_share,
        top=top,
        min_images=min_images,
    )
    for option, value, least, example in (
        *(("--replicates", replicates, 1, 500), ("--examples", examples, 0, 6), ("--chunk", chunk, 1, 32)),
        *(("--workers", workers, 0, 4), ("--threads", threads, 1, 1), ("--page_mb", page_mb, 1, 30)),
    ):
        check(option, value, least, example=example)
    if isinstance(model, dict) or not model:
        raise UserError(
            "model: the file describes a network without weights; name a model, for example --model runs/mine/model, "
            "or --model none to use annotations alone"
        )
    files = (model,) if isinstance(model, str) else tuple(model)
    files = () if files == ("none",) else files
    if data is None and (sources or split):
        option = f"--sources {' '.join(sources)}" if sources else f"--split {split}"
        raise UserError(f"{option} needs the sources of a training file; add --config mine.yaml, or leave it out")
    if not inputs and (data is None or not data.sources):
        raise UserError("discover: needs images: files, folders or globs, or --config mine.yaml with sources")
    if inputs and not files:
        raise UserError(f"--model none: {inputs[0]} has no annotations; name a model, or leave the images out")
    if not files and not tasks:
        raise UserError("--model none needs the tasks of a training file; add tasks to the file of --config")
    out = Path(out)
    check_folder("--out", out, "knowledge")
    for package in ("plotly", "pyarrow", "scipy"):
        import_module(package)  # before any work
    from rich.console import Console

    from upernet.data.inputs import find_images
    from upernet.data.mixture import bind_sources
    from upernet.data.pool import processor_cores
    from upernet.engine.knowledge.discovery import (
        Survey,
        as_predicted,
        begin,
        clear,
        count,
        engine_before,
        look,
        name_photos,
    )
    from upernet.engine.knowledge.looking import Model
    from upernet.engine.knowledge.tables import screen_tables, summary
    from upernet.engine.knowledge.vocabulary import Vocabulary
    from upernet.engine.processes import join, wait_for_others
    from upernet.runtimes.choice import engine_of, hash_network, on_engine
    from upernet.store.loading import open_model

    chosen = None if data is None or not data.sources else _annotated(data.measured(sources, split))
    with join(device) as (rank, world, where):
        if files and where.type == "cuda":
            if workers > 1:
                raise UserError(f"--workers {workers}: a GPU is used by one process; leave the option out")
            workers = 1
        if files:
            network, tasks, inference = open_model(files, trust, mirror)
        images, errors = find_images(inputs)
        for error in errors if rank == 0 else ():
            print_line(str(error), sys.stderr)
        bound = {} if chosen is None else bind_sources(chosen, tasks or {})
        photos = name_photos(list(images), bound)
        vocabulary = Vocabulary.of(tasks or {}, ignore)
        if not photos:
            return 1
        make_folder(out, "--out")
        found, weights = None, ""
        if files:
            weights = hash_network(network)
            if engine == "auto" and not reference:
                engine = engine_before(out, weights) or engine
            ready = on_engine(network, engine, where, images=len(photos), reference=reference, precision=precision)
            del network  # an engine has its own copy
            found = Model(ready, as_predicted(inference), where)
        survey = Survey(
            photos=photos,
            tasks=tasks or {},
            vocabulary=vocabulary,
            sources=bound,
            model=files,
            weights=weights,
            engine="torch" if found is None else engine_of(found.network),
            reference=reference,
            precision=precision,
            trust=tuple(trust),
            mirror=mirror,
            out=out,
            chunk=chunk,
            examples=examples,
            threads=threads,
        )
        begin(survey, found)
        own = sum(len(c.photos) for c in survey.chunks[rank::world])
        with progress("discovering", own, shown=rank == 0) as advance:
            look(
                survey,
                found,
                workers=workers or _workers(processor_cores()),
                rank=rank,
                world=world,
                advance=advance,
                tell=lambda line: print_line(line, sys.stderr),
            )
        if world > 1:
            wait_for_others()
    if rank > 0:
        return 0
    knowledge = count(survey, thresholds, replicates, page_mb)
    screen = Console()
    for table in screen_tables(knowledge, thresholds):
        screen.print(table)
    print_line(f"{summary(knowledge)} -> {out}", sys.stdout)
    if any(concept.name == CATCH_ALL for concept in knowledge.concepts):
        print_line(f"class {CATCH_ALL!r} counts as an answer; --ignore {CATCH_ALL} makes it unknown", sys.stdout)
    if not keep:
        clear(survey)
    return int(bool(errors) or knowledge.skipped > 0)


def _workers(cores: int) -> int:
    """Processes for this one to start, if torchrun has started others on the same cores."""
    return max(1, min(MOST_WORKERS, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def _annotated(data: DataConfig) -> DataConfig:
    """The same sources, without targets that are for training alone.

    None of the others is measured here: some tasks cannot be, and metrics need further packages.
    """
    sources = {}
    for name, source in data.sources.items():
        targets = {key: replace(target, evaluate=False) for key, target in source.targets.items() if target.evaluate}
        sources[name] = replace(source, targets=targets)
    return replace(data, sources=sources)
