"""Time and memory of parsing one 512×512 photograph with the model that ships inside.

    python benchmarks/predict_speed.py [--photo FILE] [--model upp-mini] [--runs 15] [--threads 2]

Model time is the network alone, on the photograph as the parser shows it; parsing adds reading, resizing and decoding
to maps at the photograph's size. Medians; CPU time counts all threads, and is steadier than wall time where others
work on the same machine.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

import upernet
from upernet.inference.views import network_input
from upernet.parse.pictures import to_picture

PHOTO = Path(__file__).parent.parent / "docs" / "images" / "chelsea.png"


def measure(run: Callable[[], object], runs: int) -> tuple[float, float]:
    """Median wall and CPU seconds."""
    run()
    wall, cpu = [], []
    for _ in range(runs):
        begin, begin_cpu = time.perf_counter(), time.process_time()
        run()
        wall.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - begin_cpu)
    return statistics.median(wall), statistics.median(cpu)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--photo", type=Path, default=PHOTO)
    options.add_argument("--model", default="upp-mini")
    options.add_argument("--runs", type=int, default=15)
    options.add_argument("--threads", type=int, default=2)
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    parser = upernet.load(args.model, device="cpu")
    photo = Image.open(args.photo).convert("RGB").resize((512, 512))
    x = network_input(to_picture(photo)[None], parser.inference)

    def network() -> None:
        with torch.inference_mode():
            parser.model(x)

    for name, run in (("model", network), ("parse", lambda: parser(photo))):
        wall, cpu = measure(run, args.runs)
        print(f"{name}: {wall:.3f} s wall, {cpu:.3f} s CPU (median of {args.runs}, {args.threads} threads)")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of the process: {peak:.2f} GiB; input to the network {tuple(x.shape)}")


if __name__ == "__main__":
    main()
