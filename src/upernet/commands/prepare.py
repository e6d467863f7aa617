"""The command `prepare`: label maps made from what a data set publishes. Heavy imports wait until it runs."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from upernet.data.decoding import MAX_PIXELS
from upernet.data.images import image_size
from upernet.data.masks import read_mask
from upernet.data.search import read_lines
from upernet.data.sets.cityscapes import DRAWN, IMAGE, LABEL_IDS, LABELS, POLYGONS, TRAIN_IDS, UNLABELLED, Cityscapes
from upernet.data.sets.voc import PALETTE, VOC
from upernet.errors import UserError, WorkError
from upernet.files import write_whole

NAMES = ("cityscapes", "voc_aug")
"""What can be prepared."""
SBD_MASKS = 11355
"""Masks of SBD as published."""

TOLD = 50
"""Faults that are told one by one; a set that is unpacked by half has thousands of the same."""

SBD_PLACES = ("VOCaug/dataset", "benchmark_RELEASE/dataset", "SBD/dataset", "sbd/dataset", "sbd", "SBD")
SBD_ORIGIN = (
    "benchmark.tgz (1.4 GB) of SBD from http://home.bharathh.info/pubs/codes/SBD/download.html "
    "(its folder benchmark_RELEASE/dataset)"
)


def prepare(inputs: list[str], sbd: str | None = None, workers: int = 0) -> int:
    """Make the label maps that training needs from what Cityscapes or SBD publishes.

    What is there already and sound is kept, so the command can be stopped and run again.

    Args:
        inputs: What to prepare (cityscapes or voc_aug), then the folder of the data set.
        sbd: For voc_aug, the folder dataset of SBD, with cls/, train.txt and val.txt; if not given, it is looked for
            in and beside the folder of VOC.
        workers: Processes that work at a time; 0 takes one per processor core.

    Returns:
        Exit status: 0, or 1 if a file could not be prepared (the others are).

    Raises:
        UserError: If the name or the folder is none that can be prepared.
    """
    if inputs[0] not in NAMES:
        raise UserError(f"prepare: nothing named {inputs[0]!r} to prepare; valid: {', '.join(NAMES)}")
    if len(inputs) != 2:
        raise UserError(f"prepare: give one folder after {inputs[0]}; for example upernet prepare {inputs[0]} data/set")
    if workers < 0:
        raise UserError(f"--workers {workers} is too small; valid: 0 (one per processor core) or more, such as 4")
    name, root = inputs
    workers = workers or (len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()) or 1
    if name == "voc_aug":
        return _prepare_voc_aug(root, sbd, workers)
    if sbd is not None:
        raise UserError(f"--sbd {sbd}: only voc_aug uses SBD")
    return _prepare_cityscapes(root, workers)


@dataclass(frozen=True)
class Job:
    """One label map to make.

    Attributes:
        target: The PNG to write.
        image: The photograph it belongs to, which gives its size; none if it is not there and may be missing.
        source: What it is made from.
        check: A second source, which should say the same.
    """

    target: Path
    image: Path | None
    source: Path
    check: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        job: The job.
        fault: Why it failed, in one line; empty if it did not.
        hopeless: The others will fail as well.
        kept: It was there already, and sound.
        pixels: Compared with the second source.
        differing: Of these, pixels that differ.
    """

    job: Job
    fault: str = ""
    hopeless: bool = False
    kept: bool = False
    pixels: int = 0
    differing: int = 0


Make = Callable[[Path], np.ndarray]
"""Reads a source into a label map (H, W) uint8."""


def _prepare_cityscapes(root: str, workers: int) -> int:
    folder = Cityscapes(root=root).folder
    jobs: dict[str, list[Job]] = {}
    images = {}
    for split in ("train", "val"):
        photos = folder / "leftImg8bit" / split
        images[split] = sum(not p.name.startswith(".") for p in photos.rglob(f"*{IMAGE}"))
        jobs[split] = list(_cityscapes_jobs(photos, folder / "gtFine" / split))
    if not any(jobs.values()):
        raise UserError(
            f"{folder / 'gtFine'}: no *{POLYGONS} or *{LABEL_IDS} in train/<city>/ or val/<city>/; "
            "get gtFine_trainvaltest.zip from https://www.cityscapes-dataset.com"
        )
    outcomes = _work([job for split in jobs.values() for job in split], _make_train_ids, 19, workers)
    for split in jobs:
        of_split = [outcomes[job] for job in jobs[split]]
        made = sum(not o.fault for o in of_split)
        _report(f"{split}: {_count(of_split, 'label maps')}", made, Cityscapes.published[split])
        if images[split] != len(of_split):
            print(f"{split}: {images[split]:,} images in leftImg8bit, but annotations of {len(of_split):,}")
    compared = [o for o in outcomes.values() if o.pixels]
    differing = sum(o.differing for o in compared)
    if differing:
        worst = max(compared, key=lambda o: o.differing / o.pixels)
        print(
            f"polygons as drawn here differ from labelIds in {differing / sum(o.pixels for o in compared):.2g} of all "
            "pixels (at edges a few thousandths are usual), "
            f"in {worst.job.source.name} most: {worst.differing / worst.pixels:.2g}"
        )
    return int(any(o.fault for o in outcomes.values()))


def _cityscapes_jobs(photos: Path, labels: Path) -> Iterator[Job]:
    """A job for each annotation of a split.

    Polygons go first: published trainIds are drawn from them, and differ from labelIds in about 0.2 % of the pixels,
    at edges.
    """
    files = [p for kind in (POLYGONS, LABEL_IDS) for p in labels.rglob(f"*{kind}") if not p.name.startswith(".")]
    for stem in sorted({p.parent / p.name.removesuffix(POLYGONS).removesuffix(LABEL_IDS) for p in files}):
        image = photos / stem.parent.relative_to(labels) / f"{stem.name}{IMAGE}"
        sources = [p for kind in (POLYGONS, LABEL_IDS) if (p := Path(f"{stem}{kind}")).is_file()]
        yield Job(Path(f"{stem}{TRAIN_IDS}"), image if image.is_file() else None, *sources)


def _prepare_voc_aug(root: str, sbd: str | None, workers: int) -> int:
    import scipy.io  # noqa: F401 (if it is missing, that is told before any work)

    voc = VOC(root=root)
    folder = voc.folder
    train, val = voc.names("train"), voc.names("val")
    dataset = _find_sbd(folder, sbd)
    listed = set[str]()
    for split in ("train", "val"):
        listing = dataset / f"{split}.txt"
        if not listing.is_file():
            raise UserError(f"{listing}: no such list; expected one image id a line; get {SBD_ORIGIN}")
        listed |= {name for line in read_lines(listing) for name in line.split()}
    if not listed:
        raise UserError(f"{dataset / 'train.txt'}: empty; expected one image id a line, such as 2008_000002")
    for name in sorted(listed):
        if not re.fullmatch(r"\w+", name):  # it becomes a file's name
            raise UserError(f"{dataset}: train.txt or val.txt holds {name!r}; expected image ids such as 2008_000002")
    aug = sorted(listed - set(train) - set(val))
    trainaug = sorted((set(train) | listed) - set(val))

    masks = folder / "SegmentationClassAug"
    jobs = [
        Job(masks / f"{n}.png", folder / "JPEGImages" / f"{n}.jpg", dataset / "cls" / f"{n}.mat")
        for n in sorted(listed)
    ]
    try:
        masks.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{masks}: {error.strerror}; valid: a folder that can be written") from None
    outcomes = _work(jobs, _make_sbd_mask, 21, workers, palette=PALETTE)
    found = list(outcomes.values())
    _report(f"SegmentationClassAug: {_count(found, 'masks')}", sum(not o.fault for o in found), SBD_MASKS)
    lost = [o.job.target.stem for o in found if o.fault and o.job.target.stem in set(aug)]
    if lost:
        print(
            f"upernet: lists are not written: {len(lost):,} masks that aug.txt would name are missing", file=sys.stderr
        )
        return 1
    for split, names in (("aug", aug), ("trainaug", trainaug)):
        _write_list(folder / "ImageSets" / "Segmentation" / f"{split}.txt", names)
    for split, names in (("train", train), ("val", val), ("aug", aug), ("trainaug", trainaug)):
        _report(f"{split}.txt: {len(names):,} images", len(names), VOC.published[split])
    return int(any(o.fault for o in found))


def _find_sbd(folder: Path, given: str | None) -> Path:
    """The folder of SBD that has `cls`.

    Raises:
        UserError: If there is none.
    """
    if given is not None:
        path = Path(os.path.expanduser(os.path.expandvars(given)))
        for candidate in (path, path / "dataset", path / "benchmark_RELEASE" / "dataset", path.parent):
            if (candidate / "cls").is_dir():
                return candidate
        raise UserError(f"--sbd {given}: no folder cls in it; valid: the folder dataset of SBD; get {SBD_ORIGIN}")
    places = (folder, folder.absolute().parent, folder.absolute().parent.parent)
    candidates = [place / name for place in places for name in SBD_PLACES]
    found = next((c for c in candidates if (c / "cls").is_dir()), None)
    if found is None:
        raise UserError(
            f"{candidates[len(SBD_PLACES)]}: no such folder; give --sbd with the folder that holds cls/, train.txt and "
            f"val.txt; get {SBD_ORIGIN}"
        )
    return found


def _write_list(path: Path, names: Sequence[str]) -> None:
    had = set(path.read_text().split()) if path.is_file() else set(names)
    if had != set(names):
        print(f"{path.name}: replaced; the list that was there had {len(had):,} images")
    write_whole(path, lambda file: file.write("".join(f"{name}\n" for name in names).encode()))


def _count(outcomes: Sequence[Outcome], what: str) -> str:
    kept, failed = sum(o.kept for o in outcomes), sum(bool(o.fault) for o in outcomes)
    details = [f"{number:,} {word}" for number, word in ((kept, "were there"), (failed, "failed")) if number]
    return f"{len(outcomes) - failed:,} {what}" + (f" ({', '.join(details)})" if details else "")


def _report(line: str, count: int, published: int) -> None:
    print(f"{line}, {'as published' if count == published else f'published: {published:,}'}", flush=True)


def _work(
    jobs: Sequence[Job], make: Make, classes: int, workers: int, palette: bytes | None = None
) -> dict[Job, Outcome]:
    """Do all jobs, telling what fails.

    Raises:
        UserError: If a folder cannot be written.
        WorkError: If something happened that no further job would survive.
    """
    for folder in sorted({job.target.parent for job in jobs}):
        if not os.access(folder, os.W_OK):
            raise UserError(f"{folder}: cannot be written; copy the data set to a folder that can")
    outcomes: dict[Job, Outcome] = {}
    faults = 0
    work = partial(_attempt, make=make, classes=classes, palette=palette)
    with closing(_in_processes(jobs, work, workers)) as done, _progress(len(jobs)) as advance:
        for outcome in done:
            outcomes[outcome.job] = outcome
            if outcome.hopeless:
                raise WorkError(f"{outcome.fault}; what is finished stays, run the command again")
            faults += bool(outcome.fault)
            if outcome.fault and faults <= TOLD:
                print(f"upernet: {outcome.fault}", file=sys.stderr, flush=True)
            advance()
    if faults > TOLD:
        print(f"upernet: and {faults - TOLD:,} more failed", file=sys.stderr)
    return outcomes


def _in_processes(jobs: Sequence[Job], work: Callable[[Job], Outcome], workers: int) -> Generator[Outcome, None, None]:
    """Outcomes as they come."""
    if workers == 1 or len(jobs) < 2:
        yield from map(work, jobs)
        return
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    # Ctrl-C reaches every process of a terminal: those at work finish their file, and the one in charge stops them.
    pool = ProcessPoolExecutor(min(workers, len(jobs)), get_context("spawn"), _ignore_interrupts)
    try:
        with _interrupts_wait():
            futures = [pool.submit(work, job) for job in jobs]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        raise WorkError(
            "prepare: a process was ended from outside, perhaps for want of memory; try --workers 1"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Within, Ctrl-C is kept for later; processes that are started here never hear it, not even while they start."""
    import signal

    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ignore_interrupts() -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _progress(count: int) -> Iterator[Callable[[], object]]:
    """A bar with the time left, if somebody is watching; gives what moves it."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("preparing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as bar:
        task = bar.add_task("preparing", total=count)
        yield lambda: bar.advance(task)


def _attempt(job: Job, make: Make, classes: int, palette: bytes | None) -> Outcome:
    """Do one job; whatever is wrong with its files becomes a line."""
    try:
        return _finish(job, make, classes, palette)
    except UserError as error:
        return Outcome(job, str(error))
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
        return Outcome(job, f"{job.target}: {error.strerror or error}", hopeless=full)
    except Exception as error:  # broken files reach every corner of a reader: no list of types is complete
        return Outcome(job, f"{job.source}: cannot be read ({' '.join(str(error).split()) or type(error).__name__})")


def _finish(job: Job, make: Make, classes: int, palette: bytes | None) -> Outcome:
    size = image_size(job.image) if job.image else None
    if _is_sound(job.target, size, classes):
        return Outcome(job, kept=True)
    labels = make(job.source)
    if job.image and size and labels.shape != size[::-1]:
        raise UserError(
            f"{job.source}: {labels.shape[1]}×{labels.shape[0]} pixels for an image of {size[0]}×{size[1]} "
            f"({job.image.name})"
        )
    wrong = labels[(labels >= classes) & (labels != UNLABELLED)]
    if wrong.size:
        raise UserError(f"{job.source}: value {wrong[0]} is no label; valid: 0 to {classes - 1}")
    picture = Image.fromarray(labels)
    if palette is not None:
        picture.putpalette(palette)
    write_whole(job.target, lambda file: picture.save(file, "PNG"))
    pixels = differing = 0
    if job.check is not None:
        other = _from_label_ids(job.check)
        if other.shape == labels.shape:
            pixels, differing = labels.size, int((other != labels).sum())
    return Outcome(job, pixels=pixels, differing=differing)


def _is_sound(path: Path, size: tuple[int, int] | None, classes: int) -> bool:
    """Whether a label map is there, complete, of the size (width, height) of its image and of known values."""
    try:
        labels = read_mask(path)
    except UserError:
        return False
    known = (labels >= 0) & ((labels < classes) | (labels == UNLABELLED))
    return (size is None or labels.shape == size[::-1]) and bool(known.all())


def _make_train_ids(source: Path) -> np.ndarray:
    return draw_polygons(source) if source.suffix == ".json" else _from_label_ids(source)


def _from_label_ids(path: Path) -> np.ndarray:
    """A `labelIds` PNG as trainIds; -1, stored as 255, is unlabelled."""
    ids = read_mask(path)
    table = np.full(256, UNLABELLED, dtype=np.uint8)
    table[: len(DRAWN)] = [label.train_id for label in DRAWN]
    known = ((ids >= 0) & (ids < len(DRAWN))) | (ids == 255)
    if not known.all():
        raise UserError(f"{path}: value {ids[~known][0]} is no label id; valid: 0 to {len(DRAWN) - 1}, or 255")
    return table[ids]


def draw_polygons(path: Path) -> np.ndarray:
    """The trainIds of a Cityscapes polygon file.

    Objects are drawn in the order stored, later ones over earlier ones, outlines included; those marked as deleted and
    number plates are left out. A group that has no label of its own counts as its members: `cargroup` as `car`.

    Returns:
        (H, W) uint8, 255 where nothing is drawn or no class stands for it.

    Raises:
        UserError: If the file is no polygon file, or holds a label that Cityscapes does not have.
    """
    train_ids = {label.name: label.train_id for label in DRAWN}
    undrawn = {label.name for label in LABELS} - train_ids.keys()
    try:
        content = json.loads(path.read_bytes())
        width, height, objects = int(content["imgWidth"]), int(content["imgHeight"]), list(content["objects"])
        shapes = [(str(o["label"]), _points(o["polygon"])) for o in objects if not o.get("deleted")]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: no polygons of Cityscapes ({type(error).__name__}: {' '.join(str(error).split())}); expected "
            "imgWidth, imgHeight and objects, each with label and polygon"
        ) from error
    if not (width > 0 and height > 0 and width * height <= MAX_PIXELS):
        raise UserError(f"{path}: size {width}×{height}; valid: 2048×1024, at most {MAX_PIXELS:,} pixels")
    picture = Image.new("L", (width, height), UNLABELLED)
    pen = ImageDraw.Draw(picture)
    for label, points in shapes:
        name = label if label in train_ids or label in undrawn else label.removesuffix("group")
        if name in undrawn:
            continue
        if name not in train_ids:
            raise UserError(f"{path}: label {label!r} is none of Cityscapes; valid: for example road, car, cargroup")
        pen.polygon(points, fill=train_ids[name])
    return np.array(picture)


def _points(polygon: Iterable[Any]) -> list[tuple[float, float]]:
    points = [(float(x), float(y)) for x, y in polygon]
    if len(points) < 2 or not all(math.isfinite(v) and abs(v) < 1e6 for point in points for v in point):
        raise ValueError(f"a polygon of {len(points)} points; expected two or more, within the image")
    return points


def _make_sbd_mask(path: Path) -> np.ndarray:
    """The class map of an SBD file: `GTcls[0].Segmentation[0]`, (H, W) uint8."""
    from scipy.io import loadmat

    if not path.is_file():
        raise UserError(f"{path}: no such file; get {SBD_ORIGIN}")
    try:
        labels = np.asarray(loadmat(path, variable_names=["GTcls"])["GTcls"]["Segmentation"].flat[0])
    except Exception as error:  # broken files reach every corner of a reader: no list of types is complete
        told = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path}: no class map of SBD ({told}); expected a MATLAB file with GTcls.Segmentation"
        ) from error
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise UserError(
            f"{path}: GTcls.Segmentation holds {labels.dtype} of shape {labels.shape}; expected uint8 of two dimensions"
        )
    return np.ascontiguousarray(labels)
