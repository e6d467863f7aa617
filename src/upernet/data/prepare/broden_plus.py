"""Broden+ from its collections as their owners distribute them (Xiao et al. 2018; SPEC E)."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from upernet.data.faults import FaultError
from upernet.data.images import open_image, upright_size
from upernet.data.masks import read_mask
from upernet.data.prepare.jobs import Job, Outcome
from upernet.data.prepare.preparation import Preparation, compare, summary
from upernet.data.sets.broden_plus import BrodenPlus
from upernet.data.sets.broden_plus.ade20k import ADE20KFolder
from upernet.data.sets.broden_plus.dtd import DTDFolder
from upernet.data.sets.broden_plus.opensurfaces import OpenSurfacesFolder
from upernet.data.sets.broden_plus.originals import Found, Lack, Original, OwnersFolder, Problem
from upernet.data.sets.broden_plus.pascal import PascalFolders
from upernet.data.sets.broden_plus.records import TABLE, Record, as_csv, as_json_lines, read_records
from upernet.data.sets.broden_plus.tables import OFFICIAL, SUBSETS, UNLABELLED_PART
from upernet.data.sets.broden_plus.targets import part_map, shrink_image, shrunk_size
from upernet.data.sets.broden_plus.unified import stored_values
from upernet.errors import UserError, WorkError
from upernet.files import make_folder, remove_unfinished, write_whole
from upernet.yaml_files import write_yaml

JPEG_QUALITY = 95
"""Of images that are shrunk."""
REPORT, ORIGINS = "report.json", "origins.json"
RECIPE, TEXTURE_RECIPE, SOURCES = "recipe.yaml", "recipe_texture.yaml", "sources.yaml"


@dataclass(frozen=True)
class PrepareImage(Job):
    """An image of Broden+ and its label maps. Its record holds what its row of the table needs from the files.

    Attributes:
        original: The image in its owner's folder.
        root: The prepared folder.
    """

    original: Original
    root: Path

    @property
    def source(self) -> Path:  # type: ignore[override]
        return self.original.image

    @property
    def image(self) -> Path:
        """The image to write."""
        return self.root / image_path(self.original)

    @property
    def maps(self) -> dict[str, Path]:
        """Annotation → the label map to write."""
        return {name: self.root / name / f"{self.original.id}.png" for name in self.original.masks}

    @property
    def targets(self) -> tuple[Path, ...]:
        # The image comes last: where it is whole, so is all the rest.
        return (*self.maps.values(), self.image)

    def kept(self) -> Mapping[str, Any] | None:
        own = upright_size(self.source)
        size = self._size(own)
        if not self._image_is_kept(own, size):
            return None
        maps: dict[str, np.ndarray] = {}
        for name, path in self.maps.items():
            try:
                values = read_mask(path)
            except UserError:
                return None
            if values.shape != size or not np.isin(values, stored_values(name)).all():
                return None
            maps[name] = values
        return self._record(size, maps)

    def make(self) -> Mapping[str, Any]:
        photograph = open_image(self.source)
        pixels, own = photograph.pixels, photograph.size
        size = self._size(own)
        maps = self.original.read_labels(own, size)
        if "part" in maps:
            maps["part"] = part_map(maps["object"], maps["part"])
        for name, path in self.maps.items():
            depth = np.uint8 if name == "material" else np.uint16
            _write(path, _encode(".png", maps[name].astype(depth)))
        if size == own:
            with self.source.open("rb") as original:
                write_whole(self.image, lambda file: shutil.copyfileobj(original, file), durable=False)
        else:
            colours = cv2.cvtColor(shrink_image(pixels, size), cv2.COLOR_RGB2BGR)
            _write(self.image, _encode(".jpg", colours, cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
        return self._record(size, maps)

    def _size(self, own: tuple[int, int]) -> tuple[int, int]:
        return shrunk_size(own) if self.original.shrinks else own

    def _image_is_kept(self, own: tuple[int, int], size: tuple[int, int]) -> bool:
        if not self.image.is_file():
            return False
        if size == own:
            return filecmp.cmp(self.source, self.image, shallow=False)
        try:
            photograph = open_image(self.image)
            return photograph.size == size and photograph.pixels.shape[:2] == size
        except UserError:
            return False

    def _record(self, size: tuple[int, int], maps: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
        has_parts = "part" in maps and bool((maps["part"] != UNLABELLED_PART).any())
        unmapped = self.original.unmapped()
        return {"size": size, "part": has_parts} | ({"unmapped": unmapped} if unmapped else {})


def image_path(original: Original) -> str:
    """The path of a prepared image, below the prepared folder."""
    return f"images/{original.id}{Path(original.file).suffix}"


def _encode(ending: str, pixels: np.ndarray, *options: int) -> bytes:
    done, content = cv2.imencode(ending, pixels, options)
    if not done:
        raise WorkError(f"an image of {pixels.shape} {pixels.dtype} cannot be written as {ending}")
    return content.tobytes()


def _write(path: Path, content: bytes) -> None:
    write_whole(path, lambda file: file.write(content), durable=False)


class BrodenPlusFolder(Preparation):
    """A folder with every image and label map of Broden+, the table of its images, a report and training files."""

    options: ClassVar[tuple[str, ...]] = ("ade20k", "pascal_context", "pascal_part", "voc2010", "opensurfaces", "dtd")

    def __init__(self, root: str, **folders: str) -> None:
        self.root = Path(os.path.expanduser(os.path.expandvars(root)))
        owners = find_owners(folders)
        for name, folder in owners.items():
            if self.root.resolve() in (place.resolve() for place in folder.folders):
                raise UserError(f"{self.root}: holds the originals of {name}; give another folder to write to")
        self.found: dict[str, Found] = {name: folder.find() for name, folder in owners.items()}
        for name, found in self.found.items():
            if not found.originals:
                lacking = found.problems[0] if found.problems else None
                example = f", for example no {lacking.file}" if lacking and lacking.file else ""
                raise UserError(f"--{_option(name)} {folders[_option(name)]}: no image of the official lists{example}")

    def jobs(self) -> Sequence[Job]:
        self._make_root()
        self.earlier = self._earlier_records()
        self._check_origins()
        self.images = [PrepareImage(original, self.root) for f in self.found.values() for original in f.originals]
        for folder in sorted({target.parent for job in self.images for target in job.targets}):
            make_folder(folder)
        return self.images

    def finish(self, outcomes: Mapping[Job, Outcome]) -> Iterator[str]:
        records: dict[str, list[Record]] = {}
        report = self._earlier_report()
        for name in SUBSETS:
            if name in self.found:
                done = [(job.original, outcomes[job]) for job in self.images if job.original.subset == name]
                records[name] = [_record(original, o.record) for original, o in done if not o.fault]
                problems = _problems(self.found[name], done)
                report.subsets[name] = _section(name, self.found[name], done, records[name], problems)
                report.problems[name] = [{"subset": name} | problem.plain() for problem in problems]
                yield from _describe(name, self.found[name], [o for _, o in done], report.subsets[name])
            elif name in self.earlier:
                records[name] = self.earlier[name]
                yield f"{name}: {len(records[name]):,} images of an earlier run stay"
        every = [record for name in SUBSETS for record in records.get(name, ())]
        files = {TABLE: as_json_lines(every), "records.csv": as_csv(every), REPORT: report.as_json()}
        files |= {name: write_yaml(content).encode() for name, content in recipes(every, self.root).items()}
        written = [name for name, content in files.items() if self._write(name, content)]
        for stale in {RECIPE, TEXTURE_RECIPE} - files.keys():
            (self.root / stale).unlink(missing_ok=True)
        kept = sum(outcome.kept for outcome in outcomes.values())
        line = f"{self.root}: {len(every):,} images" + (f" ({kept:,} were there)" if kept else "")
        yield compare(line, len(every), sum(BrodenPlus.published.values()))
        yield f"written: {', '.join(written)}" if written else "tables, report and training files stay as they are"

    def _make_root(self) -> None:
        make_folder(self.root)
        try:
            remove_unfinished(self.root)
        except OSError as error:
            raise UserError(f"{self.root}: {error.strerror}; valid: a folder that can be written") from None

    def _earlier_records(self) -> dict[str, list[Record]]:
        """The records of subsets that this run does not prepare."""
        table = self.root / TABLE
        if not table.is_file():
            return {}
        try:
            records = read_records(table)
        except FaultError as error:
            raise UserError(f"{error}; or remove the file, then only this run's subsets are in the new one") from None
        earlier: dict[str, list[Record]] = {}
        for record in records:
            if record.source not in self.found:
                earlier.setdefault(record.source, []).append(record)
        return earlier

    def _earlier_report(self) -> _Report:
        """What the report says of subsets that this run does not prepare."""
        try:
            content = json.loads((self.root / REPORT).read_text(encoding="utf-8"))
            subsets = {name: section for name, section in content["subsets"].items() if name in self.earlier}
            problems: dict[str, list[dict[str, str]]] = {name: [] for name in subsets}
            for problem in content["problems"]:
                problems.get(problem["subset"], []).append(problem)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return _Report()
        return _Report(subsets, problems)

    def _check_origins(self) -> None:
        """Refuse to mix two releases of a collection in one folder.

        Raises:
            UserError: If the folder was begun with another release.
        """
        path = self.root / ORIGINS
        try:
            had = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            had = {}
        for name, found in self.found.items():
            if had.get(name, found.release) != found.release:
                raise UserError(
                    f"{self.root}: was begun with release {had[name]} of {name}, not {found.release}; "
                    "give another folder to write to"
                )
        now = had | {name: found.release for name, found in self.found.items()}
        self._write(ORIGINS, (json.dumps({name: now[name] for name in SUBSETS if name in now}) + "\n").encode())

    def _write(self, name: str, content: bytes) -> bool:
        """Write a file unless it holds that already; whether it was written."""
        path = self.root / name
        if path.is_file() and path.read_bytes() == content:
            return False
        try:
            write_whole(path, lambda file: file.write(content))
        except OSError as error:
            raise WorkError(f"{path}: {error.strerror or error}; run the command again") from error
        return True


def find_owners(folders: Mapping[str, str]) -> dict[str, OwnersFolder]:
    """The owners' folders that a user gave, by subset.

    Args:
        folders: Option → folder, see `BrodenPlusFolder.options`.

    Raises:
        UserError: If none is given, one lacks what it should hold, or Pascal-Part stands without Pascal-Context.
    """
    for option, needed in (("pascal_part", "pascal_context"), ("voc2010", "pascal_context")):
        if option in folders and needed not in folders:
            raise UserError(
                f"--{option} {folders[option]}: needs --{needed} too, which has the objects of Pascal images"
            )
    owners: dict[str, OwnersFolder] = {}
    if "ade20k" in folders:
        owners["ade20k"] = ADE20KFolder(folders["ade20k"])
    if "pascal_context" in folders:
        owners["pascal"] = PascalFolders(folders["pascal_context"], folders.get("pascal_part"), folders.get("voc2010"))
    if "opensurfaces" in folders:
        owners["opensurfaces"] = OpenSurfacesFolder(folders["opensurfaces"])
    if "dtd" in folders:
        owners["dtd"] = DTDFolder(folders["dtd"])
    if not owners:
        raise UserError(
            "prepare broden_plus: needs one or more of --ade20k, --pascal_context, --opensurfaces and --dtd, each with "
            "the folder of that collection"
        )
    return owners


def _option(subset: str) -> str:
    return "pascal_context" if subset == "pascal" else subset


@dataclass
class _Report:
    """What `report.json` says.

    Attributes:
        subsets: Subset → its counts.
        problems: Subset → its images that are not in Broden+, or not entirely.
    """

    subsets: dict[str, Any] = field(default_factory=dict)
    problems: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    def as_json(self) -> bytes:
        """JSON with one problem per line: there may be thousands."""
        counts = json.dumps({n: self.subsets[n] for n in SUBSETS if n in self.subsets}, ensure_ascii=False, indent=1)
        every = (problem for name in SUBSETS for problem in self.problems.get(name, ()))
        lines = ",\n".join(json.dumps(problem, ensure_ascii=False) for problem in every)
        return f'{{"subsets": {counts},\n"problems": [\n{lines}\n]}}\n'.encode()


Done = Sequence[tuple[Original, Outcome]]
"""The images of a subset and their outcomes, in the order of the official numbering."""


def _record(original: Original, known: Mapping[str, Any]) -> Record:
    """The row of a prepared image."""
    height, width = known["size"]
    found = {
        "object": "object" in original.masks,
        "part": known["part"],
        "scene": original.scene is not None,
        "material": "material" in original.masks,
        "texture": original.texture is not None,
    }
    return Record(
        id=original.id,
        source=original.subset,
        split=original.split,
        index=original.index,
        height=height,
        width=width,
        scene=original.scene,
        texture=original.texture,
        annotations=tuple(name for name, there in found.items() if there),
        parts=original.has_parts,
        image=image_path(original),
        original=original.file,
    )


def _problems(found: Found, done: Done) -> list[Problem]:
    broken = (Problem(Lack.BROKEN, original.id, original.file, o.fault) for original, o in done if o.fault)
    return [*found.problems, *broken]


def _section(
    name: str, found: Found, done: Done, records: Sequence[Record], problems: Sequence[Problem]
) -> dict[str, Any]:
    """What the report counts of a subset. It depends on the files alone, not on what an earlier run had made."""
    official = OFFICIAL[name]

    def counted(chosen: Sequence[Record], numbers: tuple[int, int]) -> dict[str, dict[str, int]]:
        here, splits = Counter(record.split for record in chosen), zip(("train", "val"), numbers, strict=True)
        return {split: {"found": here[split], "official": number} for split, number in splits}

    kinds = Counter(problem.kind for problem in problems)
    unmapped: dict[str, Counter[str]] = {}
    for _, outcome in done:
        for annotation, names in outcome.record.get("unmapped", {}).items():
            unmapped.setdefault(annotation, Counter()).update(names)
    counts = {"images": counted(records, official.images)}
    if sum(official.parts):
        counts["with parts"] = counted([record for record in records if record.parts], official.parts)
    if sum(official.scenes):
        counts["with a scene"] = counted([record for record in records if record.scene is not None], official.scenes)
    return {
        "release": found.release,
        **counts,
        "notes": found.notes,
        "problems": {kind.value: kinds[kind] for kind in Lack if kinds[kind]},
        "images with names of no class": {
            annotation: dict(sorted(names.items(), key=lambda pair: (-pair[1], pair[0])))
            for annotation, names in sorted(unmapped.items())
        },
    }


def _describe(name: str, found: Found, outcomes: Sequence[Outcome], section: Mapping[str, Any]) -> Iterator[str]:
    """What the screen says of a subset."""
    official = OFFICIAL[name]
    title = f"{name} {found.release}".strip()
    yield f"{title}: {summary(outcomes, 'images', sum(official.images))}"
    for what in ("images", "with parts", "with a scene"):
        counts = section.get(what, {})
        if any(of["found"] != of["official"] for of in counts.values()):
            shares = (f"{split} {of['found']:,} of {of['official']:,}" for split, of in counts.items())
            yield f"{title}, {what}: {', '.join(shares)}"
    for note in found.notes:
        yield f"{title}: {note}"
    if section["problems"]:
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in section["problems"].items())
        yield f"{title}: {kinds}; see {REPORT}"
    for annotation, names in section["images with names of no class"].items():
        yield f"{title}: {len(names):,} names of {annotation}s are no class, as {next(iter(names))!r}; see {REPORT}"


def recipes(records: Sequence[Record], root: Path) -> dict[str, dict[str, Any]]:
    """File → training file: what was prepared, as sources and tasks.

    Textures are learned in a stage of their own, so they have a file of their own. Both are to be stacked on a shipped
    one. A third file has all sources, to measure a network that has learned all tasks.

    Args:
        records: All images that were prepared.
        root: The prepared folder.
    """
    learned = {name for record in records for name in record.annotations}
    subsets = {record.source for record in records}
    sources: dict[str, Any] = {}
    scenes = [name for name in ("ade20k", "pascal") if name in subsets]
    if scenes:
        targets = [name for name in ("object", "part", "scene") if name in learned]
        sources["scene_parsing"] = _source(records, root, scenes, targets)
    if "opensurfaces" in subsets:
        sources["materials"] = _source(records, root, ["opensurfaces"], ["material"])
    files: dict[str, dict[str, Any]] = {}
    if sources:
        files[RECIPE] = {"data": {"sources": sources}}
        tasks = [name for source in sources.values() for name in source["targets"]]
        if len(tasks) < 4:  # otherwise all tasks of the shipped file remain
            files[RECIPE] = {"tasks": {name: {} for name in tasks}} | files[RECIPE]
    if "dtd" in subsets:
        textures = {"textures": _source(records, root, ["dtd"], ["texture"])}
        files[TEXTURE_RECIPE] = {"tasks": {"texture": {}}, "data": {"sources": textures}}
        sources = sources | textures  # another object: the file before keeps its own
    return files | {SOURCES: {"data": {"protocol": "paper", "sources": sources}}}


def _source(records: Sequence[Record], root: Path, subsets: Sequence[str], targets: Sequence[str]) -> dict[str, Any]:
    dataset = {
        "class_path": BrodenPlus.class_path(),
        "init_args": {"root": str(root.absolute()), "subsets": list(subsets)},
    }
    source = {"dataset": dataset, "targets": {name: {"annotation": name} for name in targets}}
    there = {record.split for record in records if record.source in subsets}
    return source | {split: None for split in ("train", "val") if split not in there}
