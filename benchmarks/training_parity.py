"""Does training take the same steps as MMSegmentation? Both on one machine, from the same weights, on the same crops.

    python benchmarks/training_parity.py [--steps 40] [--images 2] [--side 128]

In an environment that holds this package beside `mmsegmentation mmcv-lite==2.1.0 mmengine ftfy regex`. The network is
an R-50 layout of an eighth of the width, with new weights, both heads, SGD and the rates of the published recipes;
crops are made up. Three comparisons:

- each step from the same state, in float32 and in float64: before every step of MMSegmentation's run its weights,
  statistics and momentum are brought over, both take the step, and losses, weights and statistics are compared;
- free runs in float64, which differ only in the order of sums;
- free runs in float32, beside MMSegmentation's own with inputs changed by 1e-7: how far the run itself can be repeated.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 11
Step = Callable[[Tensor, Tensor, float], list[float]]


def reference() -> nn.Module:
    sys.modules["mmcv._ext"] = mock.MagicMock()  # compiled operations that no UPerNet uses
    import mmseg.models  # noqa: F401
    from mmseg.registry import MODELS

    shared = {"num_classes": CLASSES, "norm_cfg": {"type": "BN"}, "align_corners": False, "dropout_ratio": 0.0}
    widths = [32, 64, 128, 256]
    config = {
        "type": "EncoderDecoder",
        "backbone": {"type": "ResNetV1c", "depth": 50, "base_channels": 8, "stem_channels": 8, "norm_eval": False},
        "decode_head": {"type": "UPerHead", "in_channels": widths, "in_index": [0, 1, 2, 3], "channels": 16, **shared},
        "auxiliary_head": {
            "type": "FCNHead", "in_channels": 128, "in_index": 2, "channels": 16, "num_convs": 1,
            "concat_input": False, **shared,
        },
        "test_cfg": {"mode": "whole"},
    }  # fmt: skip
    torch.manual_seed(0)
    logging.disable(logging.INFO)  # a page per tensor
    model = MODELS.build(config)
    model.init_weights()
    return model.train()


def reference_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
    def step(x: Tensor, labels: Tensor, lr: float) -> list[float]:
        features, losses = model.backbone(x), []
        for head, weight in ((model.decode_head, 1.0), (model.auxiliary_head, 0.4)):
            z = F.interpolate(head(features), labels.shape[1:], mode="bilinear", align_corners=False)
            losses.append(weight * F.cross_entropy(z, labels, ignore_index=255, reduction="none").mean())
        return _update(optimizer, losses, lr)

    return step


def own(checkpoint: dict[str, Tensor]) -> nn.Module:
    """The same network here, opened from a file of the reference's."""
    import upernet
    from upernet.tasks import CrossEntropy

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "checkpoint.pth"
        torch.save({"state_dict": checkpoint}, file)
        network = upernet.load(file, device="cpu", reference=True).model.train()
    # As the reference has it: with channels innermost, batch norm sums in single precision on a CPU, not in double.
    network = network.to(memory_format=torch.contiguous_format)
    for module in network.modules():
        if isinstance(module, (nn.Dropout, nn.Dropout2d)):
            module.p = 0.0
    network.mean.zero_()  # both see inputs that are normalised already
    network.std.fill_(1)
    for task in network.tasks.values():
        task.losses = [CrossEntropy(average="all")]
    return network


def own_step(network: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
    from upernet.labels import IGNORE, ClassSets

    tasks = {n: network.tasks[n] for n in ("semantic", "auxiliary")}
    weights = {"semantic": 1.0, "auxiliary": 0.4}  # a file without configuration says nothing of weights

    def step(x: Tensor, labels: Tensor, lr: float) -> list[float]:
        target, logits, losses = labels.masked_fill(labels == 255, IGNORE), network(x, list(tasks)), []
        for name, task in tasks.items():
            z = F.interpolate(logits[name], labels.shape[1:], mode="bilinear", align_corners=False)
            if z.dtype == torch.float64:  # a task's loss is float32, whatever it is of
                loss = F.cross_entropy(z, target, ignore_index=IGNORE, reduction="none").mean()
            else:
                loss = task.loss(z, target, ClassSets.of(list(task.classes.names), task.classes, {}))
            losses.append(weights[name] * loss)
        return _update(optimizer, losses, lr)

    return step


def _update(optimizer: torch.optim.Optimizer, losses: list[Tensor], lr: float) -> list[float]:
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    torch.stack(losses).sum().backward()
    optimizer.step()
    return [loss.item() for loss in losses]


def crops(images: int, side: int, step: int) -> tuple[Tensor, Tensor]:
    """(B, 3, S, S) float32, normalised, and (B, S, S) int64 with 255 where unlabelled: smooth shapes with grain."""
    random = torch.Generator().manual_seed(step)
    shape = side, side
    coarse = torch.randn(images, 3, 8, 8, generator=random)
    x = F.interpolate(coarse, shape, mode="bicubic") + 0.3 * torch.randn(images, 3, *shape, generator=random)
    labels = torch.randint(CLASSES + 1, (images, 1, 8, 8), generator=random)
    labels[labels == CLASSES] = 255
    return x, F.interpolate(labels.float(), shape, mode="nearest")[:, 0].long()


class Pair:
    """Both networks with their optimizers, from the same weights."""

    def __init__(self, kind: torch.dtype = torch.float32):
        from upernet.config import OptimConfig
        from upernet.engine.optim import build_optimizer
        from upernet.store.dialects import mmseg

        self.config = OptimConfig(
            lr=0.01, momentum=0.9, weight_decay=5e-4, decay_all=True, power=0.9, min_lr=1e-4, min_lr_at_last_step=True
        )
        self.table = mmseg._TABLES["deep"]
        self.theirs = reference()
        self.ours = own(self.theirs.state_dict()).to(kind)
        self.theirs.to(kind)
        self.their_optimizer = torch.optim.SGD(self.theirs.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        self.our_optimizer = build_optimizer(self.ours, self.config)
        self.their_step = reference_step(self.theirs, self.their_optimizer)
        self.our_step = own_step(self.ours, self.our_optimizer)

    def rate(self, step: int, steps: int) -> float:
        from upernet.engine.optim import lr_factor

        return self.config.lr * lr_factor(self.config, step, steps)

    def state(self) -> dict[str, Tensor]:
        """Ours, by their keys."""
        return self.table.to_theirs({k: v for k, v in self.ours.state_dict().items() if k not in ("mean", "std")}, "")

    def bring_over(self) -> None:
        """Give ours their weights, statistics and momentum."""
        names = self.table.to_theirs({k: k for k, _ in self.ours.named_parameters()}, "")
        ours, theirs = dict(self.ours.named_parameters()), dict(self.theirs.named_parameters())
        for key, name in names.items():
            ours[name].data.copy_(theirs[key])
            momentum = self.their_optimizer.state[theirs[key]].get("momentum_buffer")
            if momentum is not None:
                self.our_optimizer.state[ours[name]]["momentum_buffer"] = momentum.clone()
        buffers = self.table.to_theirs({k: k for k, _ in self.ours.named_buffers() if k not in ("mean", "std")}, "")
        mine, given = dict(self.ours.named_buffers()), dict(self.theirs.named_buffers())
        for key, name in buffers.items():
            mine[name].copy_(given[key])


def relative(ours: list[float], theirs: list[float]) -> float:
    return max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))


def from_the_same_state(
    steps: int, images: int, side: int, kind: torch.dtype = torch.float32
) -> tuple[list[float], list[tuple[float, float]], list[float]]:
    """Relative differences after each step.

    Returns:
        Of the losses; of each tensor of weights, and that of what the step moved; of what it moved in statistics.
    """
    pair, losses, weights, statistics = Pair(kind), [], [], []
    for step in range(steps):
        pair.bring_over()
        x, labels = crops(images, side, step)
        x, lr = x.to(kind), pair.rate(step, steps)
        before = {k: v.clone() for k, v in pair.theirs.state_dict().items()}
        losses.append(relative(pair.our_step(x, labels, lr), pair.their_step(x, labels, lr)))
        after, ours = pair.theirs.state_dict(), pair.state()
        for key, value in after.items():
            if not value.is_floating_point():
                continue
            moved = (value - before[key]).norm().item()
            apart = (ours[key] - value).norm().item()
            if "running" in key:
                statistics.append(apart / max(moved, 1e-12))
            else:
                weights.append((apart / max(value.norm().item(), 1e-12), apart / max(moved, 1e-12)))
    return losses, weights, statistics


def free_runs(args: argparse.Namespace) -> None:
    shown = [s for s in (0, 1, 2, 4, 9, 19, 39) if s < args.steps]
    print(f"free runs, relative difference of the losses at step {', '.join(str(s + 1) for s in shown)}; at most")
    for name, kind, noise in (("float64", torch.float64, 0.0), ("float32", torch.float32, 1e-7)):
        pair = Pair(kind)
        apart = []
        for step in range(args.steps):
            x, labels = crops(args.images, args.side, step)
            lr = pair.rate(step, args.steps)
            ours, theirs = (run(x.to(kind), labels, lr) for run in (pair.our_step, pair.their_step))
            apart.append(relative(ours, theirs))
        print(f"  {name}, ours and theirs: {' '.join(f'{apart[s]:.0e}' for s in shown)}; {max(apart):.0e}")
        if not noise:
            continue
        first, second, apart = Pair(kind), Pair(kind), []
        for step in range(args.steps):
            x, labels = crops(args.images, args.side, step)
            lr = first.rate(step, args.steps)
            changed = x * (1 + noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(step)))
            apart.append(relative(first.their_step(changed, labels, lr), second.their_step(x, labels, lr)))
        print(f"  {name}, theirs and theirs: {' '.join(f'{apart[s]:.0e}' for s in shown)}; {max(apart):.0e}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=40)
    options.add_argument("--images", type=int, default=2, help="images in a batch")
    options.add_argument("--side", type=int, default=128, help="of a crop, in pixels")
    args = options.parse_args()
    for kind in (torch.float32, torch.float64):
        losses, weights, statistics = from_the_same_state(args.steps, args.images, args.side, kind)
        print(f"each of {args.steps} steps from the same state, {kind}: relative difference of the losses at most")
        print(f"  {max(losses):.1e}, of a tensor of weights {max(w for w, _ in weights):.1e}, of what a step moved")
        moves = torch.tensor([m for _, m in weights])
        print(f"  {moves.median():.1e} (median), {moves.max():.1e} (at most), statistics {max(statistics):.1e}")
    free_runs(args)


if __name__ == "__main__":
    main()
