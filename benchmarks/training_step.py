"""What does a step of training cost, beside MMSegmentation's? Time and memory of both, in one run.

    python benchmarks/training_step.py [--rounds 5] [--threads 1] [--batch 2] [--side 512] [--checkpoint none]

In an environment that holds this package, with `train`, beside `mmsegmentation mmcv-lite==2.1.0 mmengine ftfy regex`;
without them ours is measured alone. The network is that of `ade20k/upernet_r50_512x512_80k.yaml`: R-50 with an
auxiliary head, 150 classes, float32, SGD with momentum. A step is the forward pass, losses, the backward pass and the
optimiser, on made-up crops. Each implementation runs in a process of its own. They take turns, a step at a time, so
that other work on the machine slows all of them alike; the first step of each is not counted. Memory:

- tensors: the peak that PyTorch's allocator held in one more step, weights, gradients and momentum included;
- process: the peak of the process's resident memory over the counted steps, libraries included (Linux only).

`ours, plain` is our step as its formulas read: logits resized whole, maps resized and put together before the fusion,
and PyTorch's own gradients of convolutions.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn

from upernet.compare.costs import _peak_memory
from upernet.data.items import Annotation, Item
from upernet.data.sets import published_classes
from upernet.data.source import Source

CLASSES = 150
Step = Callable[[Tensor, Tensor], None]


@dataclass(kw_only=True)
class Noise(Source):
    """A source with the labels of ADE20K, whose images are never read."""

    root: str = "."

    @property
    def annotations(self) -> dict[str, Annotation]:
        return {"semantic": Annotation(tuple(published_classes("ade20k")), True)}

    def items(self, split: str) -> list[Item]:
        return [Item(str(i), Path(__file__), {"semantic": Path(__file__)}) for i in range(8)]


def mmsegmentation(args: argparse.Namespace) -> tuple[nn.Module, Step]:
    sys.modules["mmcv._ext"] = mock.MagicMock()  # compiled operations that no UPerNet uses
    logging.disable(logging.INFO)
    import mmseg.models  # noqa: F401
    from mmengine.structures import PixelData
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample

    shared = {
        "num_classes": CLASSES, "norm_cfg": {"type": "BN"}, "align_corners": False, "dropout_ratio": 0.1,
    }  # fmt: skip
    model = MODELS.build({
        "type": "EncoderDecoder",
        "backbone": {"type": "ResNetV1c", "depth": 50, "norm_eval": False},
        "decode_head": {
            "type": "UPerHead", "in_channels": [256, 512, 1024, 2048], "in_index": [0, 1, 2, 3], "channels": 512,
            "loss_decode": {"type": "CrossEntropyLoss", "loss_weight": 1.0}, **shared,
        },
        "auxiliary_head": {
            "type": "FCNHead", "in_channels": 1024, "in_index": 2, "channels": 256, "num_convs": 1,
            "concat_input": False, "loss_decode": {"type": "CrossEntropyLoss", "loss_weight": 0.4}, **shared,
        },
        "train_cfg": {}, "test_cfg": {"mode": "whole"},
    }).train()  # fmt: skip
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    def step(image: Tensor, labels: Tensor) -> None:
        samples = []
        for one in labels:
            sample = SegDataSample(metainfo={"img_shape": image.shape[2:]})
            sample.gt_sem_seg = PixelData(data=one[None])
            samples.append(sample)
        losses = model.loss((image.float() - mean) / std, samples)
        sum(loss for name, loss in losses.items() if "loss" in name).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)  # then, as its own loop does

    return model, step


def ours(args: argparse.Namespace, plain: bool) -> tuple[nn.Module, Step]:
    import upernet.engine.trainer as trainer_module
    from upernet.config import InferenceConfig, ModelConfig, OptimConfig, RunConfig
    from upernet.contract import Task
    from upernet.data.config import AugmentConfig, DataConfig, SourceConfig, TargetConfig
    from upernet.data.mixture import bind_sources
    from upernet.data.sample import Batch
    from upernet.model.build import build_model
    from upernet.model.decoder import ResizedConvBNReLU
    from upernet.tasks import CrossEntropy, Semantic

    average = [CrossEntropy(average="all")]
    tasks: dict[str, Task] = {
        "semantic": Semantic(labels="ade20k", losses=average),
        "auxiliary": Semantic(
            labels="ade20k", losses=average, level="c4", convs=1, width=256, target="semantic", weight=0.4,
            auxiliary=True,
        ),
    }  # fmt: skip
    data = DataConfig(
        sources={"noise": SourceConfig(dataset=Noise(), val=None, targets={"semantic": TargetConfig()})},
        augment=AugmentConfig(crop=(args.side, args.side)), batch=args.batch, workers=0,
    )  # fmt: skip
    trainer = trainer_module.Trainer(
        build_model(ModelConfig(), tasks), tasks, bind_sources(data, tasks), data=data,
        optim=OptimConfig(min_lr=1e-4), inference=InferenceConfig(),
        run=RunConfig(device="cpu", steps=1000, checkpoint=args.checkpoint),
    )  # fmt: skip
    if plain:
        Semantic.resized_loss = Task.resized_loss  # type: ignore[method-assign]
        trainer_module.QuickWeightGradients = nullcontext  # type: ignore[misc,assignment]
        for module in trainer.plain_model.modules():
            if isinstance(module, ResizedConvBNReLU):
                module.taps = False

    def step(image: Tensor, labels: Tensor) -> None:
        batch = Batch(image, {"semantic": labels}, "noise", [""] * len(image), [None] * len(image))
        trainer._train_step(iter([batch]))

    return trainer.plain_model, step


MAKERS: dict[str, Callable[[argparse.Namespace], tuple[nn.Module, Step]]] = {
    "mmsegmentation": mmsegmentation,
    "ours, plain": partial(ours, plain=True),
    "ours": partial(ours, plain=False),
}


def serve(pipe: Connection, name: str, args: argparse.Namespace) -> None:
    """Take a step whenever asked, and answer with wall time and CPU time in seconds; at the end with the peaks."""
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    try:
        network, step = MAKERS[name](args)
    except ImportError as error:
        pipe.send(str(error))
        return
    random = torch.Generator().manual_seed(0)
    image = torch.randint(256, (args.batch, 3, args.side, args.side), dtype=torch.uint8, generator=random)
    labels = torch.randint(CLASSES, (args.batch, args.side, args.side), generator=random)
    pipe.send(None)
    while pipe.recv():
        wall, cpu = time.perf_counter(), time.process_time()
        step(image, labels)
        pipe.send((time.perf_counter() - wall, time.process_time() - cpu))
    status = Path("/proc/self/status").read_text()
    process = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    # The profiler knows nothing of what is there before the step: weights, statistics and momentum.
    network.zero_grad(set_to_none=True)
    held = sum(t.nbytes for t in (*network.parameters(), *network.buffers()))
    held += sum(p.nbytes for p in network.parameters())
    tensors = _peak_memory(lambda: step(image, labels), torch.device("cpu"))
    pipe.send((held + (tensors or 0), process))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5, help="counted steps of each")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--batch", type=int, default=2, help="images in a batch")
    options.add_argument("--side", type=int, default=512, help="of a crop, in pixels")
    options.add_argument("--checkpoint", default="none", help="run.checkpoint of ours")
    options.add_argument(
        "--only", nargs="+", default=list(MAKERS), choices=MAKERS, help="the first one is the yardstick"
    )
    args = options.parse_args()
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for name in args.only:
        pipes[name], other = context.Pipe()
        context.Process(target=serve, args=(other, name, args), daemon=True).start()
        if missing := pipes[name].recv():
            print(f"{name}: {missing}", file=sys.stderr)
            del pipes[name]
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in pipes}
    for round in range(1 + args.rounds):
        for name, pipe in pipes.items():
            pipe.send(True)
            spent = pipe.recv()
            if round:
                times[name].append(spent)
    peaks = {}
    for name, pipe in pipes.items():
        pipe.send(False)
        peaks[name] = pipe.recv()
    first = next(iter(pipes))
    print(f"R-50, {args.side}×{args.side}, batch {args.batch}, {CLASSES} classes, float32, {args.threads} threads")
    print(f"medians of {args.rounds} steps; torch {torch.__version__}")
    print(f"ratios to {first}: times of {first} / this one, memory of this one / {first}")
    print(f"{'':16} {'CPU s':>7} {'wall s':>7} {'tensors GiB':>12} {'process GiB':>12}", end="")
    print(f" {'CPU':>7} {'wall':>5} {'tensors':>8} {'process':>8}")
    for name, own in times.items():
        wall, cpu = (statistics.median(one[i] for one in own) for i in (0, 1))
        pairs = list(zip(times[first], own, strict=True))
        faster = [statistics.median(theirs[i] / mine[i] for theirs, mine in pairs) for i in (1, 0)]
        tensors, process = peaks[name]
        smaller = [mine / theirs for mine, theirs in zip(peaks[name], peaks[first], strict=True)]
        print(
            f"{name:16} {cpu:7.2f} {wall:7.2f} {tensors / 2**30:12.2f} {process / 2**30:12.2f}  "
            f"{faster[0]:5.2f}× {faster[1]:4.2f}× {smaller[0]:7.2f}× {smaller[1]:7.2f}×"
        )


if __name__ == "__main__":
    main()
