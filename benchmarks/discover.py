"""Visual knowledge over many generated label maps: time, memory, and the same tables from one process and from two.

    python benchmarks/discover.py [--images 1000 10000] [--size 128 128]

Every image has annotations of all five tasks with the classes of Broden+ (365 scenes, 335 objects, 427 channels of
parts, 25 materials, 47 textures), in blocks drawn at random: about a dozen objects in each. Annotations alone are used,
so that reading and counting are timed and no network is. Each call of `upernet discover` runs in a process of its own.
CPU time is that of the process and its workers, which is steadier than wall time where others work on the same machine.
Memory is the largest resident set of the process, and apart from that the largest one of its workers.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from upernet.data.items import Annotation, Item
from upernet.data.sets.broden_plus import broden_plus
from upernet.data.source import Source

BLOCK = 16
"""Side of a block of pixels with one label."""

CALL = """
import resource, sys
from upernet.cli import main
if __name__ == "__main__":
    code = main(sys.argv[1:])
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(sum(one.ru_utime + one.ru_stime for one in used), *(one.ru_maxrss for one in used), file=sys.stderr)
    sys.exit(code)
"""


@dataclass(kw_only=True)
class Maps(Source):
    """Images with label maps of all five tasks, made up when they are read."""

    root: str = "."
    images: int = 1000
    size: tuple[int, int] = (128, 128)

    @cached_property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """Task → names of its classes."""
        broden = broden_plus()
        parts = tuple(f"{name}/{part}" for name, own in broden["part"].items() for part in ("-", *own))
        maps = {"object": broden["object"], "material": broden["material"], "texture": broden["texture"]}
        return {"scene": tuple(broden["scene"]), "part": parts} | {task: tuple(names) for task, names in maps.items()}

    @property
    def annotations(self) -> dict[str, Annotation]:
        return {task: Annotation(names, task != "scene") for task, names in self.labels.items()}

    def items(self, split: str) -> list[Item]:
        return [Item(f"{i:07d}", Path(__file__)) for i in range(self.images)]

    def read(self, item: Item) -> tuple[np.ndarray, dict[str, Any]]:
        rng = np.random.default_rng(zlib.crc32(item.id.encode()))
        scene = int(rng.integers(365))
        coarse = (self.size[0] // BLOCK, self.size[1] // BLOCK)
        values: dict[str, Any] = {"scene": scene}
        for task, spread in (("object", 12), ("part", 12), ("material", 6), ("texture", 8)):
            # The classes follow from the scene, so that there is something to find.
            few = (scene * 7 + rng.integers(0, 2 * spread, spread)) % len(self.labels[task])
            drawn = rng.choice(few, coarse).astype(np.int16)
            values[task] = drawn.repeat(BLOCK, 0).repeat(BLOCK, 1)
        return np.full((*self.size, 3), scene % 256, np.uint8), values


def write_config(path: Path, images: int, size: tuple[int, int]) -> None:
    broden = broden_plus()
    kinds = {"scene": "Scene", "object": "Object", "part": "Part", "material": "Material", "texture": "Texture"}
    fields: dict[str, Any] = {"part": {"parts": broden["part"]}}
    fields |= {task: {"labels": list(broden[task])} for task in ("scene", "object", "material", "texture")}  # type: ignore[literal-required]
    tasks = {task: {"class_path": f"upernet.tasks.{kind}", "init_args": fields[task]} for task, kind in kinds.items()}
    dataset = {"class_path": "discover.Maps", "init_args": {"images": images, "size": list(size)}}
    source = {"dataset": dataset, "targets": {task: {"annotation": task} for task in kinds}}
    path.write_text(yaml.safe_dump({"tasks": tasks, "data": {"sources": {"drawn": source}}}))


@dataclass(frozen=True)
class Run:
    """A call.

    Attributes:
        seconds: Wall time.
        cpu: CPU time in seconds.
        own: Largest resident set of the process in MiB.
        worker: That of its largest worker.
        files: Hash of the names and contents of all files that it wrote.
    """

    seconds: float
    cpu: float
    own: float
    worker: float
    files: str


def run(folder: Path, config: Path, workers: int) -> Run:
    out = folder / f"{config.stem}-{workers}"
    script = folder / "call.py"
    script.write_text(CALL)
    words = ["discover", "--config", config, "--model", "none", "--out", out, "--workers", workers]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(script), *map(str, words)], env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(done.stderr)
    cpu, own, worker = map(float, done.stderr.split()[-3:])
    content = hashlib.sha256()
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        content.update(path.name.encode() + path.read_bytes())
    return Run(seconds, cpu, own / 1024, worker / 1024, content.hexdigest())


def time_counting(size: tuple[int, int], count: int = 20) -> float:
    """Milliseconds of CPU time in which one image's label maps are counted: the median."""
    from upernet.engine.knowledge.observation import Answer, Origin, observe
    from upernet.engine.knowledge.vocabulary import Vocabulary
    from upernet.labels import Labels

    source = Maps(images=count, size=size)
    labels = {task: Labels.of(source.labels[task]) for task in ("scene", "object", "part", "material", "texture")}
    vocabulary = Vocabulary(labels, frozenset(labels) - {"scene"}, frozenset({"-"}))
    seconds = []
    for item in source.items("val"):
        values = source.read(item)[1]
        answers = {task: Answer(Origin.ANNOTATED, value) for task, value in values.items()}
        start = time.process_time()
        observe(size[0] * size[1], answers, vocabulary)
        seconds.append(time.process_time() - start)
    return 1000 * statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--size", type=int, nargs=2, default=[128, 128])
    args = parser.parse_args()
    size = (args.size[0], args.size[1])
    print(f"counting one image of 512×512 pixels: {time_counting((512, 512)):.1f} ms of CPU time")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for images in args.images:
            config = folder / f"{images}.yaml"
            write_config(config, images, size)
            found = {workers: run(folder, config, workers) for workers in (1, 2)}
            for workers, one in found.items():
                workers_too = f", workers {one.worker:.0f} MiB" if workers > 1 else ""
                figures = f"{one.seconds:.0f} s, CPU {one.cpu:.0f} s, {one.own:.0f} MiB{workers_too}"
                print(f"{images:,} images of {size[1]}×{size[0]}, --workers {workers}: {figures}", flush=True)
            same = found[1].files == found[2].files
            print(f"{images:,} images: files of 1 and 2 workers {'are the same' if same else 'DIFFER'}", flush=True)


if __name__ == "__main__":
    main()
