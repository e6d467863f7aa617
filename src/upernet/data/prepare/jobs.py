"""Making label maps one by one in several processes. Valid ones that exist are kept, and a fault ends only its job."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from upernet.data.images import image_size
from upernet.data.masks import read_mask
from upernet.data.pool import in_processes
from upernet.errors import UserError, WorkError
from upernet.files import write_whole


@dataclass(frozen=True)
class Recipe:
    """How the label maps of a data set are made.

    Attributes:
        make: Reads a source into a label map (H, W), uint8 or uint16.
        classes: Number of classes; their ids count from 0.
        palette: Red, green and blue of 256 ids, for palette files; None for grey files.
    """

    make: Callable[[Path], np.ndarray]
    classes: int
    palette: bytes | None = None

    @property
    def unlabelled(self) -> int:
        """The value of unlabelled pixels. Files have 16 bits if there are more than 255 classes."""
        return 255 if self.classes <= 255 else 65535


@dataclass(frozen=True)
class Job:
    """One label map to make.

    Attributes:
        target: The PNG to write.
        image: Its photograph, which must be of the same size; None if there is none to compare with.
        source: The file that it is made from.
        check: A second source, which should give the same label map; None if there is none.
    """

    target: Path
    image: Path | None
    source: Path
    check: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job.

    Attributes:
        job: The job.
        fault: Why it failed, in one line; empty if it did not.
        hopeless: Whether all further jobs will fail for the same reason.
        kept: Whether a valid label map existed already.
        pixels: Pixels that were compared with the second source.
        differing: How many of these differ.
    """

    job: Job
    fault: str = ""
    hopeless: bool = False
    kept: bool = False
    pixels: int = 0
    differing: int = 0


def run_jobs(jobs: Sequence[Job], recipe: Recipe, workers: int) -> Generator[Outcome, None, None]:
    """Do all jobs, `workers` at a time.

    Yields:
        Outcomes as they come, those of failed jobs too.

    Raises:
        UserError: If a folder cannot be written.
        WorkError: If a job failed for a reason that all further jobs share, such as a full disk.
    """
    for folder in sorted({job.target.parent for job in jobs}):
        if not os.access(folder, os.W_OK):
            raise UserError(f"{folder}: cannot be written; copy the data set to a folder that can be")
    with closing(in_processes(jobs, partial(_attempt, recipe=recipe), workers, command="prepare")) as outcomes:
        for outcome in outcomes:
            if outcome.hopeless:
                raise WorkError(f"{outcome.fault}; finished files are kept, run the command again")
            yield outcome


def _attempt(job: Job, recipe: Recipe) -> Outcome:
    """Do one job; any error in its files becomes the fault of its outcome."""
    try:
        return _finish(job, recipe)
    except UserError as error:
        return Outcome(job, str(error))
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
        return Outcome(job, f"{job.target}: {error.strerror or error}", hopeless=full)
    except Exception as error:  # broken files reach every corner of a reader: no list of types is complete
        return Outcome(job, f"{job.source}: cannot be read ({' '.join(str(error).split()) or type(error).__name__})")


def _finish(job: Job, recipe: Recipe) -> Outcome:
    size = image_size(job.image) if job.image else None
    if _is_valid(job.target, size, recipe):
        return Outcome(job, kept=True)
    labels = recipe.make(job.source)
    if job.image and size and labels.shape != size[::-1]:
        raise UserError(
            f"{job.source}: {labels.shape[1]}×{labels.shape[0]} pixels for an image of {size[0]}×{size[1]} "
            f"({job.image.name})"
        )
    wrong = labels[(labels >= recipe.classes) & (labels != recipe.unlabelled)]
    if wrong.size:
        raise UserError(f"{job.source}: value {wrong[0]} is no label; valid: 0 to {recipe.classes - 1}")
    picture = Image.fromarray(labels.astype(np.uint8 if recipe.unlabelled == 255 else np.uint16))
    if recipe.palette is not None:
        picture.putpalette(recipe.palette)
    write_whole(job.target, lambda file: picture.save(file, "PNG"), durable=False)
    pixels = differing = 0
    if job.check is not None:
        other = recipe.make(job.check)
        if other.shape == labels.shape:
            pixels, differing = labels.size, int((other != labels).sum())
    return Outcome(job, pixels=pixels, differing=differing)


def _is_valid(path: Path, size: tuple[int, int] | None, recipe: Recipe) -> bool:
    """Whether a label map exists, is complete, has the size (width, height) of its image and only known values."""
    try:
        labels = read_mask(path)
    except UserError:
        return False
    known = (labels >= 0) & ((labels < recipe.classes) | (labels == recipe.unlabelled))
    return (size is None or labels.shape == size[::-1]) and bool(known.all())
