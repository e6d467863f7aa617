"""Files made one by one."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from upernet.data import ImageMaskFolder
from upernet.data.prepare.jobs import Job, Outcome, run_jobs
from upernet.data.prepare.label_maps import LabelMap, Recipe
from upernet.errors import UserError

CLASSES = 336
RECIPE = Recipe(np.load, CLASSES)
"""Label maps from arrays on disk."""


def outcomes(root: Path, *arrays: np.ndarray) -> list[Outcome]:
    """What becomes of arrays beside images of 4×3 pixels, in the layout of a folder of images and masks."""
    jobs = []
    for number, array in enumerate(arrays):
        image, target = root / f"images/train/{number}.png", root / f"annotations/train/{number}.png"
        for path in (image, target):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3)).save(image)
        np.save(root / f"{number}.npy", array)
        jobs.append(LabelMap(RECIPE, target, image, root / f"{number}.npy"))
    return list(run_jobs(jobs, 1))


def test_more_classes_than_a_byte_holds_make_16_bit_files(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 254, 255], [256, 300, 334, 335], [65535, 65535, 0, 335]], np.uint16)
    (made,) = outcomes(tmp_path, labels)
    assert (made.fault, made.kept) == ("", False)
    with Image.open(made.job.targets[0]) as image:
        assert image.mode == "I;16"
    names = [f"class {i}" for i in range(CLASSES)]
    source = ImageMaskFolder(root=str(tmp_path), labels=names, ignore_value=65535)
    assert list(source.faults("train")) == []
    mask = source.read(source.items("train")[0])[1]["mask"]
    assert mask.tolist() == np.where(labels == 65535, -1, labels.astype(int)).tolist()
    (again,) = outcomes(tmp_path, labels)
    assert again.kept


def test_an_id_beyond_the_classes_is_told(tmp_path: Path) -> None:
    one, other = outcomes(tmp_path, np.full((3, 4), 336, np.uint16), np.full((3, 4), 335, np.uint16))
    assert one.fault == f"{tmp_path}/0.npy: value 336 is no label; valid: 0 to 335"
    assert not other.fault


@pytest.mark.parametrize(("classes", "unlabelled"), [(1, 255), (255, 255), (256, 65535)])
def test_unlabelled_is_beyond_the_classes(classes: int, unlabelled: int) -> None:
    assert Recipe(np.load, classes).unlabelled == unlabelled


@dataclass(frozen=True)
class Pair(Job):
    """Two files from one, and a count as its record."""

    source: Path

    @property
    def targets(self) -> tuple[Path, ...]:
        return (self.source.with_suffix(".one"), self.source.with_suffix(".two"))

    def kept(self) -> dict[str, int] | None:
        return {"letters": len(self.source.read_text())} if all(path.exists() for path in self.targets) else None

    def make(self) -> dict[str, int]:
        text = self.source.read_text()
        if not text:
            raise UserError(f"{self.source}: empty")
        for path in self.targets:
            path.write_text(text)
        return {"letters": len(text)}


def test_a_job_may_write_several_files_and_give_a_record(tmp_path: Path) -> None:
    for name, text in (("a", "abc"), ("b", ""), ("c", "c")):
        (tmp_path / f"{name}.txt").write_text(text)
    jobs = [Pair(path) for path in sorted(tmp_path.glob("*.txt"))]
    first = list(run_jobs(jobs, 1))
    assert [(o.kept, o.fault, o.record) for o in first] == [
        (False, "", {"letters": 3}),
        (False, f"{tmp_path}/b.txt: empty", {}),
        (False, "", {"letters": 1}),
    ]
    (tmp_path / "a.two").unlink()
    assert [o.kept for o in run_jobs(jobs, 1)] == [False, False, True]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left, running, own = (
        tmp_path / f".upernet-{ended.pid}-0a.tmp",
        tmp_path / f".upernet-{os.getppid()}-0b.tmp",
        tmp_path / ".upernet-notes.tmp",
    )
    for path in (left, running, own):
        path.write_text("half")
    list(run_jobs([Pair(tmp_path / "a.txt")], 1))
    assert [path.exists() for path in (left, running, own)] == [False, True, True]
