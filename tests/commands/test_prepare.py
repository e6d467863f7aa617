"""`upernet prepare`: label maps from what Cityscapes and SBD publish."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_data import CITYSCAPES_IDS, SMALL, as_train_ids, blocks, cityscapes, sbd, voc, write_mat
from PIL import Image

import upernet.commands.prepare
from upernet.cli import main
from upernet.data import VOC, Cityscapes
from upernet.data.masks import read_mask
from upernet.data.prepare import PREPARATIONS
from upernet.data.prepare.jobs import Job, Outcome
from upernet.data.prepare.label_maps import LabelMap, Recipe
from upernet.data.prepare.preparation import Preparation, summary
from upernet.data.sets.voc import PALETTE


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, list[str], list[str]]:
    """Exit status, and the lines of the two streams."""
    code = main(["prepare", *map(str, words), "--workers", "1"])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err.splitlines()


def told(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line of a wrong use."""
    code, out, err = run(capsys, *words)
    assert (code, out, len(err)) == (2, [], 1)
    return err[0]


def unfinished(root: Path) -> list[Path]:
    return list(root.rglob("*.tmp"))


@pytest.fixture
def polygons(tmp_path: Path) -> Path:
    return cityscapes(tmp_path, train_ids=False, polygons=True)


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    """A VOC with SBD beside it, each where its archive puts it."""
    root = voc(tmp_path / "VOCdevkit" / "VOC2012", size=SMALL)
    sbd(tmp_path / "VOCdevkit" / "VOCaug" / "dataset", root)
    return root


# Cityscapes


@pytest.mark.parametrize("form", ["polygons", "label_ids"])
def test_cityscapes(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cityscapes(tmp_path, train_ids=False, **{form: True})  # type: ignore[arg-type]
    code, out, err = run(capsys, "cityscapes", tmp_path)
    assert (code, err) == (0, [])
    assert out == ["train: 4 label maps, published: 2,975", "val: 2 label maps, published: 500"]
    source = Cityscapes(root=str(tmp_path))
    for item in source.items("train") + source.items("val"):
        expected = as_train_ids(blocks(item.id, list(CITYSCAPES_IDS.values()), SMALL))
        stored = Image.open(item.annotations["mask"])  # type: ignore[arg-type]
        assert stored.mode == "L"
        np.testing.assert_array_equal(np.asarray(stored), expected)
        source.read(item)
    assert not list((tmp_path / "gtFine" / "test").rglob("*labelTrainIds*"))
    assert not unfinished(tmp_path)


def test_every_label_id_has_its_train_id(tmp_path: Path, spec_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cityscapes(tmp_path, train_ids=False, label_ids=True, counts={"val": 1})
    (path,) = tmp_path.rglob("*_labelIds.png")
    ids = np.full(SMALL, 255, np.uint8)  # -1
    ids.flat[:34] = range(34)
    Image.fromarray(ids).save(path)
    assert run(capsys, "cityscapes", tmp_path)[0] == 0
    table = json.loads((spec_dir / "cityscapes.json").read_text())["id_to_trainId"]
    (made,) = tmp_path.rglob("*_labelTrainIds.png")
    assert list(np.asarray(Image.open(made)).flat) == [table[str(i)] for i in range(34)] + [255] * (ids.size - 34)


def test_sound_maps_are_kept_and_others_made_again(polygons: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "cityscapes", polygons)[0] == 0
    maps = sorted((polygons / "gtFine" / "train").rglob("*_labelTrainIds.png"))
    good = {path: path.read_bytes() for path in maps}
    maps[0].write_bytes(good[maps[0]][:60])
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(maps[1])
    Image.fromarray(np.full(SMALL, 26, np.uint8)).save(maps[2])
    os.utime(maps[3], (1, 1))
    code, out, err = run(capsys, "cityscapes", polygons)
    assert (code, err) == (0, [])
    assert out[0] == "train: 4 label maps (1 were there), published: 2,975"
    assert out[1] == "val: 2 label maps (2 were there), published: 500"
    assert {path: path.read_bytes() for path in maps} == good
    assert maps[3].stat().st_mtime == 1


def test_one_bad_file_is_told_and_the_rest_is_made(polygons: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = sorted((polygons / "gtFine" / "train").rglob("*_polygons.json"))
    bad[0].write_text("{")
    content = json.loads(bad[1].read_text())
    bad[1].write_text(json.dumps({**content, "imgWidth": 40}))
    code, out, err = run(capsys, "cityscapes", polygons)
    assert code == 1
    assert out[0] == "train: 2 label maps (2 failed), published: 2,975"
    assert len(err) == 2
    assert err[0].startswith(f"upernet: {bad[0]}: not a polygon file of Cityscapes")
    image = bad[1].name.replace("_gtFine_polygons.json", "_leftImg8bit.png")
    assert err[1] == f"upernet: {bad[1]}: 40×24 pixels for an image of 32×24 ({image})"
    assert len(list(polygons.rglob("*_labelTrainIds.png"))) == 4


def test_a_thousand_faults_of_one_kind_do_not_flood(
    polygons: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upernet.commands.prepare, "SHOWN_FAULTS", 2)
    for path in polygons.rglob("*_polygons.json"):
        path.write_text("")
    code, _, err = run(capsys, "cityscapes", polygons)
    assert (code, len(err), err[-1]) == (1, 3, "upernet: and 4 more failed")


def test_label_ids_that_are_none_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cityscapes(tmp_path, train_ids=False, label_ids=True, counts={"val": 1})
    (path,) = tmp_path.rglob("*_labelIds.png")
    Image.fromarray(np.full(SMALL, 40, np.uint8)).save(path)
    code, _, err = run(capsys, "cityscapes", tmp_path)
    assert (code, err) == (1, [f"upernet: {path}: value 40 is no label id; valid: 0 to 33, or 255"])


def test_missing_images_are_told_but_need_not_be_there(polygons: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(polygons / "leftImg8bit" / "train" / "traintown0")
    for lines in (["train: 4 label maps, published: 2,975"], ["train: 4 label maps (4 were there), published: 2,975"]):
        code, out, err = run(capsys, "cityscapes", polygons)
        assert (code, err) == (0, [])
        assert out[:2] == [*lines, "train: 2 images in leftImg8bit, but annotations of 4"]


def test_polygons_are_compared_with_label_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cityscapes(tmp_path, train_ids=False, polygons=True, label_ids=True, counts={"train": 1, "val": 1})
    (path,) = (tmp_path / "gtFine" / "val").rglob("*_labelIds.png")
    ids = np.array(Image.open(path))
    ids[0, :3] = 24  # no person is drawn anywhere
    Image.fromarray(ids).save(path)
    code, out, _ = run(capsys, "cityscapes", tmp_path)
    assert code == 0
    assert out[2] == (
        "polygons as drawn here differ from labelIds in 0.002 of all pixels (a few thousandths, at edges, are usual), "
        "most of all in valtown0_000000_000019_gtFine_polygons.json: 0.0039"  # 3 of 2 × 768
    )
    for made in tmp_path.rglob("*_labelTrainIds.png"):
        made.unlink()
    ids[0, :3] = blocks("valtown0_000000_000019", list(CITYSCAPES_IDS.values()), SMALL)[0, :3]
    Image.fromarray(ids).save(path)
    assert len(run(capsys, "cityscapes", tmp_path)[1]) == 2


def test_wrong_folders_are_told(polygons: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = polygons / "leftImg8bit"
    line = f"upernet: {images}: no folder leftImg8bit in it; the right folder seems to be {polygons}"
    assert told(capsys, "cityscapes", images) == line
    shutil.rmtree(polygons / "gtFine")
    line = (
        f"upernet: {polygons}/gtFine: no *_gtFine_polygons.json or *_gtFine_labelIds.png in train/<city>/ or "
        "val/<city>/; get gtFine_trainvaltest.zip from https://www.cityscapes-dataset.com"
    )
    assert told(capsys, "cityscapes", polygons) == line


def test_a_folder_that_cannot_be_written_is_told(
    polygons: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "traintown1")
    line = f"{polygons}/gtFine/train/traintown1: cannot be written; copy the data set to a folder that can be"
    assert told(capsys, "cityscapes", polygons) == f"upernet: {line}"


def test_a_full_disk_stops_at_once(
    polygons: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, fill: object, **how: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(upernet.data.prepare.label_maps, "write_whole", full)
    code, out, err = run(capsys, "cityscapes", polygons)
    assert (code, out, len(err)) == (1, [], 1)
    assert err[0].endswith("No space left on device; finished files are kept, run the command again")


def test_an_interrupt_leaves_whole_files_and_the_next_run_the_rest(
    polygons: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save, count = Image.Image.save, 0

    def interrupted(self: Image.Image, file: Any, *words: Any) -> None:
        nonlocal count
        count += 1
        if count == 3:
            file.write(b"half a picture")
            raise KeyboardInterrupt
        save(self, file, *words)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", interrupted)
        assert run(capsys, "cityscapes", polygons) == (130, [], ["upernet: stopped"])
    assert len(list(polygons.rglob("*_labelTrainIds.png"))) == 2
    assert not unfinished(polygons)
    code, out, _ = run(capsys, "cityscapes", polygons)
    assert (code, out[0]) == (0, "train: 4 label maps (2 were there), published: 2,975")


def test_several_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cityscapes(tmp_path, train_ids=False, polygons=True)
    bad = sorted((tmp_path / "gtFine" / "val").rglob("*_polygons.json"))[0]
    bad.write_text("[")
    assert main(["prepare", "cityscapes", str(tmp_path), "--workers", "2"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "train: 4 label maps, published: 2,975",
        "val: 1 label maps (1 failed), published: 500",
    ]
    assert err.startswith(f"upernet: {bad}: not a polygon file of Cityscapes")
    item = Cityscapes(root=str(tmp_path)).items("train")[0]
    expected = as_train_ids(blocks(item.id, list(CITYSCAPES_IDS.values()), SMALL))
    np.testing.assert_array_equal(np.asarray(Image.open(item.annotations["mask"])), expected)  # type: ignore[arg-type]


COUNT = 500
"""More than are drawn before the interrupt arrives."""


@pytest.mark.skipif(os.name != "posix", reason="signals of a terminal")
def test_ctrl_c_stops_several_processes(tmp_path: Path) -> None:
    folder = tmp_path / "gtFine" / "train" / "aachen"
    folder.mkdir(parents=True)
    (tmp_path / "leftImg8bit").mkdir()
    road = {"label": "road", "polygon": [[0, 0], [2047, 0], [2047, 1023]]}
    for i in range(COUNT):
        content = {"imgHeight": 1024, "imgWidth": 2048, "objects": [road]}
        (folder / f"aachen_{i:06d}_000019_gtFine_polygons.json").write_text(json.dumps(content))
    words = [sys.executable, "-c", "import sys; from upernet.cli import main; sys.exit(main(sys.argv[1:]))"]
    process = subprocess.Popen(
        [*words, "prepare", "cityscapes", str(tmp_path), "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell starts what runs in the background deaf to Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    end = time.monotonic() + 60
    while len(list(tmp_path.rglob("*_labelTrainIds.png"))) < 3 and time.monotonic() < end:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "upernet: stopped\n")
    made = list(tmp_path.rglob("*_labelTrainIds.png"))
    assert 3 <= len(made) < COUNT
    assert not unfinished(tmp_path)
    for path in made:
        with Image.open(path) as image:
            image.load()


def test_the_real_label_ids(data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = data_dir / "samples" / "cityscapes"
    if not sample.is_dir():
        pytest.skip(f"no {sample}")
    shutil.copytree(sample, tmp_path / "cityscapes")
    (made,) = (tmp_path / "cityscapes").rglob("*_labelTrainIds.png")
    drawn = np.asarray(Image.open(made)).copy()
    made.unlink()
    assert run(capsys, "cityscapes", tmp_path / "cityscapes")[0] == 0
    # The sample's trainIds were drawn from polygons, its labelIds by another program: edges differ.
    assert (np.asarray(Image.open(made)) != drawn).mean() < 0.0025


# SBD


def test_voc_aug(devkit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "voc_aug", devkit)
    assert (code, err) == (0, [])
    assert out == [
        "SegmentationClassAug: 5 masks, published: 11,355",
        "train.txt: 4 images, published: 1,464",
        "val.txt: 2 images, published: 1,449",
        "aug.txt: 3 images, published: 9,118",
        "trainaug.txt: 7 images, published: 10,582",
    ]
    lists = devkit / "ImageSets" / "Segmentation"
    # SBD's train and val: 2008_000001 to 3 and the first image of VOC's train and of its val.
    added = ["2008_000001", "2008_000002", "2008_000003"]
    train = [f"2007_train_{i:06d}" for i in range(4)]
    assert (lists / "aug.txt").read_text().splitlines() == added
    assert (lists / "trainaug.txt").read_text().splitlines() == train + added
    with Image.open(devkit / "SegmentationClassAug" / "2008_000001.png") as mask:
        assert mask.mode == "P"
        np.testing.assert_array_equal(np.asarray(mask), blocks("sbd 2008_000001", [0, 8, 15], SMALL))
        assert mask.getpalette() == list(PALETTE)
    source = VOC(root=str(devkit))
    items = source.items("trainaug")
    assert [i.id for i in items] == train + added
    folders = ["SegmentationClass"] * 4 + ["SegmentationClassAug"] * 3
    assert [i.annotations["mask"].parent.name for i in items] == folders  # type: ignore[union-attr]
    for item in items:
        source.read(item)
    assert not unfinished(devkit)


@pytest.mark.parametrize(
    "place", ["VOC2012/benchmark_RELEASE/dataset", "benchmark_RELEASE/dataset", "../VOCaug/dataset"]
)
def test_sbd_is_found_near_by(place: str, devkit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = devkit.parent / place
    target.parent.mkdir(parents=True, exist_ok=True)
    (devkit.parent / "VOCaug" / "dataset").rename(target)
    assert run(capsys, "voc_aug", devkit)[0] == 0


@pytest.mark.parametrize("given", ["", "dataset", "dataset/cls", "dataset/../../VOCaug/dataset"])
def test_sbd_is_given(given: str, devkit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (devkit.parent / "VOCaug").rename(tmp_path / "VOCaug")
    assert run(capsys, "voc_aug", devkit, "--sbd", tmp_path / "VOCaug" / given)[0] == 0


def test_masks_that_are_there_are_kept(devkit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "voc_aug", devkit)[0] == 0
    mask = devkit / "SegmentationClassAug" / "2008_000001.png"
    mask.write_bytes(b"half")
    lists = devkit / "ImageSets" / "Segmentation"
    (lists / "trainaug.txt").write_text("2008_000001\n")
    code, out, _ = run(capsys, "voc_aug", devkit)
    assert (code, out[0]) == (0, "SegmentationClassAug: 5 masks (4 were there), published: 11,355")
    assert out[1] == "trainaug.txt: replaced; the list that was there had 1 images"
    with Image.open(mask) as image:
        image.load()


def test_bad_masks_are_told_and_lists_wait(devkit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from scipy.io import savemat

    folder = devkit.parent / "VOCaug" / "dataset" / "cls"
    (folder / "2008_000001.mat").write_bytes(b"MATLAB 5.0")
    write_mat(folder / "2008_000002.mat", np.zeros((8, 9), np.uint8))
    savemat(folder / "2008_000003.mat", {"LabelMap": np.zeros(SMALL)})
    write_mat(folder / "2007_train_000000.mat", np.full(SMALL, 21, np.uint8))
    (folder / "2007_val_000000.mat").unlink()
    code, out, err = run(capsys, "voc_aug", devkit)
    assert code == 1
    assert out == ["SegmentationClassAug: 0 masks (5 failed), published: 11,355"]
    expected = "; expected a MATLAB file with GTcls.Segmentation"
    by_file = {line.split(": ")[1].rsplit("/", 1)[-1]: line for line in err[:-1]}
    assert "no class map of SBD (" in by_file["2008_000001.mat"]
    assert by_file["2008_000001.mat"].endswith(expected)
    assert by_file["2008_000002.mat"].endswith(": 9×8 pixels for an image of 32×24 (2008_000002.jpg)")
    assert by_file["2008_000003.mat"].endswith(f": no class map of SBD ('GTcls'){expected}")
    assert by_file["2007_train_000000.mat"].endswith(": value 21 is no label; valid: 0 to 20")
    assert ": no such file; get benchmark.tgz" in by_file["2007_val_000000.mat"]
    assert err[-1] == "upernet: lists are not written: 3 masks that aug.txt would name are missing"
    assert not (devkit / "ImageSets/Segmentation/aug.txt").exists()


def test_a_mask_that_no_list_names_may_fail(devkit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (devkit.parent / "VOCaug/dataset/cls/2007_val_000000.mat").unlink()
    code, out, err = run(capsys, "voc_aug", devkit)
    assert (code, len(err)) == (1, 1)
    assert out[0] == "SegmentationClassAug: 4 masks (1 failed), published: 11,355"
    assert len(VOC(root=str(devkit)).items("trainaug")) == 7


def test_a_class_map_of_another_type_is_told(devkit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = devkit.parent / "VOCaug/dataset/cls/2008_000001.mat"
    write_mat(path, np.zeros(SMALL))  # type: ignore[arg-type]
    line = "GTcls.Segmentation holds float64 of shape (24, 32); expected uint8 of two dimensions"
    assert run(capsys, "voc_aug", devkit)[2][0] == f"upernet: {path}: {line}"


def test_a_missing_image_is_told(devkit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = devkit / "JPEGImages" / "2008_000001.jpg"
    path.unlink()
    code, _, err = run(capsys, "voc_aug", devkit)
    assert (code, err[0]) == (1, f"upernet: {path}: no such file")


def test_sbd_that_is_missing_or_incomplete_is_told(devkit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    origin = "get benchmark.tgz (1.4 GB) of SBD from http://home.bharathh.info/pubs/codes/SBD/download.html"
    line = f"upernet: --sbd {devkit}: no folder cls in it; valid: the folder dataset of SBD; {origin}"
    assert told(capsys, "voc_aug", devkit, "--sbd", devkit).startswith(line)
    dataset = devkit.parent / "VOCaug" / "dataset"
    names = (dataset / "val.txt").read_text()
    (dataset / "val.txt").write_text(names + "../../x\n")
    line = f"upernet: {dataset}: train.txt or val.txt holds '../../x'; expected image ids such as 2008_000002"
    assert told(capsys, "voc_aug", devkit) == line
    for name in ("train", "val"):
        (dataset / f"{name}.txt").write_text("")
    assert told(capsys, "voc_aug", devkit).startswith(f"upernet: {dataset}/train.txt: empty; expected one image id")
    (dataset / "val.txt").unlink()
    assert told(capsys, "voc_aug", devkit).startswith(f"upernet: {dataset}/val.txt: no such list; expected one image")
    shutil.rmtree(dataset)
    line = f"upernet: {dataset}: no such folder; give --sbd with the folder that holds cls/, train.txt and val.txt; "
    assert told(capsys, "voc_aug", devkit).startswith(line + origin)


def test_wrong_folders_of_voc_are_told(devkit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"upernet: {devkit.parent}: no folder JPEGImages in it; the right folder seems to be {devkit}"
    assert told(capsys, "voc_aug", devkit.parent) == line
    (devkit / "ImageSets/Segmentation/val.txt").unlink()
    assert told(capsys, "voc_aug", devkit).endswith("Segmentation/val.txt: no such split; found: train")


def test_without_scipy_it_is_told_how_to_install(
    devkit: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert told(capsys, "voc_aug", devkit).startswith("upernet: prepare needs scipy")
    assert not (devkit / "SegmentationClassAug").exists()


# Command


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["ade20k", "x"], "prepare: unknown data set 'ade20k'; valid: broden_plus, cityscapes, voc_aug"),
        (["cityscapes"], "prepare: needs one folder after cityscapes; for example upernet prepare cityscapes data/set"),
        (
            ["voc_aug", "x", "y"],
            "prepare: needs one folder after voc_aug; for example upernet prepare voc_aug data/set",
        ),
        (["cityscapes", "x", "--sbd", "y"], "--sbd y: only for voc_aug, not for cityscapes; leave the option out"),
    ],
)
def test_wrong_use_is_told(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, *words) == f"upernet: {line}"


def test_a_wrong_number_of_workers_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "cityscapes", "x", "--workers", "-1"]) == 2
    assert "--workers -1 is too small; valid: 0 (one per processor core) or more" in capsys.readouterr().err


QUICK = """
import sys
from upernet.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
print(*sorted({"torch", "scipy"} & set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize("words", [["--help"], ["cityscapes", "ROOT", "--workers", "1"]], ids=["help", "cityscapes"])
def test_no_torch(words: list[str], polygons: Path) -> None:
    words = [str(polygons) if word == "ROOT" else word for word in words]
    begun = subprocess.run(
        [sys.executable, "-c", QUICK, "prepare", *words], capture_output=True, text=True, check=False
    )
    assert (begun.returncode, begun.stderr.strip()) == (0, "")


def test_a_terminal_gets_a_bar(
    polygons: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert main(["prepare", "cityscapes", str(polygons), "--workers", "1"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("train: 4 label maps")
    assert "preparing" in err
    assert "6/6" in err


class Numbers(Preparation):
    """Label maps of 336 classes from arrays."""

    def __init__(self, root: str) -> None:
        self.root = Path(root)

    def jobs(self) -> list[Job]:
        recipe = Recipe(np.load, 336)
        return [LabelMap(recipe, path.with_suffix(".png"), None, path) for path in sorted(self.root.glob("*.npy"))]

    def finish(self, outcomes: Mapping[Job, Outcome]) -> Iterator[str]:
        yield f"numbers: {summary(list(outcomes.values()), 'label maps', 3)}"


def test_a_further_set_is_one_class_in_the_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PREPARATIONS, "numbers", Numbers)
    for number, value in enumerate((335, 65535, 336)):
        np.save(tmp_path / f"{number}.npy", np.full((2, 3), value, np.uint16))
    code, out, err = run(capsys, "numbers", tmp_path)
    assert (code, out) == (1, ["numbers: 2 label maps (1 failed), published: 3"])
    assert err == [f"upernet: {tmp_path}/2.npy: value 336 is no label; valid: 0 to 335"]
    assert [(read_mask(tmp_path / f"{n}.png") == v).all() for n, v in enumerate((335, 65535))] == [True, True]
