"""The training loop, step by step."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from rich.console import Console
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from upernet.config import InferenceConfig, OptimConfig, RunConfig
from upernet.contract import Task
from upernet.data.config import DataConfig
from upernet.data.mixture import LabelledSource, SourceMixture
from upernet.data.sample import Batch
from upernet.engine.evaluator import Result, evaluate_source
from upernet.engine.logs import RunLog, results_table, training_progress
from upernet.engine.optim import build_optimizer, lr_factor
from upernet.engine.preview import preview_sheet
from upernet.engine.processes import build_fabric
from upernet.engine.state import WORLD, flat_settings, read_state, write_state
from upernet.errors import UserError, WorkError
from upernet.inference.views import resize
from upernet.model import UPerNet
from upernet.store.native import save_model

LAST_SECONDS = 60
"""How long a process that reads images outlives the signal to stop; schedulers kill after 30."""


class Trainer:
    """One run: a model, its tasks and sources, and the folder that remembers it.

    Every step is a function of the weights before it and of (seed, step, rank): batches come from the mixture by step
    number and dropout is seeded by step. A run that was stopped and taken up again ends with the weights of one that
    was not.
    """

    def __init__(
        self,
        model: UPerNet,
        tasks: Mapping[str, Task],
        sources: Mapping[str, LabelledSource],
        *,
        data: DataConfig,
        optim: OptimConfig,
        run: RunConfig,
        inference: InferenceConfig,
    ):
        self.tasks, self.sources, self.optim, self.run, self.inference = (
            dict(tasks),
            dict(sources),
            optim,
            run,
            inference,
        )
        self.data = data
        self.settings = flat_settings(model=model.config, tasks=dict(tasks), data=data, optim=optim, run=run)
        self.folder = Path(run.out)
        self.step = self.validated = 0
        self.fabric = build_fabric(run, uneven=self._leaves_branches_out())
        self.settings[WORLD] = str(self.fabric.world_size)
        self.main = self.fabric.is_global_zero
        self.console = Console(stderr=True, quiet=not self.main)
        self.talk: Any = dist.new_group(backend="gloo") if self.fabric.world_size > 1 else None
        if self.fabric.world_size > 1 and self.fabric.device.type == "cuda":
            model = convert_sync_batchnorm(model)  # timm's: torch's own drops activations that lie in a norm
        self.plain_model = model.to(memory_format=torch.channels_last)
        self._freeze_all_but(optim.train_only)
        optimizer = build_optimizer(model, optim)
        self.model, self.optimizer = self.fabric.setup(self.plain_model, optimizer)
        self.ema = (
            AveragedModel(self.plain_model, multi_avg_fn=get_ema_multi_avg_fn(optim.ema))
            if optim.ema is not None
            else None
        )
        self.mixture = SourceMixture(
            self._teachers(),
            data,
            steps=run.steps * optim.accumulate,
            seed=run.seed,
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
        )
        for source in self._measured():
            source.items(str(source.config.val))  # what is missing there is told now, not at the first validation
        self.norms = _batch_norms(model)
        if optim.norm_momentum is not None:
            for norm in self.norms:
                norm.momentum = optim.norm_momentum

    def _teachers(self) -> list[LabelledSource]:
        """Sources that say something about a task that is trained.

        Raises:
            UserError: If a task is left without any, although its weights are fresh.
        """
        keys = {name: task.target or name for name, task in self.tasks.items() if self._trains(name)}
        training = [source for source in self.sources.values() if source.config.train is not None]
        taught = {key for source in training for key in source.targets}
        orphans = [name for name, key in keys.items() if key not in taught]
        if orphans and self.run.init is None:
            raise UserError(f"task {orphans[0]!r}: no source trains it; give one a target, or start from a run.init")
        return [source for source in training if source.targets.keys() & set(keys.values())]

    def _leaves_branches_out(self) -> bool:
        """Whether there may be parameters that a step does not use: of tasks, of decoder levels that none reads."""
        taught = [{n for n, t in self.tasks.items() if (t.target or n) in s.targets} for s in self._teachers()]
        whole = any(task.level == "fused" and not task.detach for task in self.tasks.values())
        return not whole or any(names != set(self.tasks) for names in taught)

    def _freeze_all_but(self, heads: list[str]) -> None:
        unknown = [name for name in heads if name not in self.tasks]
        if unknown:
            raise UserError(f"optim.train_only: {unknown[0]!r} is no task; tasks: {', '.join(self.tasks)}")
        if heads and self.run.init is None:
            raise UserError(
                f"optim.train_only: {heads} leaves the rest at random weights; name a trained model in run.init"
            )
        if heads:
            for name, parameter in self.plain_model.named_parameters():
                parameter.requires_grad_(any(name.startswith(f"heads.{head}.") for head in heads))

    def fit(self) -> list[Result]:
        """Train to the last step and return the last validation's results.

        Raises:
            KeyboardInterrupt: After Ctrl-C, once the current step is finished and saved.
            WorkError: If the loss is not a number, an image cannot be read or memory does not suffice; what was reached
                is saved before, unless the memory of a process other than the first did not suffice.
        """
        log = RunLog(self.folder, first_step=self.step) if self.main else None
        results: list[Result] = []
        # A finished step is never thrown away: Ctrl-C asks to stop, and the loop stops between two steps.
        with (
            _interruptible() as noted,
            training_progress(self.console, self.run.steps, self.step) as progress,
            closing(self._batches()) as batches,
        ):
            while True:
                if self._validation_due():
                    results = self._validate(log)
                if self.step == self.run.steps:
                    break
                begin = time.perf_counter()
                statistics = [buffer.clone() for buffer in self.plain_model.buffers()]
                try:
                    losses, waited = self._advance(batches)
                except WorkError:
                    # The step that failed has moved no weight, but its forward pass has moved the batch statistics.
                    for buffer, value in zip(self.plain_model.buffers(), statistics, strict=True):
                        buffer.copy_(value)
                    self._save()
                    raise
                interrupted = self._any(noted())
                progress.step(self.step, losses, waited, time.perf_counter() - begin)
                if log is not None and self.step % self.run.log_every == 0:
                    lr = max(group["lr"] for group in self.optimizer.param_groups)
                    log.training(self.step, progress.losses, lr=lr, seconds=progress.seconds, waiting=progress.waiting)
                if self.step == self.run.steps or interrupted or self.step % self.run.save_every == 0:
                    self._save()
                if interrupted:
                    self.console.print(f"stopped after step {self.step}; the same command goes on from there")
                    raise KeyboardInterrupt
        if log is not None:
            log.close()
        return results

    def _validation_due(self) -> bool:
        """Whether this step's validation has not been done, perhaps because the run was stopped before it."""
        due = self.step == self.run.steps or (self.run.val_every and self.step and self.step % self.run.val_every == 0)
        return bool(due) and self.validated < self.step

    def _validate(self, log: RunLog | None) -> list[Result]:
        results = self.validate()
        if log is not None:
            self.console.print(results_table(results, f"step {self.step}", self.inference))
            self._save_model(results)
            log.validation(self.step, results)
            picture = preview_sheet(self._evaluated(), self.tasks, self.sources, self.inference)
            if picture is not None:
                log.picture(self.step, picture)
        self.fabric.barrier()
        self.validated = self.step
        self._save()
        return results

    def _batches(self) -> Generator[Batch | UserError]:
        """The batches from this step on; once it is closed no process reads images any more."""
        first = self.step * self.optim.accumulate
        loader = DataLoader(
            self.mixture,
            batch_size=None,
            sampler=range(first, len(self.mixture)),
            num_workers=self.data.workers,
            pin_memory=self.fabric.device.type == "cuda",
            prefetch_factor=4 if self.data.workers else None,
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # its own seed shall not come from the generator that dropout draws from
        )
        batches = iter(loader)
        if self.data.workers and threading.current_thread() is threading.main_thread():
            # torch would tell of a worker's death in the middle of a step; asked for a batch it finds out by itself.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        yield from batches

    def _advance(self, batches: Iterator[Batch | UserError]) -> tuple[dict[str, float], float]:
        """One optimizer update. Returns losses by task and the seconds spent waiting for data.

        Raises:
            WorkError: If a batch cannot be read or does not fit into the memory, or a loss is not a number.
        """
        waited = 0.0
        self._set_modes()
        torch.backends.cudnn.benchmark = True  # crops have one size, for which the quickest algorithms are tried out
        factor = lr_factor(self.optim, self.step, self.run.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        seed = np.random.SeedSequence([self.run.seed, 3, self.step, self.fabric.global_rank])
        torch.manual_seed(int(seed.generate_state(1)[0]))
        # None rather than zero: a head that this step does not train must not be moved by momentum or decay.
        self.optimizer.zero_grad(set_to_none=True)
        told: dict[str, list[float]] = {}
        for _ in range(self.optim.accumulate):
            start = time.perf_counter()
            batch = _next(batches)
            if self._any(isinstance(batch, UserError)):
                raise batch if isinstance(batch, UserError) else WorkError("another process could not read its images")
            assert isinstance(batch, Batch)
            batch = batch.to(self.fabric.device)
            waited += time.perf_counter() - start
            try:
                parts = self.losses(batch)
                total = torch.stack([self.tasks[name].weight * loss for name, loss in parts.items()]).sum()
                self.fabric.backward(total / self.optim.accumulate)
            except torch.OutOfMemoryError as error:
                size, side = len(batch.ids), "×".join(str(n) for n in batch.pixels.shape[-2:])
                said = f"{size} crops of {side} do not fit into the memory of {self.fabric.device}"
                raise WorkError(f"{said}; lower data.batch, and raise optim.accumulate instead") from error
            # Read only now: a GPU is waited for once in a step.
            for name, value in zip(parts, self._mean(torch.stack(list(parts.values())).detach()), strict=True):
                told.setdefault(name, []).append(value)
                if not math.isfinite(value):
                    said = f"the {name} loss is {value} at step {self.step}"
                    raise WorkError(f"{said}; lower optim.lr or set optim.clip")
        if self.optim.clip is not None:
            norm = self.fabric.clip_gradients(
                self.model, self.optimizer, max_norm=self.optim.clip, error_if_nonfinite=False
            )
            # With fp16 an overflow is the scaler's business: it skips the step and lowers its scale.
            if norm is not None and not torch.isfinite(norm) and self.run.precision != "16-mixed":
                raise WorkError(f"the gradient is not finite at step {self.step}; lower optim.lr")
        self.optimizer.step()
        self.step += 1
        self._average()
        return {name: sum(values) / len(values) for name, values in told.items()}, waited

    def _any(self, told: bool) -> bool:
        """Whether any process says so; they must all stop, or none. Processors alone talk: no GPU is waited for."""
        if self.fabric.world_size == 1:
            return told
        count = torch.tensor(float(told))
        dist.all_reduce(count, group=self.talk)
        return bool(count > 0)

    def _mean(self, values: Tensor) -> list[float]:
        """Means over processes."""
        if self.fabric.world_size > 1:
            values = cast(Tensor, self.fabric.all_reduce(values, reduce_op="mean"))
        return values.tolist()

    @torch.no_grad()
    def _average(self) -> None:
        """Follow the weights. Buffers are averaged here: torch would average integer ones into wrong integers."""
        if self.ema is None or self.optim.ema is None:
            return
        first = int(self.ema.n_averaged) == 0
        before = [buffer.clone() for buffer in self.ema.module.buffers()]
        self.ema.update_parameters(self.plain_model)
        for buffer, mean in zip(self.ema.module.buffers(), before, strict=True):
            if buffer.is_floating_point() and not first:
                buffer.copy_(mean.lerp(buffer, 1 - self.optim.ema))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Loss of every task whose target is in the batch; no other branch is computed."""
        supervision = self.sources[batch.source].targets
        present = [n for n, task in self.tasks.items() if (task.target or n) in batch.targets and self._trains(n)]
        logits = self.model(batch.image.contiguous(memory_format=torch.channels_last), present)
        losses = {}
        for name in present:
            key = self.tasks[name].target or name
            target, z = batch.targets[key], logits[name]
            if target.ndim == 3 and z.ndim == 4:
                z = resize(z.float(), (target.shape[1], target.shape[2]), self.plain_model.logits_align_corners)
            losses[name] = self.tasks[name].loss(z, target, supervision[key].sets)
        return losses

    def _trains(self, name: str) -> bool:
        return not self.optim.train_only or name in self.optim.train_only

    def _set_modes(self) -> None:
        frozen = list(self.norms) if self.step >= self.optim.freeze_norm * self.run.steps else []
        if self.optim.train_only:
            self.model.eval()
            for name in self.optim.train_only:
                self.plain_model.heads[name].train()
        else:
            self.model.train()
            if self.optim.freeze_backbone_norm:
                frozen += _batch_norms(self.plain_model.backbone)
        for norm in frozen:
            norm.eval()

    def validate(self) -> list[Result]:
        """Measure the model (its moving average if there is one) on every source that has a validation split.

        In float32, like `evaluate`, whatever precision the training has.
        """
        model = self._evaluated()
        torch.backends.cudnn.benchmark = False  # images have many sizes
        if self.fabric.world_size > 1:
            for buffer in model.buffers():  # each process has seen other batches: the first one's are those of the run
                dist.broadcast(buffer, 0)
        rank, world = self.fabric.global_rank, self.fabric.world_size
        return [
            r
            for source in self._measured()
            for r in evaluate_source(model, self.tasks, source, self.inference, rank=rank, world=world)
        ]

    def _measured(self) -> list[LabelledSource]:
        return [source for source in self.sources.values() if source.config.val is not None]

    def _evaluated(self) -> UPerNet:
        model = self.plain_model if self.ema is None else cast(UPerNet, self.ema.module)
        return model.eval()

    def _save_model(self, results: list[Result]) -> None:
        measured = {f"{r.source}/{r.task}": {k: round(v, 4) for k, v in r.values.items()} for r in results}
        info = {"step": self.step, "seed": self.run.seed, "validation": measured}
        save_model(self.folder / "model", self._evaluated(), self.tasks, self.inference, info=info, half=self.run.half)

    def _save(self) -> None:
        if not self.main:
            return
        state = {
            "step": self.step,
            "validated": self.validated,
            "settings": self.settings,
            "model": self.plain_model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
        }
        write_state(self.folder, state)

    def resume(self) -> None:
        """Take up the run folder's last checkpoint, if there is one and `run.resume` does not forbid it.

        Raises:
            UserError: If the run was made with other settings, of which only its length and bookkeeping may change.
            WorkError: If the file is damaged.
        """
        state = read_state(self.folder, self.settings, self.run.steps, self.fabric.device) if self.run.resume else None
        if state is None:
            return
        self.plain_model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.step, self.validated = int(state["step"]), int(state["validated"])
        self.console.print(f"resuming {self.folder} at step {self.step}")


def _batch_norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def _next(batches: Iterator[Batch | UserError]) -> Batch | UserError:
    """The next batch, or what is wrong with it; also that a worker has died, mostly for want of memory."""
    try:
        return next(batches)
    except (RuntimeError, OSError, EOFError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        said = (str(error) or type(error).__name__).splitlines()[0]
        return WorkError(f"a process that reads images has died ({said}); lower data.workers")


def _start_worker(_: int) -> None:
    """Make a process that reads images one with one thread, which lives on when all are told to stop.

    The main process finishes its step first. Ended by itself, it ends this one too.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(LAST_SECONDS))


@contextmanager
def _interruptible() -> Iterator[Any]:
    """Within, the first Ctrl-C is only noted; the yielded function says whether it came. A second one acts at once.

    So is the signal with which torchrun and job schedulers end a process.
    """
    noted = False

    def note(signum: int, frame: Any) -> None:
        nonlocal noted
        if noted:
            raise KeyboardInterrupt
        noted = True

    signals = (signal.SIGINT, signal.SIGTERM)
    try:
        before = [signal.signal(one, note) for one in signals]
    except ValueError:  # not in the main thread, where Ctrl-C cannot be caught
        yield lambda: False
        return
    try:
        yield lambda: noted
    finally:
        for one, handler in zip(signals, before, strict=True):
            signal.signal(one, handler)
