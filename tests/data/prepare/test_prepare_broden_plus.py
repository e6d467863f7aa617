"""`upernet prepare broden_plus`, on made-up collections in the formats of their owners."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fake_broden import (
    ADE_2021,
    LARGE,
    LARGE_SIZE,
    OPENSURFACES_ROWS,
    ade20k,
    collections,
    dtd,
    opensurfaces,
    opensurfaces_numbers,
    pascal,
    words,
)
from PIL import Image

import upernet
from upernet.cli import main
from upernet.data import BrodenPlus
from upernet.data.config import DataConfig
from upernet.data.mixture import bind_sources
from upernet.data.sets.broden_plus.targets import resize_labels
from upernet.plain import from_plain
from upernet.recipes import merge_recipes, read_recipe
from upernet.tasks import Task


def run(capsys: pytest.CaptureFixture[str], root: Path, *options: object) -> tuple[int, list[str], list[str]]:
    """Exit status, and the lines of the two streams."""
    code = main(["prepare", "broden_plus", str(root), *map(str, options), "--workers", "1"])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err.splitlines()


def told(capsys: pytest.CaptureFixture[str], root: Path, *options: object) -> str:
    """The one line of a wrong use."""
    code, out, err = run(capsys, root, *options)
    assert (code, out, len(err)) == (2, [], 1)
    return err[0].removeprefix("upernet: ")


def content(root: Path) -> dict[str, str]:
    """Every file below a folder and a hash of its bytes; paths of the folder itself are left out of its files."""
    found = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        own = path.read_bytes().replace(str(root).encode(), b"HERE")
        found[path.relative_to(root).as_posix()] = hashlib.sha256(own).hexdigest()
    return found


def problems(root: Path, subset: str, *kinds: str) -> list[tuple[str, str, str]]:
    """Kind, id and file of what the report lists."""
    listed = json.loads((root / "report.json").read_text())["problems"]
    found = [p for p in listed if p["subset"] == subset and (not kinds or p["kind"] in kinds)]
    return [(p["kind"], p["id"], p.get("file", "")) for p in found]


@pytest.fixture(scope="module")
def owners(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The options that name all collections; not to be written to."""
    return collections(tmp_path_factory.mktemp("owners"))


@pytest.fixture(scope="module")
def whole(owners: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an unbroken run writes; not to be written to."""
    root = tmp_path_factory.mktemp("whole")
    assert main(["prepare", "broden_plus", str(root), *words(owners), "--workers", "1"]) == 0
    return root


# All four


def test_what_is_written(owners: dict[str, Path], whole: Path) -> None:
    lines = [json.loads(line) for line in (whole / "records.jsonl").read_text().splitlines()]
    assert [line["source"] for line in lines] == ["ade20k"] * 7 + ["pascal"] * 12 + ["opensurfaces"] * 16 + ["dtd"] * 4
    assert [line["index"] for line in lines if line["source"] == "ade20k"] == [0, 1, 2, 3, 7, 20210, 20211]
    assert [line["split"] for line in lines if line["source"] == "pascal"] == ["train"] * 9 + ["val"] + ["train"] * 2
    first, second, large, misc = lines[:4]
    assert first == {
        "id": "ade20k/ADE_train_00000001",
        "source": "ade20k",
        "split": "train",
        "index": 0,
        "height": 24,
        "width": 32,
        "scene": 2,
        "texture": None,
        "annotations": ["object", "part", "scene"],
        "parts": True,
        "image": "images/ade20k/ADE_train_00000001.jpg",
        "original": "images/training/a/airport_terminal/ADE_train_00000001.jpg",
    }
    assert (second["parts"], second["annotations"]) == (False, ["object", "scene"])
    assert (large["height"], large["width"]) == (512, 683)
    assert (misc["scene"], "scene" in misc["annotations"]) == (None, False)
    with (whole / "records.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(lines)
    assert rows[3]["scene"] == ""
    assert rows[0] == {k: "" if v is None else str(v) for k, v in first.items()} | {
        "annotations": "object;part;scene",
        "parts": "1",
    }
    for line in lines:
        maps = {name for name in ("object", "part", "material") if (whole / name / f"{line['id']}.png").is_file()}
        assert maps >= set(line["annotations"]) - {"scene", "texture"}
        for name in maps:
            with Image.open(whole / name / f"{line['id']}.png") as image:
                assert image.mode == ("L" if name == "material" else "I;16")
                assert image.size == (line["width"], line["height"])
    assert not list(whole.rglob("*.tmp"))


def test_small_images_are_copied_and_large_ones_shrunk(owners: dict[str, Path], whole: Path) -> None:
    lines = [json.loads(line) for line in (whole / "records.jsonl").read_text().splitlines()]
    places = {
        "ade20k": owners["ade20k"],
        "pascal": owners["pascal_context"].parent / "VOC2010/JPEGImages",
        "opensurfaces": owners["opensurfaces"],
        "dtd": owners["dtd"],
    }
    for line in lines:
        original, made = places[line["source"]] / line["original"], whole / line["image"]
        if line["id"] != f"ade20k/{LARGE}":
            assert made.read_bytes() == original.read_bytes()
    (original,) = owners["ade20k"].rglob(f"{LARGE}.jpg")
    with Image.open(original) as image:
        assert image.size == LARGE_SIZE[::-1]
        pixels = np.asarray(image)
    with Image.open(whole / f"images/ade20k/{LARGE}.jpg") as image:
        shrunk = np.asarray(image).astype(int)
    nearest = resize_labels(pixels, (512, 683)).astype(int)
    assert np.abs(shrunk - nearest).mean() < 3  # the same picture; its blocks have few edges


def test_what_the_screen_says(owners: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, tmp_path / "new/folder", *words(owners))
    assert (code, err) == (0, [])
    assert out[:5] == [
        "ade20k 2016_07_26: 7 images, published: 22,210",
        "ade20k 2016_07_26, images: train 5 of 20,067, val 2 of 2,143",
        "ade20k 2016_07_26, with parts: train 4 of 10,451, val 2 of 1,109",
        "ade20k 2016_07_26, with a scene: train 4 of 18,641, val 2 of 1,902",
        "ade20k 2016_07_26: 22,203 missing; see report.json",
    ]
    assert "opensurfaces: photos.csv has 16 rows; the official lists go up to row 25,337" in out
    assert out[-2:] == [
        f"{tmp_path}/new/folder: 39 images, published: 57,093",
        "written: records.jsonl, records.csv, report.json, recipe.yaml, recipe_texture.yaml, sources.yaml",
    ]


def test_a_second_run_changes_no_byte(
    owners: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, tmp_path, *words(owners))[0] == 0
    before, times = content(tmp_path), {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    code, out, err = run(capsys, tmp_path, *words(owners))
    assert (code, err) == (0, [])
    assert out[0] == "ade20k 2016_07_26: 7 images (7 were there), published: 22,210"
    assert out[-2:] == [
        f"{tmp_path}: 39 images (39 were there), published: 57,093",
        "tables, report and training files stay as they are",
    ]
    assert content(tmp_path) == before
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == {
        p: t for p, t in times.items() if p.is_file()
    }


KILLED = """
import os, signal, sys
import upernet.data.prepare.broden_plus as prepare
from upernet.cli import main

write, left = prepare.write_whole, int(sys.argv[1])

def killed(path, fill, **how):
    global left
    left -= 1
    if left < 0:
        def half(file):
            file.write(b"half a file")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, half, **how)
    write(path, fill, **how)

prepare.write_whole = killed
main(sys.argv[2:])
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("after", [17, 94], ids=["in the middle", "in the tables"])
def test_a_killed_run_is_finished_by_the_next(
    after: int, owners: dict[str, Path], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["prepare", "broden_plus", str(tmp_path), *words(owners), "--workers", "1"]
    ended = subprocess.run([sys.executable, "-c", KILLED, str(after), *arguments], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(list(tmp_path.rglob("*.tmp"))) == 1
    there = [p for p in (tmp_path / "images").rglob("*.jpg") if p.is_file()]
    assert 0 < len(there) <= 39
    code, out, _ = run(capsys, tmp_path, *words(owners))
    assert code == 0
    assert f"39 images ({len(there)} were there)" in out[-2]
    assert content(tmp_path) == content(whole)


ORPHANS = """
import os, signal, sys
import upernet.commands.prepare as command
from contextlib import contextmanager
from upernet.cli import main

@contextmanager
def progress(title, total):
    yield lambda: os.kill(os.getpid(), signal.SIGKILL)

command.progress = progress
if __name__ == "__main__":
    main(sys.argv[1:])
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_two_processes_end_with_a_killed_main_process_and_write_what_one_writes(
    owners: dict[str, Path], whole: Path, tmp_path: Path
) -> None:
    script = tmp_path / "run.py"
    script.write_text(ORPHANS)
    root = tmp_path / "broden"
    arguments = ["prepare", "broden_plus", str(root), *words(owners), "--workers", "2"]
    process = subprocess.Popen([sys.executable, str(script), *arguments], start_new_session=True)
    assert process.wait() == -signal.SIGKILL
    end = time.monotonic() + 60
    while _any_process_of(process.pid):
        assert time.monotonic() < end, "workers wait for a main process that is gone"
        time.sleep(0.02)
    assert main(arguments) == 0
    assert content(root) == content(whole)


def _any_process_of(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_was_damaged_is_made_again(
    owners: dict[str, Path], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(whole, tmp_path / "broden"))
    names = [f"ade20k/ADE_train_0000000{n}" for n in (1, 3, 4)] + ["pascal/2008_000001", "dtd/banded/banded_0002"]
    (root / f"object/{names[0]}.png").unlink()
    path = root / f"images/{names[1]}.jpg"
    path.write_bytes(path.read_bytes()[:-9000])
    Image.fromarray(np.full((24, 32), 427, np.uint16)).save(root / f"part/{names[2]}.png")
    Image.fromarray(np.full((8, 8), 1, np.uint16)).save(root / f"object/{names[3]}.png")
    (root / f"images/{names[4]}.jpg").write_bytes(b"")
    code, out, _ = run(capsys, root, *words(owners))
    assert (code, out[-2].split(": ")[1]) == (0, "39 images (34 were there), published")
    assert content(root) == {k: v for k, v in content(whole).items() if "recipe" not in k} | {
        k: v for k, v in content(root).items() if "recipe" in k
    }


# Some of the four


@pytest.mark.parametrize("given", ["ade20k", "opensurfaces", "dtd"])
def test_one_collection_is_enough(
    given: str, owners: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, tmp_path, f"--{given}", owners[given])
    assert (code, err) == (0, [])
    source = BrodenPlus(root=str(tmp_path), subsets=[given])
    for split in ("train", "val"):
        assert list(source.faults(split)) == []
        assert source.items(split)


def test_the_folder_to_write_to_may_be_the_current_one(
    owners: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(capsys, Path("."), "--pascal_context", owners["pascal_context"])[0] == 0
    assert BrodenPlus(root=".").items("val")


def test_pascal_without_parts(owners: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, tmp_path, "--pascal_context", owners["pascal_context"])[0] == 0
    (item,) = BrodenPlus(root=str(tmp_path)).items("val")
    assert list(item.annotations) == ["object"]
    both = ("--pascal_context", owners["pascal_context"], "--pascal_part", owners["pascal_part"])
    assert run(capsys, tmp_path, *both)[0] == 0
    (item,) = BrodenPlus(root=str(tmp_path)).items("val")
    assert list(item.annotations) == ["object", "part"]


def test_collections_may_come_one_after_the_other(
    owners: dict[str, Path], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options in (
        ("--dtd", owners["dtd"]),
        ("--pascal_context", owners["pascal_context"], "--pascal_part", owners["pascal_part"]),
        ("--ade20k", owners["ade20k"]),
        ("--opensurfaces", owners["opensurfaces"]),
    ):
        code, out, _ = run(capsys, tmp_path, *options)
        assert code == 0
    assert "dtd: 4 images of an earlier run stay" in out
    assert content(tmp_path) == content(whole)


# What is wrong with the files


def test_broken_files_are_told_and_the_rest_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = collections(tmp_path / "owners")
    folder = options["ade20k"] / "images/training/a/airport_terminal"
    image, mask = folder / "ADE_train_00000001.jpg", folder / "ADE_train_00000002_seg.png"
    image.write_bytes(image.read_bytes()[:300])
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(mask)
    parts = options["pascal_part"] / "Annotations_Part/2008_000003.mat"
    parts.write_bytes(b"MATLAB 5.0")
    red = options["opensurfaces"] / f"photos-labels/{opensurfaces_numbers()[2]}.png"
    Image.fromarray(np.full((48, 64, 3), 46, np.uint8)).save(red)
    wide = options["opensurfaces"] / f"photos-labels/{opensurfaces_numbers()[3]}.png"
    Image.fromarray(np.full((48, 90, 3), 1, np.uint8)).save(wide)
    root = tmp_path / "broden"
    code, out, err = run(capsys, root, *words(options))
    assert code == 1
    assert len(err) == 5
    assert err[0].startswith(f"upernet: {image}: cannot be read as an image")
    assert err[1] == f"upernet: {mask}: 8×8 pixels for an image of 32×24 (ADE_train_00000002.jpg)"
    assert err[2].startswith(f"upernet: {parts}: cannot be read (")
    assert err[3] == f"upernet: {red}: value 46 is no label; valid: 0 to 45"
    assert err[4].startswith(f"upernet: {wide}: 90×48 pixels for an image of 32×24 (")
    assert "ade20k 2016_07_26: 5 images (2 failed), published: 22,210" in out
    assert "ade20k 2016_07_26: 22,203 missing, 2 broken; see report.json" in out
    assert problems(root, "ade20k", "broken") == [
        ("broken", f"ade20k/ADE_train_0000000{n}", f"images/training/a/airport_terminal/ADE_train_0000000{n}.jpg")
        for n in (1, 2)
    ]
    assert problems(root, "pascal", "broken") == [("broken", "pascal/2008_000003", "2008_000003.jpg")]
    source = BrodenPlus(root=str(root))
    assert list(source.faults("train")) == []
    assert len(source.items("train") + source.items("val")) == 39 - 5


def test_missing_and_unexpected_files_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = collections(tmp_path / "owners")
    folder = options["ade20k"] / "images/training"
    (folder / "a/airport_terminal/ADE_train_00000002_seg.png").unlink()
    shutil.copy(folder / "b/bathroom/ADE_train_00000008.jpg", folder / "m/misc/ADE_train_00000008.jpg")
    (folder / "m/misc").rename(folder / "m/moon_base")
    place = options["pascal_context"].parent
    (place / "VOC2010/JPEGImages/2008_000001.jpg").unlink()
    (place / "context/trainval/2008_000002.mat").unlink()
    (place / "part/Annotations_Part/2008_000003.mat").unlink()
    shutil.copy(place / "context/trainval/2008_000004.mat", place / "context/trainval/2011_000004.mat")
    (options["opensurfaces"] / f"photos/{opensurfaces_numbers()[1]}.jpg").unlink()
    (options["opensurfaces"] / f"photos-labels/{opensurfaces_numbers()[2]}.png").unlink()
    (options["opensurfaces"] / "photos/1.jpg").write_bytes(b"")
    (options["dtd"] / "images/banded/banded_0002.jpg").unlink()
    (options["dtd"] / "images/banded/banded_0009.jpg").write_bytes(b"")
    root = tmp_path / "broden"
    code, _, err = run(capsys, root, *words(options))
    assert (code, err) == (0, [])
    assert problems(root, "ade20k", "unexpected", "missing annotation", "unknown scene") == [
        (
            "missing annotation",
            "ade20k/ADE_train_00000002",
            "images/training/a/airport_terminal/ADE_train_00000002_seg.png",
        ),
        ("unknown scene", "ade20k/ADE_train_00000004", "images/training/m/moon_base/ADE_train_00000004.jpg"),
        ("unexpected", "ade20k/ADE_train_00000008", "images/training/m/moon_base/ADE_train_00000008.jpg"),
    ]
    assert ("missing", "ade20k/ADE_train_00000005", "ADE_train_00000005.jpg") in problems(root, "ade20k")
    assert problems(root, "pascal")[:4] == [
        ("missing", "pascal/2008_000001", str(place / "VOC2010/JPEGImages/2008_000001.jpg")),
        ("missing annotation", "pascal/2008_000002", str(place / "context/trainval/2008_000002.mat")),
        ("missing annotation", "pascal/2008_000003", str(place / "part/Annotations_Part/2008_000003.mat")),
        ("unexpected", "pascal/2011_000004", "2011_000004.mat"),
    ]
    one, two = opensurfaces_numbers()[1:3]
    assert problems(root, "opensurfaces")[:3] == [
        ("missing", f"opensurfaces/{one}", f"photos/{one}.jpg"),
        ("missing annotation", f"opensurfaces/{two}", f"photos-labels/{two}.png"),
        ("unexpected", "opensurfaces/1", "photos/1.jpg"),
    ]
    assert problems(root, "dtd")[:2] == [
        ("missing", "dtd/banded/banded_0002", "images/banded/banded_0002.jpg"),
        ("unexpected", "dtd/banded/banded_0009", "images/banded/banded_0009.jpg"),
    ]
    items = {i.id: i for split in ("train", "val") for i in BrodenPlus(root=str(root)).items(split)}
    assert "scene" not in items["ade20k/ADE_train_00000004"].annotations
    assert list(items["pascal/2008_000003"].annotations) == ["object"]
    assert {"ade20k/ADE_train_00000002", "pascal/2008_000002"}.isdisjoint(items)


def test_rows_without_labels_are_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = opensurfaces(tmp_path / "owners", size=(4, 6), rows=OPENSURFACES_ROWS)
    # Row 1,298 is the first that the official lists leave out.
    with (folder / "photos.csv").open("a") as file:
        file.writelines(f"{number},kitchen,50,CC\n" for number in range(OPENSURFACES_ROWS, 1300))
    assert run(capsys, tmp_path / "broden", "--opensurfaces", folder)[0] == 0
    assert problems(tmp_path / "broden", "opensurfaces", "skipped") == [
        ("skipped", "opensurfaces/1298", "photos/1298.jpg")
    ]


def test_a_full_disk_stops_at_once(
    owners: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, fill: object, **how: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(upernet.data.prepare.broden_plus, "write_whole", full)
    monkeypatch.setattr(upernet.data.prepare.broden_plus.BrodenPlusFolder, "_check_origins", lambda self: None)
    code, out, err = run(capsys, tmp_path, "--dtd", owners["dtd"])
    assert (code, out, len(err)) == (1, [], 1)
    assert err[0].endswith("No space left on device; finished files are kept, run the command again")


# ADE20K in 2021


def test_both_releases_give_the_same_labels(
    owners: dict[str, Path], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ade20k(tmp_path / "owners", "2021_17_01")
    code, out, err = run(capsys, tmp_path / "broden", "--ade20k", folder.parent)
    assert (code, err) == (0, [])
    assert out[0] == "ade20k 2021_17_01: 7 images, published: 22,210"
    assert "ade20k 2021_17_01: 22,203 missing, 1 unexpected; see report.json" in out
    assert "ade20k 2021_17_01: 1 names of objects are no class, as 'elevator, lift'; see report.json" in out
    assert "ade20k 2021_17_01: 1 names of parts are no class, as 'zipper'; see report.json" in out
    new, old = content(tmp_path / "broden"), content(whole)
    maps = {name: found for name, found in new.items() if name.split("/")[0] in ("object", "part", "images")}
    assert maps == {name: found for name, found in old.items() if name in maps}
    assert len(maps) == 7 + 7 + 6
    rows = [json.loads(line) for line in (tmp_path / "broden/records.jsonl").read_text().splitlines()]
    same = [json.loads(line) for line in (whole / "records.jsonl").read_text().splitlines()][:7]
    assert [row | {"original": ""} for row in rows] == [row | {"original": ""} for row in same]
    (unexpected,) = problems(tmp_path / "broden", "ade20k", "unexpected")
    path = f"images/ADE/{ADE_2021['ADE_frame_00000009']}/ADE_frame_00000009.jpg"
    assert unexpected == ("unexpected", "ade20k/ADE_frame_00000009", path)
    report = json.loads((tmp_path / "broden/report.json").read_text())["subsets"]["ade20k"]
    assert report["images with names of no class"] == {"object": {"elevator, lift": 7}, "part": {"zipper": 7}}
    line = told(capsys, tmp_path / "broden", "--ade20k", owners["ade20k"])
    release = "was begun with release 2021_17_01 of ade20k, not 2016_07_26; give another folder to write to"
    assert line == f"{tmp_path}/broden: {release}"
    before = content(tmp_path / "broden")
    assert run(capsys, tmp_path / "broden", "--ade20k", folder)[0] == 0
    assert content(tmp_path / "broden") == before


def test_annotations_of_2021_that_are_none_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ade20k(tmp_path / "owners", "2021_17_01", names=["ADE_train_00000001", "ADE_val_00000001"])
    (path,) = folder.rglob("ADE_train_00000001.json")
    path.write_text('{"annotation": {"object": [{"name": "wall"}]}}')
    (other,) = folder.rglob("ADE_val_00000001.json")
    other.unlink()
    code, _, err = run(capsys, tmp_path / "broden", "--ade20k", folder)
    assert (code, err) == (1, [f"upernet: {path}: no annotation of ADE20K (KeyError: 'parts')"])
    assert problems(tmp_path / "broden", "ade20k", "missing annotation") == [
        ("missing annotation", "ade20k/ADE_val_00000001", other.relative_to(folder).as_posix())
    ]


# Training files


def stacked(base: Path, *files: Path) -> dict[str, object]:
    """Tasks and data of a training file that others change."""
    recipes = [recipe for path in (base, *files) for recipe in read_recipe(str(path))]
    return merge_recipes(recipes, {"tasks": dict[str, Task], "data": DataConfig})[-1][1]


BASE = """
tasks:
  object: {class_path: upernet.tasks.Object, init_args: {labels: [wall, sky]}}
  part: {class_path: upernet.tasks.Part, init_args: {parts: {sky: [cloud]}}}
  scene: {class_path: upernet.tasks.Scene, init_args: {labels: [alley]}}
  material: {class_path: upernet.tasks.Material, init_args: {labels: [brick]}}
data:
  batch: 2
  sources:
    other: {dataset: {class_path: upernet.data.VOC, init_args: {root: x}}, targets: {object: {}}}
"""


def test_the_training_file_names_what_was_prepared(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    values = stacked(tmp_path / "base.yaml", whole / "recipe.yaml")
    assert list(values["tasks"]) == ["object", "part", "scene", "material"]  # type: ignore[call-overload]
    data = from_plain(DataConfig, values["data"], "data")
    assert data.batch == 2
    assert {n: (s.dataset.subsets, list(s.targets)) for n, s in data.sources.items()} == {  # type: ignore[attr-defined]
        "scene_parsing": (["ade20k", "pascal"], ["object", "part", "scene"]),
        "materials": (["opensurfaces"], ["material"]),
    }
    assert all(source.dataset.root == str(whole) for source in data.sources.values())
    for source in data.sources.values():
        assert source.dataset.items(str(source.train))
        assert source.dataset.items(str(source.val))
    texture = "tasks: {texture: {class_path: upernet.tasks.Texture, init_args: {labels: [banded]}}}\n"
    (tmp_path / "texture.yaml").write_text(texture)
    values = stacked(tmp_path / "texture.yaml", whole / "recipe_texture.yaml")
    data = from_plain(DataConfig, values["data"], "data")
    assert {n: (s.dataset.subsets, list(s.targets)) for n, s in data.sources.items()} == {
        "textures": (["dtd"], ["texture"])
    }  # type: ignore[attr-defined]
    data = from_plain(DataConfig, read_recipe(str(whole / "sources.yaml"))[0][1]["data"], "data")
    assert data.protocol == "paper"
    assert {name: list(source.targets) for name, source in data.sources.items()} == {
        "scene_parsing": ["object", "part", "scene"], "materials": ["material"], "textures": ["texture"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("shipped", "file", "sources"),
    [
        ("broden_plus/upp_r50.yaml", "recipe.yaml", ["scene_parsing", "materials"]),
        ("broden_plus/texture_stage.yaml", "recipe_texture.yaml", ["textures"]),
    ],
)
def test_the_training_files_change_the_shipped_ones(shipped: str, file: str, sources: list[str], whole: Path) -> None:
    values = stacked(Path(shipped), whole / file)
    tasks = from_plain(dict[str, Task], values["tasks"], "tasks")
    data = from_plain(DataConfig, values["data"], "data")
    bound = bind_sources(data, tasks)
    assert list(bound) == sources
    assert {key for source in bound.values() for key in source.supervision} == set(tasks)
    for source in bound.values():
        assert source.config.dataset.root == str(whole)
        assert source.items("train")
        assert source.items("val")


def test_tasks_that_cannot_be_learned_are_left_out(
    owners: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    root = tmp_path / "broden"
    assert run(capsys, root, "--pascal_context", owners["pascal_context"])[0] == 0
    assert list(stacked(tmp_path / "base.yaml", root / "recipe.yaml")["tasks"]) == ["object"]  # type: ignore[call-overload]
    assert not (root / "recipe_texture.yaml").exists()
    assert run(capsys, root, "--opensurfaces", owners["opensurfaces"])[0] == 0
    values = stacked(tmp_path / "base.yaml", root / "recipe.yaml")
    assert list(values["tasks"]) == ["object", "material"]  # type: ignore[call-overload]
    other = tmp_path / "textures"
    assert run(capsys, other, "--dtd", owners["dtd"])[0] == 0
    assert sorted(p.name for p in other.glob("*.yaml")) == ["recipe_texture.yaml", "sources.yaml"]


def test_a_split_without_images_is_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ade20k(tmp_path / "owners", names=["ADE_train_00000001"])
    assert run(capsys, tmp_path / "broden", "--ade20k", folder)[0] == 0
    content_of_file = read_recipe(str(tmp_path / "broden/recipe.yaml"))[0][1]
    source = from_plain(DataConfig, content_of_file["data"], "data").sources["scene_parsing"]
    assert (source.train, source.val) == ("train", None)


# Wrong use


def test_wrong_use_is_told(owners: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "broden"
    line = "prepare broden_plus: needs one or more of --ade20k, --pascal_context, --opensurfaces and --dtd, each with"
    assert told(capsys, root).startswith(line)
    line = f"--pascal_part {owners['pascal_part']}: needs --pascal_context too, which has the objects of Pascal images"
    assert told(capsys, root, "--pascal_part", owners["pascal_part"]) == line
    for option in ("ade20k", "pascal_context", "opensurfaces", "dtd"):
        assert told(capsys, root, f"--{option}", tmp_path / "none") == f"{tmp_path}/none: no such folder"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert told(capsys, root, "--ade20k", empty).startswith(
        f"{empty}: expected the full data set, ADE20K_2016_07_26 or"
    )
    assert told(capsys, root, "--pascal_context", empty).startswith(
        f"{empty}: no *.mat; expected the folder of Pascal-C"
    )
    assert told(capsys, root, "--opensurfaces", empty).startswith(
        f"{empty}: no photos.csv; expected photos.csv, photos/"
    )
    assert told(capsys, root, "--dtd", empty).startswith(
        f"{empty}: no folder images in it; expected images/<class>/*.jpg"
    )
    line = f"{owners['dtd']}: holds the originals of dtd; give another folder to write to"
    assert told(capsys, owners["dtd"], "--dtd", owners["dtd"]) == line
    images = owners["pascal_context"].parent / "VOC2010/JPEGImages"
    line = f"{images}: holds the originals of pascal; give another folder to write to"
    assert told(capsys, images, "--pascal_context", owners["pascal_context"]) == line
    line = "--dtd x: only for broden_plus, not for cityscapes; leave the option out"
    assert main(["prepare", "cityscapes", str(empty), "--dtd", "x"]) == 2
    assert capsys.readouterr().err == f"upernet: {line}\n"
    assert not root.exists()


def test_the_benchmark_of_150_classes_is_not_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("images/training", "annotations/training"):
        (tmp_path / "owners" / name).mkdir(parents=True)
    line = told(capsys, tmp_path / "broden", "--ade20k", tmp_path / "owners")
    assert line.startswith(f"{tmp_path}/owners: this is the benchmark of 150 classes, without parts; expected the full")


def test_two_releases_in_one_folder_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for release in ("2016_07_26", "2021_17_01"):
        ade20k(tmp_path / "owners", release, names=["ADE_train_00000001"])
    line = told(capsys, tmp_path / "broden", "--ade20k", tmp_path / "owners")
    assert line.startswith(f"{tmp_path}/owners: holds two releases; give one of ")


def test_images_of_pascal_are_found_or_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = pascal(tmp_path / "owners", names=["2008_000001"], lists=False)
    (place / "VOC2010").rename(tmp_path / "elsewhere")
    option = ("--pascal_context", place / "context")
    assert told(capsys, tmp_path / "broden", *option).startswith(
        f"{place}/context/trainval: no JPEGImages in it or near it"
    )
    code, out, _ = run(capsys, tmp_path / "broden", *option, "--voc2010", tmp_path / "elsewhere")
    assert (code, out[0]) == (0, "pascal: 1 images, published: 10,103")
    assert any("there is no ImageSets/Main/trainval.txt" in line for line in out)


def test_other_numbers_of_labels_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = pascal(tmp_path / "pascal", names=["2008_000001"])
    labels = place / "context/labels.txt"
    labels.write_text(labels.read_text().replace("440: wall", "440: floor"))
    line = f"{labels}: label 440 is 'floor'; in Pascal-Context it is 'wall'"
    assert told(capsys, tmp_path / "broden", "--pascal_context", place / "context") == line
    folder = opensurfaces(tmp_path / "os")
    colours = folder / "label-substance-colors.csv"
    colours.write_text(colours.read_text().replace("Brick", "Slate"))
    line = f"{colours}: colour 1 is 'Slate'; in OpenSurfaces it is 'brick'"
    assert told(capsys, tmp_path / "broden", "--opensurfaces", folder) == line
    (folder / "photos.csv").write_text("a,b\n1,2\n")
    colours.unlink()
    line = f"{folder}/photos.csv: no table of photographs ('photo_id'); expected a column photo_id"
    assert told(capsys, tmp_path / "broden", "--opensurfaces", folder) == line
    (dtd(tmp_path / "dtd") / "labels/labels_joint_anno.txt").unlink()
    assert told(capsys, tmp_path / "broden", "--dtd", tmp_path / "dtd").endswith(
        "'banded/banded_0002.jpg banded' per image"
    )


def test_help_loads_neither_torch_nor_scipy() -> None:
    code = "import sys, upernet.data.prepare; sys.exit(bool({'torch', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
