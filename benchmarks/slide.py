"""Time of sliding windows over one picture, against the formula of other software, window by window.

    python benchmarks/slide.py [--size 1024 2048] [--window 769 769] [--stride 513 513] [--classes 19]
                               [--backbone resnet18] [--runs 5] [--threads 1]

The sizes are those of the recipes on Cityscapes. The formula is that of MMSegmentation's `slide_inference`: the logits
of each window are resized to the window's size, padded to the picture's and added up; the sum is divided by the number
of windows at each pixel, and the arg-max taken. "Tail" starts from the logits of all windows, "whole" from the picture,
with a small network of random weights. Medians of CPU time, in turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from upernet.compare.ours import seeded_network
from upernet.config import InferenceConfig, ModelConfig
from upernet.contract import Task
from upernet.inference.answers import Answers
from upernet.inference.sizes import sliding_windows
from upernet.inference.upsample import resize
from upernet.inference.views import Network, View, run_network
from upernet.resize import Size
from upernet.tasks import Semantic


def by_the_formula(view: View, size: Size) -> Tensor:
    """(1, H, W) class ids from the logits of all windows."""
    pieces = view.logits["semantic"]
    total = torch.zeros(1, pieces[0].shape[1], *size)
    count = torch.zeros(1, 1, *size)
    for window, piece in zip(view.windows, pieces, strict=True):
        around = (window.left, size[1] - window.right, window.top, size[0] - window.bottom)
        total += F.pad(resize(piece, window.size, view.align_corners), around)
        count[:, :, window.rows, window.columns] += 1
    return (total / count).argmax(1)


def by_bands(views: list[View], tasks: Mapping[str, Task], size: Size) -> Tensor:
    """(1, H, W) class ids from the logits of all windows."""
    bands = Answers(views, tasks).bands(size, ["semantic"])
    return torch.cat([band.ids["semantic"] for band in bands], 1)


def measure(runs: Mapping[str, Callable[[], Tensor]], times: int) -> None:
    """Print the median CPU time of each, in milliseconds, and the share of pixels on which both answers agree."""
    spent: dict[str, list[float]] = {name: [] for name in runs}
    answers: dict[str, Tensor] = {}
    for _ in range(times):
        for name, run in runs.items():
            begin = time.process_time()
            answers[name] = run()
            spent[name].append(time.process_time() - begin)
    for name, seconds in spent.items():
        print(f"  {name}: {1000 * statistics.median(seconds):.0f} ms")
    first, second = answers.values()
    print(f"  equal on {100 * (first == second).float().mean():.4f} % of the pixels")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", type=int, nargs=2, default=(1024, 2048))
    options.add_argument("--window", type=int, nargs=2, default=(769, 769))
    options.add_argument("--stride", type=int, nargs=2, default=(513, 513))
    options.add_argument("--classes", type=int, default=19)
    options.add_argument("--backbone", default="resnet18")
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--threads", type=int, default=1)
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    size, window, stride = ((a, b) for a, b in (args.size, args.window, args.stride))
    inference = InferenceConfig(window=window, stride=stride)
    tasks: dict[str, Task] = {"semantic": Semantic(labels=[f"class {i}" for i in range(args.classes)])}
    network = seeded_network(ModelConfig(backbone=args.backbone, width=32), tasks)
    image = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def show(how: Callable[[list[View]], Tensor], one: Network = network) -> Tensor:
        return how(run_network(one, image, inference, ["semantic"]))

    with torch.inference_mode():
        views = run_network(network, image, inference, ["semantic"])
        print(f"{len(sliding_windows(size, inference))} windows of {window[0]}×{window[1]}, {args.classes} classes")
        runs = {
            "by the formula": lambda v: by_the_formula(v[0], size),
            "by bands": lambda v: by_bands(v, tasks, size),
        }
        print("tail")
        measure({name: lambda run=run: run(views) for name, run in runs.items()}, args.runs)  # type: ignore[misc]
        print("whole")
        measure({name: lambda run=run: show(run) for name, run in runs.items()}, max(1, args.runs // 2))  # type: ignore[misc]


if __name__ == "__main__":
    main()
