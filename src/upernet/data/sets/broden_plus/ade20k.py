"""ADE20K with its full annotation, in the release of 2016 or that of 2021 (Zhou et al., CVPR 2017 and IJCV 2019)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from upernet.data.images import read_image
from upernet.data.search import read_lines
from upernet.data.sets.broden_plus.originals import Found, Lack, Original, OwnersFolder, Problem, user_folder
from upernet.data.sets.broden_plus.tables import (
    ADE20K_TRAIN,
    ADE20K_VAL,
    assignment,
    broden_plus,
    official_split,
)
from upernet.data.sets.broden_plus.targets import Size, check_size, resize_labels, to_classes
from upernet.errors import UserError

RELEASES = {"2021_17_01": "images/ADE", "2016_07_26": "images"}
"""Release → the folder in it that holds `training` and `validation`."""
SCENE_LISTS = ("sceneCategories.txt", "scene_categories.txt")
"""Lists of the scene of every image, as the scene parsing benchmark has them."""
NO_SCENE = {"misc", "outliers", "unclassified"}
"""Names in the place of a scene's name that stand for none."""


def decode_classes(pixels: np.ndarray) -> np.ndarray:
    """Class numbers (H, W) int32 from the colours (H, W, 3) uint8 of `*_seg.png` or `*_parts_1.png`."""
    return pixels[..., 0].astype(np.int32) // 10 * 256 + pixels[..., 1]


@dataclass(frozen=True)
class ADE20KImage(Original):
    """An image of ADE20K: `*.jpg`, `*_seg.png`, `*_parts_1.png` if it has parts, and `*.json` in 2021."""

    names: bool = False
    """Whether its classes are known by name: the release of 2021, which numbers them in its own way."""

    subset: ClassVar[str] = "ade20k"
    shrinks: ClassVar[bool] = True

    @property
    def masks(self) -> dict[str, Path]:
        found = {"object": self._beside("_seg.png")}
        return found | {"part": self._beside("_parts_1.png")} if self.has_parts else found

    def read_labels(self, own: Size, size: Size) -> dict[str, np.ndarray]:
        labels = {}
        for level, (annotation, path) in enumerate(self.masks.items()):
            pixels = read_image(path)
            check_size(path, pixels, own, self.image)
            raw = decode_classes(resize_labels(pixels, size))
            if self.names:
                labels[annotation] = _by_name(raw, self._names[level], annotation)
            else:
                labels[annotation] = to_classes(raw, self.subset, annotation, path)
        return labels

    def unmapped(self) -> dict[str, list[str]]:
        if not self.names:
            return {}
        by_level = zip(("object", "part"), self._names, strict=True)
        found = {
            kind: sorted({n for n in names.values() if class_of_name(n, kind) is None}) for kind, names in by_level
        }
        return {kind: names for kind, names in found.items() if names}

    @property
    def _names(self) -> tuple[dict[int, str], dict[int, str]]:
        """The names by number of the objects and of their parts, from the file of polygons."""
        return read_names(self._beside(".json"))

    def _beside(self, ending: str) -> Path:
        return self.folder / (self.file.removesuffix(".jpg") + ending)


@lru_cache(maxsize=1)
def read_names(path: Path) -> tuple[dict[int, str], dict[int, str]]:
    """The names by number of the objects and of the first level of parts in an annotation of 2021.

    Raises:
        UserError: If the file cannot be read or is no such annotation.
    """
    names: tuple[dict[int, str], dict[int, str]] = ({}, {})
    try:
        content = path.read_bytes()
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            text = content.decode("latin-1")
        for entry in json.loads(text)["annotation"]["object"]:
            level = int(entry["parts"]["part_level"])
            if level < len(names):
                names[level][int(entry["name_ndx"])] = str(entry["name"])
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; it names the classes of the image") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: no annotation of ADE20K ({type(error).__name__}: {reason})") from error
    return names


def _by_name(raw: np.ndarray, names: dict[int, str], category: str) -> np.ndarray:
    """The classes of numbers (H, W) that are known by name; a number without a name is unlabelled."""
    table = np.zeros(int(raw.max(initial=0)) + 1, np.uint16)
    for number, name in names.items():
        if 0 < number < len(table):
            table[number] = class_of_name(name, category) or 0
    return table[raw]


def class_of_name(name: str, category: str) -> int | None:
    """The class of an object or part by its name in ADE20K, synonyms divided by commas; None if it has none.

    All synonyms must agree with those of 2016. The first one alone does not tell: `basket, handbasket` became a class,
    but `basket, basketball hoop, hoop` did not.
    """
    return _classes_by_name(category).get(_synonyms(name))


def _synonyms(name: str) -> tuple[str, ...]:
    return tuple(part.strip().lower() for part in re.split("[,;]", name) if part.strip())


@cache
def _classes_by_name(category: str) -> dict[tuple[str, ...], int]:
    """All synonyms of a name of 2016 → its class."""
    return {_synonyms(assigned.raw_name): assigned.label for assigned in assignment("ade20k", category).values()}


def find_scene(parts: Sequence[str]) -> int | None:
    """The scene of an image from the names that it is filed under; None if it has none.

    Args:
        parts: Such as `["a", "airport_terminal"]`, `["urban", "casino__outdoor"]` or `["street"]`. As many of the last
            ones as possible are taken together.

    Raises:
        KeyError: If they name no scene that became one of the 365.
    """
    scenes = _scenes()
    words = [_plain(part) for part in parts]
    for start in range(len(words)):
        label = scenes.get("_".join(words[start:]))
        if label is not None:
            return label
    if words and words[-1] in NO_SCENE:
        return None
    raise KeyError("/".join(parts))


@cache
def _scenes() -> dict[str, int]:
    scenes = {_plain(name): label for label, name in enumerate(broden_plus()["scene"])}
    assigned = (a for a in assignment("ade20k", "scene").values() if a.label >= 0)
    return scenes | {_plain(a.raw_name.removesuffix("-s")): a.label for a in assigned}


def _plain(name: str) -> str:
    """`Arrival gate/indoor`, `arrival_gate__indoor` and `arrival_gate_indoor` are one name."""
    return re.sub("[^a-z0-9]+", "_", name.lower()).strip("_")


def official_index(stem: str) -> int | None:
    """The position of an image such as `ADE_val_00000001` in the official numbering; None if it has none."""
    match = re.fullmatch(r"ADE_(train|val)_([0-9]{8})", stem)
    if not match:
        return None
    number, is_train = int(match[2]), match[1] == "train"
    if not 1 <= number <= (ADE20K_TRAIN if is_train else ADE20K_VAL):
        return None
    return number - 1 if is_train else ADE20K_TRAIN + number - 1


def official_stem(index: int) -> str:
    """The name of an image by its position in the official numbering."""
    is_train = index < ADE20K_TRAIN
    return f"ADE_train_{index + 1:08d}" if is_train else f"ADE_val_{index + 1 - ADE20K_TRAIN:08d}"


class ADE20KFolder(OwnersFolder):
    """The folder `ADE20K_2016_07_26` or `ADE20K_2021_17_01`, or the one above it."""

    subset: ClassVar[str] = "ade20k"

    def __init__(self, given: str, scenes: Sequence[Path] = ()) -> None:
        """Recognise the release.

        Args:
            given: What the user gave.
            scenes: Folders in which the benchmark's list of scenes may lie, before those of ADE20K.

        Raises:
            UserError: If the folder holds no release, or two.
        """
        above = user_folder(given)
        places = [p for p in (above, *(above / f"ADE20K_{release}" for release in RELEASES)) if p.is_dir()]
        found = [(place, release) for place in places if (release := _release(place))]
        if not found:
            challenge = any((place / "annotations").is_dir() for place in places)
            what = "this is the benchmark of 150 classes, without parts; " if challenge else ""
            raise UserError(
                f"{above}: {what}expected the full data set, ADE20K_2016_07_26 or ADE20K_2021_17_01, with "
                "images/training/ or images/ADE/training/ and *_seg.png in it"
            )
        if len(found) > 1:
            both = " and ".join(str(place) for place, _ in found)
            raise UserError(f"{above}: holds two releases; give one of {both}")
        self.folder, self.release = found[0]
        near = self.folder.absolute().parent
        self._scene_folders = (*scenes, self.folder, near, near / "ADEChallengeData2016")

    @property
    def folders(self) -> list[Path]:
        return [self.folder]

    def find(self) -> Found:
        listed = self._scene_list()
        originals: dict[int, ADE20KImage] = {}
        problems: list[Problem] = []
        for file, beside in self._images():
            stem = Path(file).stem
            identity = f"{self.subset}/{stem}"
            index = official_index(stem)
            split = None if index is None else official_split(self.subset, index)
            if index is None or split is None:
                problems.append(Problem(Lack.UNEXPECTED, identity, file, "not among the 22,210 images of 2016"))
                continue
            if index in originals:
                problems.append(Problem(Lack.UNEXPECTED, identity, file, f"already found as {originals[index].file}"))
                continue
            needed = ["_seg.png", *([".json"] if self.release.startswith("2021") else [])]
            lacking = [stem + ending for ending in needed if stem + ending not in beside]
            if lacking:
                path = str(Path(file).with_name(lacking[0]))
                problems.append(Problem(Lack.MISSING_LABELS, identity, path, "the image is not used", index))
                continue
            filed = [listed[stem]] if stem in listed else Path(file).parent.parts[self._depth :]
            try:
                scene = find_scene(filed)
            except KeyError as name:
                scene = None
                problems.append(Problem(Lack.UNKNOWN_SCENE, identity, file, f"scene {name}", index))
            has_parts = f"{stem}_parts_1.png" in beside
            named = self.release.startswith("2021")
            originals[index] = ADE20KImage(
                identity, split, index, self.folder, file, scene, has_parts=has_parts, names=named
            )
        found = {problem.id for problem in problems if problem.kind is not Lack.UNKNOWN_SCENE}
        for index in range(ADE20K_TRAIN + ADE20K_VAL):
            stem = official_stem(index)
            if index not in originals and f"{self.subset}/{stem}" not in found:
                problems.append(Problem(Lack.MISSING, f"{self.subset}/{stem}", f"{stem}.jpg", index=index))
        return Found([originals[index] for index in sorted(originals)], problems, self.release)

    @property
    def _depth(self) -> int:
        """The number of folders down to those of the scenes, such as two for `images/training`."""
        return len(Path(RELEASES[self.release]).parts) + 1

    def _images(self) -> Iterator[tuple[str, set[str]]]:
        """Every image below the folder, and the names of the files beside it."""
        for split in ("training", "validation"):
            for folder, subfolders, files in os.walk(self.folder / RELEASES[self.release] / split):
                # In 2021, a folder beside each image holds a mask for each of its instances.
                subfolders[:] = sorted(name for name in subfolders if not name.startswith((".", "ADE_")))
                beside = set(files)
                for name in sorted(files):
                    if name.endswith(".jpg") and not name.startswith("."):
                        yield (Path(folder) / name).relative_to(self.folder).as_posix(), beside

    def _scene_list(self) -> dict[str, str]:
        """The scene of each image in the benchmark's list, if that lies in the folder or near it."""
        for place in self._scene_folders:
            for name in SCENE_LISTS:
                if (place / name).is_file():
                    return read_scenes(read_lines(place / name))
        return {}


def read_scenes(lines: Iterable[str]) -> dict[str, str]:
    """Image → scene, from lines such as `ADE_train_00000001 airport_terminal`."""
    pairs = (line.split() for line in lines)
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def _release(folder: Path) -> str | None:
    """The release that a folder holds; None if it is none, or the benchmark of 150 classes."""
    if (folder / "annotations").is_dir():
        return None
    return next((name for name, inner in RELEASES.items() if (folder / inner / "training").is_dir()), None)
