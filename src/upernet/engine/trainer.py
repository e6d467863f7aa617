"""The training loop, step by step, and everything a run needs to be taken up again."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.fabric import Fabric
from rich.console import Console
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from upernet.checkpoint import save_model
from upernet.config import InferenceConfig, OptimConfig, RunConfig, UserError
from upernet.data.config import DataConfig
from upernet.data.mixture import LabelledSource, SourceMixture
from upernet.data.sample import Batch
from upernet.engine.evaluator import Result, evaluate_source
from upernet.engine.logs import RunLog, results_table, training_progress
from upernet.engine.optim import build_optimizer, lr_factor
from upernet.engine.preview import preview_sheet
from upernet.files import write_whole
from upernet.inference import resize
from upernet.model import UPerNet
from upernet.tasks.base import Task


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
        self.folder = Path(run.out)
        self.console = Console(stderr=True)
        self.step = 0
        self.fabric = Fabric(accelerator=run.device, devices=1, precision=run.precision)
        self.plain_model = model.to(memory_format=torch.channels_last)
        self._freeze_all_but(optim.train_only)
        optimizer = build_optimizer(model, optim)
        self.model, self.optimizer = self.fabric.setup(self.plain_model, optimizer)
        self.ema = (
            AveragedModel(self.plain_model, multi_avg_fn=get_ema_multi_avg_fn(optim.ema), use_buffers=True)
            if optim.ema is not None
            else None
        )
        self.mixture = SourceMixture(
            list(self.sources.values()),
            data,
            steps=run.steps * optim.accumulate,
            seed=run.seed,
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
        )
        self.norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        if optim.norm_momentum is not None:
            for norm in self.norms:
                norm.momentum = optim.norm_momentum

    def _freeze_all_but(self, heads: list[str]) -> None:
        unknown = [name for name in heads if name not in self.tasks]
        if unknown:
            raise UserError(f"optim.train_only: {unknown[0]!r} is no task; tasks: {', '.join(self.tasks)}")
        if heads:
            for name, parameter in self.plain_model.named_parameters():
                parameter.requires_grad_(any(name.startswith(f"heads.{head}.") for head in heads))

    def fit(self) -> list[Result]:
        """Train to the last step and return the last validation's results.

        Raises:
            KeyboardInterrupt: After Ctrl-C, once the current step is finished and saved.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        results: list[Result] = []
        log = RunLog(self.folder, first_step=self.step)
        # A finished step is never thrown away: Ctrl-C asks to stop, and the loop stops between two steps.
        with _interruptible() as interrupted, training_progress(self.console, self.run.steps, self.step) as progress:
            batches = self._batches()
            while self.step < self.run.steps:
                losses, waited, took = self._advance(batches)
                progress.step(self.step, losses, waited / took)
                if self.step % self.run.log_every == 0:
                    lr = max(group["lr"] for group in self.optimizer.param_groups)
                    log.training(self.step, progress.losses, lr=lr, seconds=took, waiting=waited / took)
                last = self.step == self.run.steps
                if last or interrupted() or self.step % self.run.save_every == 0:
                    self._save()
                if interrupted():
                    raise KeyboardInterrupt
                if last or (self.run.val_every and self.step % self.run.val_every == 0):
                    results = self.validate()
                    log.validation(self.step, results)
                    log.picture(self.step, preview_sheet(self._evaluated(), self.tasks, self.sources, self.inference))
                    self.console.print(results_table(results, f"step {self.step}"))
                    self._save_model(results)
        return results

    def _batches(self) -> Iterator[Batch]:
        first = self.step * self.optim.accumulate
        loader = DataLoader(
            self.mixture,
            batch_size=None,
            sampler=range(first, len(self.mixture)),
            num_workers=self.data.workers,
            pin_memory=self.fabric.device.type == "cuda",
            prefetch_factor=4 if self.data.workers else None,
            worker_init_fn=_one_thread,
        )
        return iter(loader)

    def _advance(self, batches: Iterator[Batch]) -> tuple[dict[str, float], float, float]:
        """One optimizer update. Returns losses by task, seconds spent waiting for data, and seconds in all."""
        begin, waited = time.perf_counter(), 0.0
        self._set_modes()
        factor = lr_factor(self.optim, self.step, self.run.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        seed = np.random.SeedSequence([self.run.seed, 3, self.step, self.fabric.global_rank])
        torch.manual_seed(int(seed.generate_state(1)[0]))
        # None rather than zero: a head that this step does not train must not be moved by momentum or decay.
        self.optimizer.zero_grad(set_to_none=True)
        losses: dict[str, Tensor] = {}
        for _ in range(self.optim.accumulate):
            start = time.perf_counter()
            batch = next(batches).to(self.fabric.device)
            waited += time.perf_counter() - start
            parts = self.losses(batch)
            total = sum((self.tasks[name].weight * loss for name, loss in parts.items()), torch.zeros(()))
            if total.requires_grad:
                self.fabric.backward(total / self.optim.accumulate)
            losses |= {name: loss.detach() for name, loss in parts.items()}
        if self.optim.clip is not None:
            self.fabric.clip_gradients(self.model, self.optimizer, max_norm=self.optim.clip, error_if_nonfinite=False)
        self.optimizer.step()
        self.step += 1
        if self.ema is not None:
            self.ema.update_parameters(self.plain_model)
        values = {name: loss.item() for name, loss in losses.items()}
        wrong = [name for name, value in values.items() if value != value]
        if wrong:
            raise UserError(
                f"the {wrong[0]} loss is not a number at step {self.step}; lower optim.lr or set optim.clip"
            )
        return values, waited, time.perf_counter() - begin

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Loss of every task whose target is in the batch; no other branch is computed."""
        supervision = self.sources[batch.source].targets
        present = [n for n, task in self.tasks.items() if (task.target or n) in batch.targets and self._trains(n)]
        if not present:
            return {}
        logits = self.model(batch.image.contiguous(memory_format=torch.channels_last), present)
        losses = {}
        for name in present:
            key = self.tasks[name].target or name
            target, z = batch.targets[key], logits[name]
            if target.ndim == 3 and z.ndim == 4:
                z = resize(z.float(), (target.shape[1], target.shape[2]), self.plain_model.config.align_corners)
            losses[name] = self.tasks[name].loss(z, target, supervision[key].sets)
        return losses

    def _trains(self, name: str) -> bool:
        return not self.optim.train_only or name in self.optim.train_only

    def _set_modes(self) -> None:
        if self.optim.train_only:
            self.model.eval()
            for name in self.optim.train_only:
                self.plain_model.heads[name].train()
            return
        self.model.train()
        if self.step >= self.optim.freeze_norm * self.run.steps:
            for norm in self.norms:
                norm.eval()

    def validate(self) -> list[Result]:
        """Measure the model (its moving average if there is one) on every source that has a validation split."""
        model = self._evaluated()
        with self.fabric.autocast():
            return [
                result
                for source in self.sources.values()
                if source.config.val is not None
                for result in evaluate_source(model, self.tasks, source, self.inference)
            ]

    def _evaluated(self) -> UPerNet:
        model = self.plain_model if self.ema is None else cast(UPerNet, self.ema.module)
        return model.eval()

    def _save_model(self, results: list[Result]) -> None:
        measured = {f"{r.source}/{r.task}": {k: round(v, 4) for k, v in r.values.items()} for r in results}
        info = {"step": self.step, "seed": self.run.seed, "validation": measured}
        save_model(self.folder / "model", self._evaluated(), self.tasks, self.inference, info=info, half=self.run.half)

    @property
    def _state_file(self) -> Path:
        return self.folder / "state.pt"

    def _save(self) -> None:
        state = {
            "step": self.step,
            "model": self.plain_model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
        }
        write_whole(self._state_file, partial(torch.save, state))

    def _resume(self) -> None:
        if not (self.run.resume and self._state_file.is_file()):
            return
        try:
            state = torch.load(self._state_file, map_location=self.fabric.device, weights_only=True)
            self.plain_model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.ema is not None:
                self.ema.load_state_dict(state["ema"])
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{self._state_file}: cannot go on from it ({reason}); choose another --run.out") from error
        self.step = state["step"]
        self.console.print(f"resuming {self.folder} at step {self.step}")


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process decides when to stop


@contextmanager
def _interruptible() -> Iterator[Any]:
    """Within, the first Ctrl-C is only noted; the yielded function says whether it came. A second one acts at once."""
    noted = False

    def note(signum: int, frame: Any) -> None:
        nonlocal noted
        if noted:
            raise KeyboardInterrupt
        noted = True

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:  # not in the main thread, where Ctrl-C cannot be caught
        yield lambda: False
        return
    try:
        yield lambda: noted
    finally:
        signal.signal(signal.SIGINT, before)
