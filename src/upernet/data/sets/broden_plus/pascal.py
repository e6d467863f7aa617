"""Pascal-Context and Pascal-Part on the images of VOC 2010 (Mottaghi et al. and Chen et al., both CVPR 2014)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from upernet.data.search import read_lines
from upernet.data.sets.broden_plus.originals import (
    Found,
    Lack,
    Original,
    OwnersFolder,
    Problem,
    file_names,
    user_folder,
)
from upernet.data.sets.broden_plus.tables import OFFICIAL, assignment, official_split
from upernet.data.sets.broden_plus.targets import Size, check_size, resize_labels, to_classes
from upernet.errors import UserError

IMAGES = ("JPEGImages", "VOC2010/JPEGImages", "VOCdevkit/VOC2010/JPEGImages")
"""Where the images of VOC 2010 are looked for, in and above the folders of the annotations."""

# fmt: off
PARTS = {
    "body": ["body"], "stern": ["stern"], "tail": ["tail"], "engine": ["engine"], "wing": ["lwing", "rwing"],
    "wheel": ["wheel", "fwheel", "bwheel"], "saddle": ["saddle"], "handle bar": ["handlebar"],
    "chain wheel": ["chainwheel"], "headlight": ["headlight"], "beak": ["beak"], "torso": ["torso"], "neck": ["neck"],
    "head": ["head", "hfrontside", "hleftside", "hrightside", "hbackside"], "head roof": ["hroofside"],
    "coach": ["coach", "cfrontside", "cleftside", "crightside", "cbackside"], "coach roof": ["croofside"],
    "eye": ["leye", "reye"], "ear": ["lear", "rear"], "eyebrow": ["lebrow", "rebrow"], "nose": ["nose"],
    "mouth": ["mouth"], "muzzle": ["muzzle"], "hair": ["hair"], "horn": ["lhorn", "rhorn"], "cap": ["cap"],
    "arm": ["llarm", "luarm", "rlarm", "ruarm"], "hand": ["lhand", "rhand"], "foot": ["lfoot", "rfoot"],
    "leg": ["lleg", "rleg", "llleg", "luleg", "rlleg", "ruleg", "lfleg", "rfleg", "lbleg", "rbleg", "lfuleg", "lflleg",
            "rfuleg", "rflleg", "lbuleg", "lblleg", "rbuleg", "rblleg"],
    "paw": ["lfpa", "rfpa", "lbpa", "rbpa"], "hoof": ["lfho", "rfho", "lbho", "rbho"],
    "mirror": ["leftmirror", "rightmirror"], "license plate": ["fliplate", "bliplate"], "door": ["door"],
    "window": ["window"], "roof": ["roofside"], "pot": ["pot"], "plant": ["plant"], "screen": ["screen"],
    "": ["frontside", "leftside", "rightside", "backside", "silhouette"],
}
# fmt: on
"""Name in Broden's list → short names in Pascal-Part, without left and right, front and back, upper and lower, and
without the number of several. What is only a side of something is no part."""


@cache
def part_of_short_name() -> dict[str, int]:
    """Short name in Pascal-Part, without a number → position in the list of 153 parts; 0 for a mere side."""
    labels = {assigned.raw_name: assigned.label for assigned in assignment("pascal", "part").values()}
    return {short: labels.get(name, 0) for name, shorts in PARTS.items() for short in shorts}


def read_parts(path: Path, size: Size) -> np.ndarray:
    """The parts in an annotation of Pascal-Part, as positions in the list of 153, uint16 (H, W).

    Later objects lie over earlier ones, and so do later parts of an object.

    Args:
        path: A MATLAB file with `anno.objects(i).parts(j).part_name` and `.mask`.
        size: Height and width of its image.

    Raises:
        UserError: If the file cannot be read, holds a mask of another size or an unknown part.
    """
    known = part_of_short_name()
    answer = np.zeros(size, np.uint16)
    for thing in _cells(_read(path, "anno")["objects"].flat[0]):
        for part in _cells(thing["parts"]):
            name = str(np.asarray(part["part_name"]).flat[0])
            label = known.get(re.sub(r"_[0-9]+$", "", name))
            if label is None:
                raise UserError(
                    f"{path}: Pascal-Part has no part {name!r}; valid: for example lwing, wheel_1, fliplate"
                )
            mask = np.asarray(part["mask"])
            check_size(path, mask, size, path.with_suffix(".jpg"))
            answer[mask.astype(bool)] = label
    return answer


def read_objects(path: Path) -> np.ndarray:
    """The raw labels in a label map of Pascal-Context, (H, W) integers from 0 to 459.

    Raises:
        UserError: If the file cannot be read.
    """
    labels = np.asarray(_read(path, "LabelMap"))
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise UserError(f"{path}: LabelMap holds {labels.dtype} of shape {labels.shape}; expected integers (H, W)")
    return labels


def _cells(structs: Any) -> list[Any]:
    """The elements of a MATLAB array of structs, which may be empty."""
    return list(np.asarray(structs).flat)


def _read(path: Path, name: str) -> Any:
    from scipy.io import loadmat

    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        return loadmat(path, variable_names=[name])[name]
    except Exception as error:  # broken files reach every corner of a reader: no list of types is complete
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: cannot be read ({reason}); expected a MATLAB file with {name}") from error


@dataclass(frozen=True)
class PascalImage(Original):
    """An image of VOC 2010 with its label map of Pascal-Context, and its annotation of Pascal-Part if it has one."""

    context: Path = Path()
    """Folder of the label maps."""
    parts: Path = Path()
    """Folder of the annotations of parts."""

    subset: ClassVar[str] = "pascal"

    @property
    def masks(self) -> dict[str, Path]:
        name = f"{Path(self.file).stem}.mat"
        found = {"object": self.context / name}
        return found | {"part": self.parts / name} if self.has_parts else found

    def read_labels(self, own: Size, size: Size) -> dict[str, np.ndarray]:
        masks = self.masks
        raw = read_objects(masks["object"])
        check_size(masks["object"], raw, own, self.image)
        labels = {"object": resize_labels(to_classes(raw, self.subset, "object", masks["object"]), size)}
        if "part" in masks:
            labels["part"] = resize_labels(read_parts(masks["part"], own), size)
        return labels


class PascalFolders(OwnersFolder):
    """The folders of Pascal-Context, of Pascal-Part if there is one, and of the images.

    The objects of Broden+ are those of Pascal-Context. The masks of objects in Pascal-Part are not used, as in the
    authors' code: its parts are looked at inside the objects of Pascal-Context.
    """

    subset: ClassVar[str] = "pascal"

    def __init__(self, context: str, part: str | None = None, voc2010: str | None = None) -> None:
        import scipy.io  # noqa: F401 (a missing package must be reported before any work)

        self.context = user_folder(context, "trainval")
        if not any(name.endswith(".mat") for name in file_names(self.context)):
            raise UserError(
                f"{self.context}: no *.mat; expected the folder of Pascal-Context, with trainval/*.mat and labels.txt"
            )
        _check_labels(next((f for f in (self.context, self.context.parent) if (f / "labels.txt").is_file()), None))
        self.part = None if part is None else user_folder(part, "Annotations_Part")
        if self.part is not None and not any(name.endswith(".mat") for name in file_names(self.part)):
            raise UserError(f"{self.part}: no *.mat; expected the folder of Pascal-Part, with Annotations_Part/*.mat")
        self.images = _find_images(voc2010, [p for p in (self.context, self.part) if p is not None])

    @property
    def folders(self) -> list[Path]:
        return [folder for folder in (self.images, self.context, self.part) if folder is not None]

    def find(self) -> Found:
        files = {folder: file_names(folder) for folder in self.folders}
        maps = {name.removesuffix(".mat") for name in files[self.context] if name.endswith(".mat")}
        parts = {n.removesuffix(".mat") for n in files.get(self.part, ()) if n.endswith(".mat")} if self.part else set()
        names, notes = self._numbering(maps | parts)
        originals: list[Original] = []
        problems: list[Problem] = []
        for index, name in enumerate(names):
            identity, split = f"{self.subset}/{name}", official_split(self.subset, index)
            image = f"{name}.jpg"
            if split is None:
                problems.append(Problem(Lack.UNEXPECTED, identity, image, "beyond the official numbering", index))
            elif image not in files[self.images]:
                problems.append(Problem(Lack.MISSING, identity, str(self.images / image), index=index))
            elif name not in maps:
                path = str(self.context / f"{name}.mat")
                problems.append(Problem(Lack.MISSING_LABELS, identity, path, "the image is not used", index))
            else:
                if self.part is not None and name not in parts:
                    path = str(self.part / f"{name}.mat")
                    problems.append(Problem(Lack.MISSING_LABELS, identity, path, "the image is used without parts"))
                originals.append(
                    PascalImage(
                        identity,
                        split,
                        index,
                        self.images,
                        image,
                        has_parts=name in parts,
                        context=self.context,
                        parts=self.part or Path(),
                    )
                )
        for name in sorted((maps | parts) - set(names)):
            problems.append(Problem(Lack.UNEXPECTED, f"{self.subset}/{name}", f"{name}.mat", "not in VOC 2010"))
        for index in range(len(names), sum(OFFICIAL[self.subset].images)):
            problems.append(Problem(Lack.MISSING, f"{self.subset}/#{index}", index=index))
        return Found(originals, problems, notes=notes)

    def _numbering(self, annotated: set[str]) -> tuple[Sequence[str], list[str]]:
        """The names of the official numbering, which are those of VOC 2010, sorted."""
        listing = self.images.parent / "ImageSets" / "Main" / "trainval.txt"
        names = sorted({line.split()[0] for line in read_lines(listing)} if listing.is_file() else annotated)
        official = sum(OFFICIAL[self.subset].images)
        if len(names) == official:
            return names, []
        where = str(listing) if listing.is_file() else "the annotations (there is no ImageSets/Main/trainval.txt)"
        note = (
            f"{len(names):,} names in {where}, officially {official:,}: images may be in another split than officially"
        )
        return names, [note]


def _check_labels(folder: Path | None) -> None:
    """Refuse a list of labels that numbers them otherwise than Pascal-Context does.

    Raises:
        UserError: If a label has another name.
    """
    if folder is None:
        return
    path = folder / "labels.txt"
    names = dict(line.split(": ", 1) for line in read_lines(path) if ": " in line)
    for raw, assigned in assignment("pascal", "object").items():
        if names.get(str(raw)) != assigned.raw_name:
            raise UserError(
                f"{path}: label {raw} is {names.get(str(raw))!r}; in Pascal-Context it is {assigned.raw_name!r}"
            )


def _find_images(given: str | None, folders: Sequence[Path]) -> Path:
    if given is not None:
        found = user_folder(given, *IMAGES)
        if not any(name.endswith(".jpg") for name in file_names(found)):
            raise UserError(f"{found}: no *.jpg; expected the folder VOC2010, with JPEGImages/*.jpg")
        return found
    places = [place for folder in folders for place in (folder, *folder.absolute().parents[:3])]
    found_one = next((place / name for place in places for name in IMAGES if (place / name).is_dir()), None)
    if found_one is None:
        raise UserError(
            f"{folders[0]}: no JPEGImages in it or near it; give --voc2010 with the folder VOC2010 of "
            "VOCtrainval_03-May-2010.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2010"
        )
    return found_one
