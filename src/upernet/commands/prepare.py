"""The command `prepare`. Heavy imports wait until it runs."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING

from upernet.errors import UserError
from upernet.screen import print_line, progress

if TYPE_CHECKING:
    from upernet.data.prepare.jobs import Job, Outcome
    from upernet.data.prepare.preparation import Preparation

SHOWN_FAULTS = 50
"""Largest number of faults that are printed. A data set that is only half unpacked has thousands of the same."""


def prepare(
    inputs: list[str],
    sbd: str | None = None,
    ade20k: str | None = None,
    pascal_context: str | None = None,
    pascal_part: str | None = None,
    voc2010: str | None = None,
    opensurfaces: str | None = None,
    dtd: str | None = None,
    workers: int = 0,
) -> int:
    """Make the files that training needs from those that Cityscapes, SBD or the collections of Broden+ publish.

    Sound files that are there already are kept, so the command can be stopped and run again.

    Args:
        inputs: The data set to prepare, broden_plus, cityscapes or voc_aug, then its folder, to which broden_plus
            writes.
        sbd: For voc_aug, the folder `dataset` of SBD, with cls/, train.txt and val.txt. If not given, it is searched
            for in the folder of VOC and beside it.
        ade20k: For broden_plus, the full ADE20K: the folder ADE20K_2016_07_26 or ADE20K_2021_17_01. One or more of
            the collections of broden_plus must be given.
        pascal_context: For broden_plus, the folder of Pascal-Context, with trainval/*.mat and labels.txt.
        pascal_part: For broden_plus, the folder of Pascal-Part, with Annotations_Part/*.mat. It needs pascal_context,
            which has the objects.
        voc2010: For broden_plus, the folder VOC2010 with JPEGImages/*.jpg, the images of Pascal. If not given, it is
            searched for in the folders of Pascal and above them.
        opensurfaces: For broden_plus, the folder of OpenSurfaces, with photos.csv, photos/ and photos-labels/.
        dtd: For broden_plus, the folder of DTD, with images/ and labels/.
        workers: Number of processes that work at the same time; 0 takes one per processor core.

    Returns:
        Exit status: 0, or 1 if a file could not be prepared; all others are prepared nevertheless.

    Raises:
        UserError: If the data set has no preparation, or its folder cannot be used.
        WorkError: If files can no longer be written.
    """
    from upernet.data.pool import processor_cores
    from upernet.data.prepare import PREPARATIONS

    if inputs[0] not in PREPARATIONS:
        raise UserError(f"prepare: unknown data set {inputs[0]!r}; valid: {', '.join(PREPARATIONS)}")
    if len(inputs) != 2:
        raise UserError(
            f"prepare: needs one folder after {inputs[0]}; for example upernet prepare {inputs[0]} data/set"
        )
    if workers < 0:
        raise UserError(f"--workers {workers} is too small; valid: 0 (one per processor core) or more, such as 4")
    name, root = inputs
    given = {
        "sbd": sbd,
        "ade20k": ade20k,
        "pascal_context": pascal_context,
        "pascal_part": pascal_part,
        "voc2010": voc2010,
        "opensurfaces": opensurfaces,
        "dtd": dtd,
    }
    folders = {option: folder for option, folder in given.items() if folder is not None}
    for option, folder in folders.items():
        if option not in PREPARATIONS[name].options:
            users = [n for n, kind in PREPARATIONS.items() if option in kind.options]
            raise UserError(f"--{option} {folder}: only for {', '.join(users)}, not for {name}; leave the option out")
    preparation = PREPARATIONS[name](root, **folders)
    outcomes = _run(preparation, workers or processor_cores())
    for line in preparation.finish(outcomes):
        print_line(line, sys.stdout)
    return int(any(outcome.fault for outcome in outcomes.values()))


def _run(preparation: Preparation, workers: int) -> dict[Job, Outcome]:
    """Run all jobs, and print the faults."""
    from upernet.data.prepare.jobs import run_jobs

    jobs = preparation.jobs()
    outcomes: dict[Job, Outcome] = {}
    faults = 0
    with closing(run_jobs(jobs, workers)) as done, progress("preparing", len(jobs)) as advance:
        for outcome in done:
            outcomes[outcome.job] = outcome
            faults += bool(outcome.fault)
            if outcome.fault and faults <= SHOWN_FAULTS:
                print_line(f"upernet: {outcome.fault}", sys.stderr)
            advance()
    if faults > SHOWN_FAULTS:
        print_line(f"upernet: and {faults - SHOWN_FAULTS:,} more failed", sys.stderr)
    return outcomes
