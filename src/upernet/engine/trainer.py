"""The training loop, step by step."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from rich.console import Console
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn

from upernet.config import InferenceConfig, OptimConfig, RunConfig
from upernet.contract import Task
from upernet.data.config import DataConfig
from upernet.data.faults import Skipped
from upernet.data.mixture import LabelledSource, SourceMixture
from upernet.data.sample import Batch
from upernet.engine.batches import batches, next_batch
from upernet.engine.ema import MovingAverage
from upernet.engine.evaluator import Result, evaluate_source
from upernet.engine.interrupts import interruptible
from upernet.engine.logs import RunLog, results_table, training_progress
from upernet.engine.norms import use_cumulative_norms
from upernet.engine.optim import build_optimizer, lr_factor
from upernet.engine.preview import preview_sheet
from upernet.engine.processes import build_fabric
from upernet.engine.skipped import SkippedImages
from upernet.engine.state import WORLD, flat_defaults, flat_settings, read_state, write_state
from upernet.errors import UserError, WorkError
from upernet.model import UPerNet
from upernet.model.decoder import MergingConv
from upernet.model.weight_gradients import QuickWeightGradients
from upernet.screen import printable
from upernet.store.native import save_model
from upernet.tasks.losses import average_over_own_batch


class Trainer:
    """One training run: a model, its tasks and sources, and the run folder.

    Every step is a function of the weights before it and of (seed, step, rank): batches come from the mixture by step
    number, and dropout is seeded by step. A run that was stopped and resumed ends with the same weights as a run that
    was not.

    Attributes:
        model: The network as Fabric wraps it, for the forward pass of a step.
        plain_model: The same network without the wrapper.
        ema: The moving average of its weights; none if `optim.ema` is none.
        step: Finished steps.
        validated: The step of the last validation.
        skipped: Images left out because of a fault, by any process.
        is_first: Whether this is the first process, which alone logs and saves.
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
        self.tasks, self.sources = dict(tasks), dict(sources)
        self.data, self.optim, self.run, self.inference = data, optim, run, inference
        blocks = {"model": model.config, "tasks": dict(tasks), "data": data, "optim": optim, "run": run}
        self.settings, self.defaults = flat_settings(**blocks), flat_defaults(**blocks) | {WORLD: "1"}
        self.folder = Path(run.out)
        self.step = self.validated = 0
        self.fabric = build_fabric(run, uneven=self._may_skip_parameters())
        self.settings[WORLD] = str(self.fabric.world_size)
        self.is_first = self.fabric.is_global_zero
        self.console = Console(stderr=True, quiet=not self.is_first)
        self.skipped = SkippedImages(lambda line: self.console.print(printable(line), markup=False, soft_wrap=True))
        # Flags travel between processors, so that no GPU is waited for.
        self.flag_group: Any = dist.new_group(backend="gloo") if self.fabric.world_size > 1 else None
        if optim.norm_rule == "cumulative":
            self._use_cumulative_norms(model)
        elif self.fabric.world_size > 1 and self.fabric.device.type == "cuda":
            model = convert_sync_batchnorm(model)  # timm's: torch's own drops activations that lie in a norm
        self.plain_model = model.to(memory_format=torch.channels_last)
        self.plain_model.checkpoint = run.checkpoint
        for module in model.modules():
            if isinstance(module, MergingConv):
                module.taps = True
        self._freeze_all_but(optim.train_only)
        # The scaler of half precision looks into fused optimisers, which gradients that are clipped first do not allow.
        optimizer = build_optimizer(model, optim, fused=run.precision != "16-mixed")
        self.model, self.optimizer = self.fabric.setup(self.plain_model, optimizer)
        self.ema = None if optim.ema is None else MovingAverage(self.plain_model, optim.ema)
        self.mixture = SourceMixture(
            self._training_sources(),
            data,
            steps=run.steps,
            seed=run.seed,
            accumulate=optim.accumulate,
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
        )
        for source in self._validation_sources():
            source.items(str(source.config.val))  # missing files are told now, not at the first validation
        self.norms = _batch_norms(model)
        if optim.norm_momentum is not None:
            for norm in self.norms:
                norm.momentum = optim.norm_momentum

    def _use_cumulative_norms(self, model: UPerNet) -> None:
        """Replace the batch norms that will train. The others stay in evaluation mode, where both rules agree."""
        heads = [model.heads[name] for name in self.optim.train_only if name in self.tasks]
        body = [] if self.optim.freeze_backbone_norm else [model.backbone]
        for part in heads or [*body, model.decoder, model.heads]:
            use_cumulative_norms(part)

    def _training_sources(self) -> list[LabelledSource]:
        """Sources that label a task that is trained.

        Raises:
            UserError: If no source labels a task whose weights are fresh, or the one label of an image would cover the
                padding of its batch.
        """
        keys = {name: task.target or name for name, task in self.tasks.items() if self._is_trained(name)}
        training = [source for source in self.sources.values() if source.config.train is not None]
        labelled = {key for source in training for key in source.supervision}
        unlabelled = [name for name, key in keys.items() if key not in labelled]
        if unlabelled and self.run.init is None:
            raise UserError(f"task {unlabelled[0]!r}: no source trains it; give one a target, or start from a run.init")
        for name, source in ((n, s) for s in training for n, key in keys.items() if key in s.supervision):
            whole_image = not source.supervision[keys[name]].dense
            if whole_image and self.tasks[name].maps and (source.config.augment or self.data.augment).short_sides:
                problem = f"task {name!r} would learn an image's one label on the padding of augment.short_sides too"
                hint = f"give data.sources.{source.name}.augment crops, such as {{crop: [512, 512]}}"
                raise UserError(f"source {source.name!r}: {problem}; {hint}")
        return [source for source in training if source.supervision.keys() & set(keys.values())]

    def _may_skip_parameters(self) -> bool:
        """Whether a step may leave parameters unused: heads of other tasks, decoder levels that no head reads."""
        tasks_by_source = [
            {n for n, t in self.tasks.items() if (t.target or n) in s.supervision} for s in self._training_sources()
        ]
        whole = any(task.level == "fused" and not task.detach for task in self.tasks.values())
        return not whole or any(names != set(self.tasks) for names in tasks_by_source)

    def _freeze_all_but(self, heads: list[str]) -> None:
        """Freeze everything but the heads of these tasks; an empty list freezes nothing.

        Raises:
            UserError: If there is no such task, or the rest has fresh weights.
        """
        unknown = [name for name in heads if name not in self.tasks]
        if unknown:
            raise UserError(f"optim.train_only: {unknown[0]!r} is not a task; tasks: {', '.join(self.tasks)}")
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
            WorkError: If a loss is not a number, an image cannot be read or memory does not suffice. The finished steps
                are saved before, unless it was a process other than the first that ran out of memory.
        """
        log = RunLog(self.folder, first_step=self.step) if self.is_first else None
        self.skipped.add(self.mixture.skipped)
        results: list[Result] = []
        # Ctrl-C stops the loop between two steps, so that no finished step is lost.
        with (
            interruptible() as signalled,
            training_progress(self.console, self.run.steps, self.step) as progress,
            closing(self._batches()) as iterator,
        ):
            while True:
                if self._validation_due():
                    results = self._validate(log)
                if self.step == self.run.steps:
                    break
                begin = time.perf_counter()
                statistics = [buffer.clone() for buffer in self.plain_model.buffers()]
                try:
                    losses, waited = self._train_step(iterator)
                except WorkError:
                    # The step that failed has moved no weight, but its forward pass has moved the batch statistics.
                    for buffer, value in zip(self.plain_model.buffers(), statistics, strict=True):
                        buffer.copy_(value)
                    self._save()
                    raise
                interrupted = self._in_any_process(signalled())
                progress.step(self.step, losses, waited, time.perf_counter() - begin)
                if log is not None and self.step % self.run.log_every == 0:
                    lr = max(group["lr"] for group in self.optimizer.param_groups)
                    log.training(
                        self.step,
                        progress.losses,
                        self.skipped.counts,
                        lr=lr,
                        seconds=progress.seconds,
                        waiting=progress.waiting,
                    )
                if self.step == self.run.steps or interrupted or self.step % self.run.save_every == 0:
                    self._save()
                if interrupted:
                    self.console.print(f"stopped after step {self.step}; the same command goes on from there")
                    raise KeyboardInterrupt
        if log is not None:
            log.close()
        if self.skipped.known:
            self.console.print(printable(str(self.skipped)), markup=False, soft_wrap=True)
        return results

    def _validation_due(self) -> bool:
        """Whether this step is to be validated and has not been, perhaps because the run was stopped before."""
        due = self.step == self.run.steps or (self.run.val_every and self.step and self.step % self.run.val_every == 0)
        return bool(due) and self.validated < self.step

    def _validate(self, log: RunLog | None) -> list[Result]:
        results = self.validate()
        if log is not None:
            self.console.print(results_table(results, f"step {self.step}", self.inference))
            self._save_model(results)
            log.validation(self.step, results)
            model, device = self._evaluated_model(), self.fabric.device
            picture = preview_sheet(model, self.tasks, self.sources, self.inference, device)
            if picture is not None:
                log.picture(self.step, picture)
        self.fabric.barrier()
        self.validated = self.step
        self._save()
        return results

    def _batches(self) -> Generator[Batch | UserError]:
        """The batches from this step on."""
        return batches(
            self.mixture,
            self.step * self.optim.accumulate,
            workers=self.data.workers,
            pin_memory=self.fabric.device.type == "cuda",
        )

    def _train_step(self, iterator: Iterator[Batch | UserError]) -> tuple[dict[str, float], float]:
        """One optimizer update. Returns losses by task and the seconds spent waiting for data.

        Raises:
            WorkError: If a batch cannot be read or does not fit into the memory, or a loss is not a number.
        """
        waited = 0.0
        self._set_modes()
        # The quickest algorithms are tried out where crops have one size; batches of whole images have many.
        torch.backends.cudnn.benchmark = not any(augment.config.short_sides for augment in self.mixture.augments)
        factor = lr_factor(self.optim, self.step, self.run.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        seed = np.random.SeedSequence([self.run.seed, 3, self.step, self.fabric.global_rank])
        torch.manual_seed(int(seed.generate_state(1)[0]))
        # None rather than zero: a head that this step does not train must not be moved by momentum or decay.
        self.optimizer.zero_grad(set_to_none=True)
        values_by_task: dict[str, list[float]] = {}
        for _ in range(self.optim.accumulate):
            start = time.perf_counter()
            batch = next_batch(iterator)
            if self._in_any_process(isinstance(batch, UserError)):
                raise batch if isinstance(batch, UserError) else WorkError("another process could not read its images")
            assert isinstance(batch, Batch)
            self._note_skipped(batch.skipped)
            batch = batch.to(self.fabric.device)
            waited += time.perf_counter() - start
            for name, value in self._backward(batch).items():
                values_by_task.setdefault(name, []).append(value)
                if not math.isfinite(value):
                    reason = f"the {name} loss is {value} at step {self.step}"
                    raise WorkError(f"{reason}; lower optim.lr or set optim.clip")
        self._clip_gradients()
        self.optimizer.step()
        self.step += 1
        if self.ema is not None:
            self.ema.update_parameters(self.plain_model)
        return {name: sum(values) / len(values) for name, values in values_by_task.items()}, waited

    def _backward(self, batch: Batch) -> dict[str, float]:
        """Add a batch's share to the gradients. Returns its losses by task, each the mean over processes.

        Raises:
            WorkError: If the batch does not fit into the memory.
        """
        try:
            losses = self.losses(batch)
            total = torch.stack([self.tasks[name].weight * loss for name, loss in losses.items()]).sum()
            self.fabric.backward(total / self.optim.accumulate)
        except torch.OutOfMemoryError as error:
            size, side = len(batch.ids), "×".join(str(n) for n in batch.pixels.shape[-2:])
            reason = f"{size} crops of {side} do not fit into the memory of {self.fabric.device}"
            raise WorkError(f"{reason}; lower data.batch, and raise optim.accumulate instead") from error
        values = torch.stack(list(losses.values())).detach()
        if self.fabric.world_size > 1:
            values = cast(Tensor, self.fabric.all_reduce(values, reduce_op="mean"))
        # Read only now: a GPU is waited for once in a step.
        return dict(zip(losses, values.tolist(), strict=True))

    def _clip_gradients(self) -> None:
        """Limit the norm of all gradients, if `optim.clip` asks for it.

        Raises:
            WorkError: If the norm is not finite.
        """
        if self.optim.clip is None:
            return
        norm = self.fabric.clip_gradients(
            self.model, self.optimizer, max_norm=self.optim.clip, error_if_nonfinite=False
        )
        # With fp16 an overflow is the scaler's business: it skips the step and lowers its scale.
        if norm is not None and not torch.isfinite(norm) and self.run.precision != "16-mixed":
            raise WorkError(f"the gradient is not finite at step {self.step}; lower optim.lr")

    def _in_any_process(self, flag: bool) -> bool:
        """Whether the flag is set in any process. All processes must stop together, or none."""
        if self.fabric.world_size == 1:
            return flag
        count = torch.tensor(float(flag))
        dist.all_reduce(count, group=self.flag_group)
        return bool(count > 0)

    def _note_skipped(self, found: list[Skipped]) -> None:
        """Count images that this process has left out, and tell of them, in all processes alike."""
        if self.fabric.world_size > 1 and any(s.config.faults == "skip" for s in self.sources.values()):
            if not self._in_any_process(bool(found)):
                return
            everywhere: list[list[Skipped]] = [[]] * self.fabric.world_size
            dist.all_gather_object(everywhere, found, group=self.flag_group)
            found = [one for part in everywhere for one in part]
        self.skipped.add(found)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Loss of every task whose target is in the batch; no other branch is computed."""
        supervision = self.sources[batch.source].supervision
        present = [n for n, task in self.tasks.items() if (task.target or n) in batch.targets and self._is_trained(n)]
        with QuickWeightGradients() if self.fabric.device.type == "cpu" else nullcontext():
            logits = self.model(batch.image.contiguous(memory_format=torch.channels_last), present)
        losses = {}
        for name in present:
            key = self.tasks[name].target or name
            target, z, sets = batch.targets[key], logits[name].float(), supervision[key].sets
            with average_over_own_batch() if self.optim.loss_average == "batches" else nullcontext():
                if target.ndim == 3 and z.ndim == 4 and z.shape[2:] != target.shape[1:]:
                    align_corners = self.plain_model.upsampling_align_corners
                    losses[name] = self.tasks[name].resized_loss(z, target, sets, align_corners)
                else:
                    losses[name] = self.tasks[name].loss(z, target, sets)
        return losses

    def _is_trained(self, name: str) -> bool:
        return not self.optim.train_only or name in self.optim.train_only

    def _set_modes(self) -> None:
        """Put the network into training mode, its frozen parts and batch norms into evaluation mode."""
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

        It runs in float32, as `upernet evaluate` does, whatever the precision of the training.
        """
        model = self._evaluated_model()
        torch.backends.cudnn.benchmark = False  # images have many sizes
        if self.fabric.world_size > 1:
            for buffer in model.buffers():  # each process has seen other batches; the first one's statistics are kept
                dist.broadcast(buffer, 0)
        skipped: list[Skipped] = []
        results = [
            r
            for source in self._validation_sources()
            for r in evaluate_source(
                model,
                self.tasks,
                source,
                self.inference,
                device=self.fabric.device,
                skip=skipped.append,
                rank=self.fabric.global_rank,
                world=self.fabric.world_size,
            )
        ]
        self._note_skipped(skipped)
        return results

    def _validation_sources(self) -> list[LabelledSource]:
        return [source for source in self.sources.values() if source.config.val is not None]

    def _evaluated_model(self) -> UPerNet:
        """The network that is measured and saved, in evaluation mode: the moving average if there is one."""
        model = self.plain_model if self.ema is None else cast(UPerNet, self.ema.module)
        return model.eval()

    def _save_model(self, results: list[Result]) -> None:
        measured = {f"{r.source}/{r.task}": {k: round(v, 4) for k, v in r.values.items()} for r in results}
        info = {"step": self.step, "seed": self.run.seed, "validation": measured}
        save_model(
            self.folder / "model", self._evaluated_model(), self.tasks, self.inference, info=info, half=self.run.half
        )

    def _save(self) -> None:
        if not self.is_first:
            return
        state = {
            "step": self.step,
            "validated": self.validated,
            "settings": self.settings,
            "model": self.plain_model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "skipped": list(self.skipped.known),
        }
        write_state(self.folder, state)

    def resume(self) -> None:
        """Take up the run folder's last checkpoint, if there is one and `run.resume` does not forbid it.

        Raises:
            UserError: If the run was made with other settings, of which only its length and bookkeeping may change.
            WorkError: If the file is damaged.
        """
        known = self.settings, self.defaults
        state = read_state(self.folder, *known, self.run.steps, self.fabric.device) if self.run.resume else None
        if state is None:
            return
        self.plain_model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.step, self.validated = int(state["step"]), int(state["validated"])
        self.skipped.known = dict.fromkeys(tuple(one) for one in state.get("skipped", []))
        self.console.print(f"resuming {self.folder} at step {self.step}")


def _batch_norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
