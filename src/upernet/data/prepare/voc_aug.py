"""The masks of SBD as PNG files beside those of VOC 2012, and the lists of the usual training set."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from upernet.data.prepare.jobs import Job, Outcome
from upernet.data.prepare.label_maps import LabelMap, Recipe
from upernet.data.prepare.preparation import Preparation, compare, summary
from upernet.data.search import read_lines
from upernet.data.sets.voc import NAMES, PALETTE, VOC
from upernet.errors import UserError, WorkError
from upernet.files import make_folder, write_whole

PUBLISHED_MASKS = 11355
"""Number of masks in SBD as published."""
PLACES = ("VOCaug/dataset", "benchmark_RELEASE/dataset", "SBD/dataset", "sbd/dataset", "sbd", "SBD")
"""Folders where SBD is looked for, below the folder of VOC and the two above it."""
ORIGIN = (
    "benchmark.tgz (1.4 GB) of SBD from http://home.bharathh.info/pubs/codes/SBD/download.html "
    "(its folder benchmark_RELEASE/dataset)"
)


def read_class_map(path: Path) -> np.ndarray:
    """The class map (H, W) uint8 of an SBD file: `GTcls[0].Segmentation[0]`.

    Raises:
        UserError: If the file does not exist or holds no class map.
    """
    from scipy.io import loadmat

    if not path.is_file():
        raise UserError(f"{path}: no such file; get {ORIGIN}")
    try:
        labels = np.asarray(loadmat(path, variable_names=["GTcls"])["GTcls"]["Segmentation"].flat[0])
    except Exception as error:  # broken files reach every corner of a reader: no list of types is complete
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path}: no class map of SBD ({reason}); expected a MATLAB file with GTcls.Segmentation"
        ) from error
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise UserError(
            f"{path}: GTcls.Segmentation holds {labels.dtype} of shape {labels.shape}; expected uint8 of two dimensions"
        )
    return np.ascontiguousarray(labels)


RECIPE = Recipe(read_class_map, len(NAMES), PALETTE)


class VOCAug(Preparation):
    """`SegmentationClassAug/*.png`, and the lists `aug` and `trainaug` that name them."""

    options = ("sbd",)

    def __init__(self, root: str, sbd: str | None = None) -> None:
        import scipy.io  # noqa: F401 (a missing package must be reported before any work)

        voc = VOC(root=root)
        self.folder = voc.folder
        self.lists = {split: voc.names(split) for split in ("train", "val")}
        self.sbd = find_sbd(self.folder, sbd)
        self.names = sorted(_listed(self.sbd))
        train, val = set(self.lists["train"]), set(self.lists["val"])
        self.lists["aug"] = sorted(set(self.names) - train - val)
        self.lists["trainaug"] = sorted((train | set(self.names)) - val)

    def jobs(self) -> Sequence[Job]:
        masks = self.folder / "SegmentationClassAug"
        make_folder(masks)
        images, maps = self.folder / "JPEGImages", self.sbd / "cls"
        return [LabelMap(RECIPE, masks / f"{n}.png", images / f"{n}.jpg", maps / f"{n}.mat") for n in self.names]

    def finish(self, outcomes: Mapping[Job, Outcome]) -> Iterator[str]:
        yield f"SegmentationClassAug: {summary(list(outcomes.values()), 'masks', PUBLISHED_MASKS)}"
        failed = {o.job.source.stem for o in outcomes.values() if o.fault}
        lost = failed.intersection(self.lists["aug"])
        if lost:
            raise WorkError(f"lists are not written: {len(lost):,} masks that aug.txt would name are missing")
        for split in ("aug", "trainaug"):
            yield from _write_list(self.folder / "ImageSets" / "Segmentation" / f"{split}.txt", self.lists[split])
        for split, names in self.lists.items():
            yield compare(f"{split}.txt: {len(names):,} images", len(names), VOC.published[split])


def find_sbd(folder: Path, chosen: str | None) -> Path:
    """Find the folder of SBD, which holds the folder `cls`.

    Args:
        folder: The folder of VOC.
        chosen: A folder given by the user; None looks for SBD at `PLACES`.

    Raises:
        UserError: If SBD is not found.
    """
    if chosen is not None:
        path = Path(os.path.expanduser(os.path.expandvars(chosen)))
        for candidate in (path, path / "dataset", path / "benchmark_RELEASE" / "dataset", path.parent):
            if (candidate / "cls").is_dir():
                return candidate
        raise UserError(f"--sbd {chosen}: no folder cls in it; valid: the folder dataset of SBD; get {ORIGIN}")
    above = folder.absolute().parents
    candidates = [place / name for place in (folder, *above[:2]) for name in PLACES]
    found = next((c for c in candidates if (c / "cls").is_dir()), None)
    if found is None:
        raise UserError(
            f"{above[0] / PLACES[0]}: no such folder; give --sbd with the folder that holds cls/, train.txt and "
            f"val.txt; get {ORIGIN}"
        )
    return found


def _listed(sbd: Path) -> set[str]:
    """The image ids in the lists of SBD.

    Raises:
        UserError: If a list is missing, empty or malformed.
    """
    names = set[str]()
    for split in ("train", "val"):
        listing = sbd / f"{split}.txt"
        if not listing.is_file():
            raise UserError(f"{listing}: no such list; expected one image id per line; get {ORIGIN}")
        names |= {name for line in read_lines(listing) for name in line.split()}
    if not names:
        raise UserError(f"{sbd / 'train.txt'}: empty; expected one image id per line, such as 2008_000002")
    for name in sorted(names):
        if not re.fullmatch(r"\w+", name):  # it becomes a file's name
            raise UserError(f"{sbd}: train.txt or val.txt holds {name!r}; expected image ids such as 2008_000002")
    return names


def _write_list(path: Path, names: Sequence[str]) -> Iterator[str]:
    """Write a list of image ids; yields a line if it replaces a list of other ids."""
    had = set(path.read_text().split()) if path.is_file() else set(names)
    if had != set(names):
        yield f"{path.name}: replaced; the list that was there had {len(had):,} images"
    write_whole(path, lambda file: file.write("".join(f"{name}\n" for name in names).encode()))
