"""From images to visual knowledge: chunks of images are looked at, by one process or many, and counted in order.

A chunk's file depends on its images alone, and one process counts the files of all chunks in the order of the images.
So the result is the same to the last bit however many processes share the work and however often it was interrupted.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import torch

from upernet.config import InferenceConfig
from upernet.contract import Task
from upernet.data.mixture import LabelledSource
from upernet.data.pool import in_processes
from upernet.device import Precision
from upernet.engine.knowledge.chunks import chunk_file, claim, read_chunk, read_settings
from upernet.engine.knowledge.examples import THUMBNAIL, Best, ExampleFiles
from upernet.engine.knowledge.figure import KIND, write_figure
from upernet.engine.knowledge.findings import Knowledge
from upernet.engine.knowledge.looking import Chunk, Looker, Model, Photo
from upernet.engine.knowledge.page import write_page
from upernet.engine.knowledge.tables import (
    CONCEPTS,
    IMAGES,
    RELATION_COLUMNS,
    Row,
    concept_rows,
    image_rows,
    relation_rows,
    write_json,
    write_markdown,
    write_table,
)
from upernet.engine.knowledge.tally import Tally
from upernet.engine.knowledge.thresholds import Thresholds
from upernet.engine.knowledge.vocabulary import Vocabulary, as_text
from upernet.errors import UserError
from upernet.files import remove_unfinished
from upernet.plain import to_plain
from upernet.runtimes.choice import on_engine
from upernet.runtimes.engine import EngineName
from upernet.screen import printable
from upernet.store.loading import open_model

UNFINISHED = ".chunks"
"""Folder of unfinished work in the folder of results."""
KNOWLEDGE, TABLES, PAGE, FIGURE = "knowledge.json", "tables.md", "index.html", "scene-object.html"
"""Names of results, beside those of `write_table`."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What to look at and with what, as every process of the survey gets it.

    Attributes:
        photos: The images, in a fixed order.
        tasks: The tasks by name; the model's own if there is a model.
        vocabulary: Those that are asked, and their classes.
        sources: The sources of annotated images by name.
        model: The model's name or path, or the paths of its files; empty to use annotations alone.
        weights: Hash of the model's weights.
        engine: The engine that runs it.
        reference: Whether the network is left as it is.
        precision: Its arithmetic.
        trust: Modules from which the model may import its tasks.
        mirror: Server to download it from.
        out: Folder of the results.
        chunk: Images per chunk.
        examples: Example images per concept.
        threads: Threads with which each process computes.
    """

    photos: tuple[Photo, ...]
    tasks: Mapping[str, Task]
    vocabulary: Vocabulary
    sources: Mapping[str, LabelledSource]
    model: tuple[str, ...]
    weights: str
    engine: EngineName
    reference: bool
    precision: Precision
    trust: tuple[str, ...]
    mirror: str | None
    out: Path
    chunk: int
    examples: int
    threads: int

    @property
    def model_name(self) -> str:
        """The model's name in all results; empty if there is none."""
        return " + ".join(self.model)

    @property
    def folder(self) -> Path:
        """Folder of unfinished work."""
        return self.out / UNFINISHED

    @property
    def chunks(self) -> list[Chunk]:
        """The images, cut into chunks."""
        starts = enumerate(range(0, len(self.photos), self.chunk))
        return [Chunk(number, first, self.photos[first : first + self.chunk]) for number, first in starts]


def name_photos(files: Sequence[Path], sources: Mapping[str, LabelledSource]) -> tuple[Photo, ...]:
    """The images in their order: files first, then those of each source's split `val`.

    A file is called by its path, an image of a source `source/id`. What a source lists twice counts once. Images that a
    source leaves out because of a fault follow its others, so that they are told and counted as skipped.

    Raises:
        UserError: If a source cannot be listed, or two images have one name.
    """
    photos = [Photo(as_text(str(path)), path) for path in files]
    for name, source in sources.items():
        usable, faulty = source.usable(str(source.config.val))
        items = {item.id: item for item in usable}
        photos += [Photo(as_text(f"{name}/{item.id}"), item, name) for item in items.values()]
        # One that is left out may have the id of one that is not.
        photos += [Photo(as_text(f"{name}/{one.id} (left out)"), one, name) for one in faulty]
    seen: set[str] = set()
    for photo in photos:
        if photo.name in seen:
            raise UserError(f"{printable(photo.name)}: two images have this name; give another name to the source")
        seen.add(photo.name)
    return tuple(photos)


def begin(survey: Survey, model: Model | None) -> None:
    """Make the folder of unfinished work, or take up what an earlier call with the same settings has left there.

    Args:
        survey: What to look at.
        model: The model; None for annotations alone.

    Raises:
        UserError: If the folder holds the work of a call with other settings, or files that are no results.
    """
    if not survey.folder.exists() and not (survey.out / KNOWLEDGE).exists():
        tables = [f"{table}.{kind}" for table in ("images", "concepts", "relations") for kind in ("csv", "parquet")]
        if foreign := [name for name in (*tables, TABLES, PAGE, FIGURE) if (survey.out / name).exists()]:
            raise UserError(
                f"--out {survey.out}: holds a file {foreign[0]} that another program wrote (there is no {KNOWLEDGE}); "
                "give another folder, such as knowledge"
            )
    sources = {name: to_plain(source.config) for name, source in survey.sources.items()}
    settings = {
        "version": version("upernet"),
        "model": "none" if model is None else f"{survey.model_name}, sha256 {survey.weights}",
        "tasks": _hash(to_plain(dict(survey.tasks))),
        "ignore": ", ".join(sorted(survey.vocabulary.ignored)),
        "inference": "none" if model is None else _hash(to_plain(model.inference)),
        "device": "none" if model is None else model.device.type,
        "engine": "reference" if survey.reference else survey.engine,
        "precision": survey.precision,
        "threads": str(survey.threads),
        "sources": _hash(sources),
        "images": f"{len(survey.photos)}, sha256 {_hash([photo.name for photo in survey.photos])}",
        "chunk": str(survey.chunk),
        "examples": f"{survey.examples} of {THUMBNAIL} pixels",
    }
    claim(survey.folder, settings)


def engine_before(out: Path, weights: str) -> EngineName | None:
    """The engine that has run a model in the unfinished work of an earlier call; None if there is no such work.

    Engines agree up to rounding only, and `auto` may choose another one later, when the model's graph is on disk. So
    the work goes on with the engine it was begun with.

    Args:
        out: Folder of the results.
        weights: Hash of the model's weights.
    """
    before = read_settings(out / UNFINISHED)
    if not before.get("model", "").endswith(weights):
        return None
    return next((name for name in get_args(EngineName) if name == before.get("engine")), None)


def _hash(plain: object) -> str:
    return sha256(json.dumps(plain, default=str).encode()).hexdigest()


# --- looking ----------------------------------------------------------------------------------------------------------


def look(
    survey: Survey,
    model: Model | None,
    *,
    workers: int,
    rank: int,
    world: int,
    advance: Callable[[], None],
    tell: Callable[[str], None],
) -> None:
    """Look at all images that have not been looked at, those of every `world`-th chunk.

    Args:
        survey: What to look at.
        model: The model; None for annotations alone. Several workers load it themselves.
        workers: Most processes of this machine that share the chunks; 1 is this process.
        rank: Number of this process.
        world: Number of processes that look together, each with its own workers.
        advance: Called after each image.
        tell: Called with a line for each image that cannot be read.

    Raises:
        WorkError: If a worker is killed.
    """
    left = []
    for chunk in survey.chunks[rank::world]:
        if not chunk_file(survey.folder, chunk.number).exists():
            left.append(chunk)
            continue
        for _ in chunk.photos:
            advance()
    workers = min(workers, max(1, len(left)))
    with _threads(survey.threads):
        start = partial(_start, replace(survey, photos=()), model if workers == 1 else None, workers > 1)
        with closing(in_processes(left, _look, workers, command="discover", start=start)) as outcomes:
            for count, faults in outcomes:
                for fault in faults:
                    tell(fault)
                for _ in range(count):
                    advance()


@contextmanager
def _threads(threads: int) -> Iterator[None]:
    """Compute with so many threads while the block runs: the last bits of an answer may depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_looker: Looker | None = None
"""What this process looks with."""


def _start(survey: Survey, model: Model | None, load: bool) -> None:
    """Make the looker of this process, which loads the model itself if it is a worker."""
    global _looker
    tasks = survey.tasks
    if load:
        torch.set_num_threads(survey.threads)
        if survey.model:
            network, tasks, inference = open_model(survey.model, survey.trust, survey.mirror)
            cpu = torch.device("cpu")
            ready = on_engine(network, survey.engine, cpu, reference=survey.reference, precision=survey.precision)
            model = Model(ready, as_predicted(inference), cpu)
    _looker = Looker(tasks, survey.vocabulary, survey.sources, model, survey.folder, survey.examples)


def _look(chunk: Chunk) -> tuple[int, list[str]]:
    assert _looker is not None
    return len(chunk.photos), _looker.look(chunk)


def as_predicted(inference: InferenceConfig) -> InferenceConfig:
    """How images are shown to the network so that the answers are those of `upernet predict`."""
    return replace(inference, resize_twice=False)


# --- counting ---------------------------------------------------------------------------------------------------------


def count(survey: Survey, thresholds: Thresholds, replicates: int, page_mb: float) -> Knowledge:
    """Count what the files of all chunks tell, and write all results.

    Args:
        survey: What was looked at.
        thresholds: What counts, and what the tables show.
        replicates: Replicates of the bootstrap.
        page_mb: Largest size of the page in MB.

    Raises:
        WorkError: If the file of a chunk is missing or damaged.
    """
    vocabulary = survey.vocabulary
    tally, best = Tally(vocabulary, thresholds, replicates), Best(survey.examples, vocabulary)

    def rows() -> Iterator[Row]:
        """Rows of the table of images; everything is counted on the way, since the files are read but once."""
        for chunk in survey.chunks:
            names = [photo.name for photo in chunk.photos]
            observations = read_chunk(chunk_file(survey.folder, chunk.number))
            tally.add(names, observations)
            for offset, (name, seen) in enumerate(zip(names, observations, strict=True)):
                best.offer(chunk.first + offset, name, seen)
                yield from image_rows(name, seen, vocabulary)

    remove_unfinished(survey.out)
    write_table(survey.out, "images", IMAGES, rows())
    knowledge = tally.knowledge(survey.model_name, {"examples": survey.examples})
    write_table(survey.out, "concepts", CONCEPTS, concept_rows(knowledge))
    write_table(survey.out, "relations", RELATION_COLUMNS, relation_rows(knowledge))
    write_json(survey.out / KNOWLEDGE, knowledge)
    write_markdown(survey.out / TABLES, knowledge, thresholds)
    examples = ExampleFiles(knowledge.concepts, tally.class_ids(knowledge.concepts), best, survey.folder)
    write_page(survey.out / PAGE, knowledge, examples, page_mb)
    if any(relation.kind == KIND for relation in knowledge.relations):
        write_figure(survey.out / FIGURE, knowledge, thresholds.min_share)
    else:
        (survey.out / FIGURE).unlink(missing_ok=True)  # of an earlier call
    return knowledge


def clear(survey: Survey) -> None:
    """Delete the folder of unfinished work.

    It loses its name at once: were this process killed while it deletes files, what is left would be taken for the work
    of the next call, whatever its settings.
    """
    finished = survey.folder.with_name(f"{UNFINISHED}-finished")
    shutil.rmtree(finished, ignore_errors=True)
    survey.folder.rename(finished)
    shutil.rmtree(finished, ignore_errors=True)
