"""Images per second and core of `upernet prepare broden_plus`, and its memory over a run.

    python benchmarks/prepare_broden_plus.py [--images 60] [--workers 1 2] [--keep FOLDER]

Made-up originals of the usual dimensions and sizes of file, in the formats of their owners: ADE20K 2048×1536 with
parts, Pascal 500×375 with parts, OpenSurfaces 1600×1200, DTD 500×500. First every collection alone, in one process: CPU
time, which is steadier than wall time where others work on the same machine, and memory in MiB a quarter of the way
through and at the end. Then all together, in several processes: wall time. Last a second run, which only checks.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from upernet.data.prepare.broden_plus import BrodenPlusFolder
from upernet.data.prepare.jobs import run_jobs
from upernet.data.sets.broden_plus.ade20k import official_stem
from upernet.data.sets.broden_plus.tables import assignment, broden_plus

DISTINCT = 3
"""Made-up originals per collection; the others are copies of them under other names."""
GRAIN = 6
"""Noise of photographs, for which files are as large as in the collections."""


def photograph(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Smooth colours with grain."""
    coarse = Image.fromarray(rng.integers(0, 256, (height // 50, width // 50, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    return Image.fromarray((smooth + rng.normal(0, GRAIN, smooth.shape)).clip(0, 255).astype(np.uint8))


def patches(rng: np.random.Generator, values: list[int], width: int, height: int, side: int) -> np.ndarray:
    """A label map of patches."""
    coarse = rng.choice(values, (height // side + 1, width // side + 1))
    return coarse.repeat(side, 0).repeat(side, 1)[:height, :width]


def coded(numbers: np.ndarray) -> Image.Image:
    """Numbers as ADE20K colours them."""
    return Image.fromarray(np.stack([numbers // 256 * 10, numbers % 256, numbers * 0 + 1], -1).astype(np.uint8))


def save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **({"quality": 92} if path.suffix == ".jpg" else {}))


def make_ade20k(root: Path, count: int) -> dict[str, Path]:
    rng = np.random.default_rng(0)
    objects, parts = list(assignment("ade20k", "object")), [0, *assignment("ade20k", "part")]
    folder = root / "ADE20K_2016_07_26"
    for number in range(count):
        stem = folder / "images/training/k/kitchen" / official_stem(number)
        if number < DISTINCT:
            save(Path(f"{stem}.jpg"), photograph(rng, 2048, 1536))
            save(Path(f"{stem}_seg.png"), coded(patches(rng, objects, 2048, 1536, 90)))
            save(Path(f"{stem}_parts_1.png"), coded(patches(rng, parts, 2048, 1536, 40)))
        else:
            first = folder / "images/training/k/kitchen" / official_stem(number % DISTINCT)
            for ending in (".jpg", "_seg.png", "_parts_1.png"):
                os.link(f"{first}{ending}", f"{stem}{ending}")
    return {"ade20k": folder}


def make_pascal(root: Path, count: int) -> dict[str, Path]:
    rng = np.random.default_rng(1)
    part = np.dtype([("part_name", object), ("mask", object)])
    thing = np.dtype([("class", object), ("class_ind", object), ("mask", object), ("parts", object)])
    shorts = ["head", "torso", "llarm", "ruarm", "lhand", "luleg", "rlleg", "lfoot", "hair", "nose", "leye", "mouth"]
    for number in range(count):
        name = f"2008_{number:06d}"
        paths = [
            root / "VOC2010/JPEGImages" / f"{name}.jpg",
            root / "context/trainval" / f"{name}.mat",
            root / "part/Annotations_Part" / f"{name}.mat",
        ]
        if number >= DISTINCT:
            for path in paths:
                os.link(path.with_stem(f"2008_{number % DISTINCT:06d}"), path)
            continue
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
        save(paths[0], photograph(rng, 500, 375))
        labels = patches(rng, list(assignment("pascal", "object")), 500, 375, 40)
        savemat(paths[1], {"LabelMap": labels.astype(np.uint16)}, do_compression=True)
        objects = np.empty((1, 3), thing)
        for i in range(3):
            drawn, parts = patches(rng, list(range(40)), 500, 375, 20), np.empty((1, len(shorts)), part)
            for j, short in enumerate(shorts):
                parts[0, j] = (short, (drawn == j).astype(np.uint8))
            objects[0, i] = ("person", 15, np.ones((375, 500), np.uint8), parts)
        savemat(paths[2], {"anno": {"imname": name, "objects": objects}}, do_compression=True)
    return {"pascal_context": root / "context", "pascal_part": root / "part"}


def make_opensurfaces(root: Path, count: int) -> dict[str, Path]:
    rng = np.random.default_rng(2)
    root.mkdir(parents=True, exist_ok=True)
    with (root / "photos.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("photo_id", "scene_category_name"))
        writer.writerows((number, "kitchen") for number in range(count))
    for number in range(count):
        image, mask = root / "photos" / f"{number}.jpg", root / "photos-labels" / f"{number}.png"
        if number >= DISTINCT:
            for path in (image, mask):
                os.link(path.with_stem(str(number % DISTINCT)), path)
            continue
        save(image, photograph(rng, 1600, 1200))
        red = patches(rng, [0, *assignment("opensurfaces", "material")], 1365, 1024, 80)
        save(mask, Image.fromarray(np.stack([red, red, red], -1).astype(np.uint8)))
    return {"opensurfaces": root}


def make_dtd(root: Path, count: int) -> dict[str, Path]:
    rng = np.random.default_rng(3)
    textures = broden_plus()["texture"]
    names = [f"{textures[i % 47]}/{textures[i % 47]}_{i // 47 + 1:04d}.jpg" for i in range(count)]
    for number, name in enumerate(names):
        path = root / "images" / name
        if number < DISTINCT:
            save(path, photograph(rng, 500, 500))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(root / "images" / names[number % DISTINCT], path)
    (root / "labels").mkdir()
    (root / "labels/labels_joint_anno.txt").write_text("".join(f"{n} {n.split('/')[0]}\n" for n in names))
    return {"dtd": root}


MAKERS = {"ade20k": make_ade20k, "pascal": make_pascal, "opensurfaces": make_opensurfaces, "dtd": make_dtd}


def memory(name: str) -> float:
    """`VmRSS` or `VmHWM` (the peak) of this process in MiB, on Linux."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) / 1024


def prepare(options: dict[str, Path], root: Path, workers: int) -> Iterator[int]:
    """Prepare a folder; the number of images done, after each of them."""
    preparation = BrodenPlusFolder(str(root), **{name: str(path) for name, path in options.items()})
    outcomes = {}
    for done, outcome in enumerate(run_jobs(preparation.jobs(), workers), 1):
        assert not outcome.fault, outcome.fault
        outcomes[outcome.job] = outcome
        yield done
    list(preparation.finish(outcomes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60, help="per collection")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--keep", type=Path, help="a folder for the originals, made if it does not exist")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        originals = arguments.keep or Path(scratch) / "originals"
        options = {name: make(originals / name, arguments.images) for name, make in MAKERS.items()}
        titles = ("images/s of CPU", "RSS at ¼", "at the end", "peak at ¼", "at the end")
        print(f"{'one process':<14}" + "".join(f"{title:>17}" for title in titles))
        for name, given in options.items():
            list(prepare(given, Path(scratch) / f"warm {name}", 1))
            shutil.rmtree(Path(scratch) / f"warm {name}")
            Path("/proc/self/clear_refs").write_text("5")  # from here on the peak is that of the preparation
            early, start = (0.0, 0.0), time.process_time()
            for done in prepare(given, Path(scratch) / name, 1):
                if done == arguments.images // 4:
                    early = memory("VmRSS"), memory("VmHWM")
            speed = arguments.images / (time.process_time() - start)
            late = memory("VmRSS"), memory("VmHWM")
            figures = (f"{speed:.1f}", *(f"{value:.0f}" for value in (early[0], late[0], early[1], late[1])))
            print(f"{name:<14}" + "".join(f"{figure:>17}" for figure in figures))
        every = {name: path for given in options.values() for name, path in given.items()}
        count = arguments.images * len(MAKERS)
        for workers in arguments.workers:
            root = Path(scratch) / f"all {workers}"
            for title in ("all, new", "all, there"):
                start = time.perf_counter()
                list(prepare(every, root, workers))
                print(
                    f"{title}, {workers} processes: {count / (time.perf_counter() - start):.1f} images/s of wall time"
                )


if __name__ == "__main__":
    main()
