"""The training loop on a tiny network: what moves, what stands still, and how a run is stopped and taken up again."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from fake_data import Memory
from safetensors.torch import load_file
from torch import Tensor, nn

import upernet.engine.trainer as trainer_module
from upernet.config import InferenceConfig, ModelConfig, OptimConfig, RunConfig
from upernet.data.config import AugmentConfig, DataConfig, SourceConfig, TargetConfig
from upernet.data.mixture import bind_sources
from upernet.data.sample import Batch
from upernet.data.source import Item
from upernet.engine.evaluator import Result
from upernet.engine.interrupts import interruptible
from upernet.engine.trainer import Trainer
from upernet.errors import UserError, WorkError
from upernet.labels import ClassSets
from upernet.model.build import build_model
from upernet.store.loading import load_model
from upernet.tasks import Object, Scene, Semantic, Task, Texture

LEVELS = ["low", "middle", "high"]


def both_tasks() -> dict[str, Task]:
    return {"object": Semantic(labels=LEVELS, dropout=0.5), "scene": Scene(labels=LEVELS, width=8)}


def both_sources() -> dict[str, SourceConfig]:
    return {
        "maps": SourceConfig(dataset=Memory(salt=1), targets={"object": TargetConfig()}),
        "whole": SourceConfig(dataset=Memory(salt=2, dense=False), targets={"scene": TargetConfig()}),
    }


def make(
    out: Path,
    tasks: dict[str, Task] | None = None,
    sources: dict[str, SourceConfig] | None = None,
    optim: dict[str, Any] | None = None,
    backbone: str = "test_resnet",
    **run: Any,
) -> Trainer:
    tasks = tasks or both_tasks()
    torch.manual_seed(0)
    model = build_model(ModelConfig(backbone=backbone, width=8), tasks)
    data = DataConfig(
        sources=sources or both_sources(), augment=AugmentConfig(crop=(32, 32), brightness=0.2), batch=2, workers=0
    )
    options: dict[str, Any] = {"steps": 4, "device": "cpu", "log_every": 1, "val_every": 0} | run
    return Trainer(
        model,
        tasks,
        bind_sources(data, tasks),
        data=data,
        optim=OptimConfig(**(optim or {})),
        run=RunConfig(out=str(out), **options),
        inference=InferenceConfig(short_side=32),
    )


def fit(trainer: Trainer) -> list[Result]:
    """As the command does."""
    trainer.folder.mkdir(parents=True, exist_ok=True)
    trainer.resume()
    return trainer.fit()


def batches_of(trainer: Trainer, *names: str) -> Iterator[Batch]:
    """The mixture's batches of these sources, one after the other."""
    found: dict[str, list[int]] = {}
    for step, number in enumerate(trainer.mixture.choices):
        found.setdefault(trainer.mixture.sources[number].name, []).append(step)
    for name in names:
        yield trainer.mixture[found[name].pop(0)]


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def at_step(trainer: Trainer, step: int, act: Callable[[], None]) -> None:
    """Do something within a step, once its update is made."""
    advance = trainer._train_step

    def advance_and_act(batches: Iterator[Batch]) -> Any:
        answer = advance(batches)
        if trainer.step == step:
            act()
        return answer

    trainer._train_step = advance_and_act  # type: ignore[method-assign]


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


# --- what moves -----------------------------------------------------------------------------------------------------

OPTIMISERS: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd", "momentum": 0.9, "weight_decay": 0.1},
    "adamw": {"name": "adamw", "weight_decay": 0.1},
}


@pytest.mark.parametrize("optim", OPTIMISERS)
def test_a_head_without_a_target_in_the_batch_stands_still(tmp_path: Path, optim: str) -> None:
    """Trap: with a gradient of zero rather than none, momentum and decay would move it; its branch is not even run."""
    trainer = make(tmp_path, optim=OPTIMISERS[optim] | {"lr": 0.1}, steps=40)
    ran: list[str] = []
    for name, module in (("scene", trainer.plain_model.heads["scene"]), ("fusion", trainer.plain_model.decoder.fusion)):
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    batches = batches_of(trainer, "whole", "maps", "maps", "whole")

    trainer._train_step(batches)  # gives the scene's head momentum
    after_scene = weights(trainer.plain_model)
    assert ran == ["scene"]
    for _ in range(2):
        assert set(trainer._train_step(batches)[0]) == {"object"}
    after_objects = weights(trainer.plain_model)
    assert ran == ["scene", "fusion", "fusion"]
    names = moved(after_scene, after_objects)
    assert not any(name.startswith("heads.scene.") for name in names)
    assert {name for name in after_scene if name.startswith("heads.object.")} <= names
    assert any(name.startswith("backbone.") for name in names)

    trainer._train_step(batches)
    names = moved(after_objects, weights(trainer.plain_model))
    assert any(name.startswith("heads.scene.") for name in names)
    assert not any(name.startswith(("heads.object.", "decoder.fusion")) for name in names)


@pytest.mark.parametrize("detach", [True, False])
def test_training_one_head_alone_leaves_every_other_tensor(tmp_path: Path, detach: bool) -> None:
    """Batch statistics included."""
    tasks = both_tasks() | {"texture": Texture(labels=LEVELS, width=8, convs=2, detach=detach)}
    sources = both_sources()
    sources["maps"].targets["texture"] = TargetConfig()
    optim = {"train_only": ["texture"], "ema": 0.5}
    trainer = make(tmp_path, tasks, sources, optim, backbone="test_efficientnet", steps=3, init="trained already")
    before = weights(trainer.plain_model)
    fit(trainer)
    names = moved(before, weights(trainer.plain_model))
    assert names == {f"heads.texture.{name}" for name in trainer.plain_model.heads["texture"].state_dict()}
    saved, _, _ = load_model(tmp_path / "model")
    assert moved(before, weights(saved)) == names
    assert {row["task"] for row in rows(tmp_path) if row["metric"] == "loss"} == {"texture"}


def test_the_norms_of_one_head_trained_alone_stop_counting_too(tmp_path: Path) -> None:
    optim = {"train_only": ["texture"], "freeze_norm": 0.5}
    tasks = both_tasks() | {"texture": Texture(labels=LEVELS, width=8, convs=1)}
    sources = both_sources()
    sources["maps"].targets["texture"] = TargetConfig()
    trainer = make(tmp_path, tasks, sources, optim, steps=4, init="trained already")
    batches = iter(list(batches_of(trainer, "maps")) * 4)
    means = []
    for _ in range(4):
        trainer._train_step(batches)
        means.append({k: v for k, v in weights(trainer.plain_model).items() if "running" in k})
    assert moved(means[0], means[1])
    assert not moved(means[1], means[3])


def test_a_head_that_cannot_be_trained_alone_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"optim\.train_only: 'textur' is no task; tasks: object, scene"):
        make(tmp_path, optim={"train_only": ["textur"]}, init="trained already")
    with pytest.raises(UserError, match=r"optim\.train_only: \['scene'\] leaves the rest at random weights"):
        make(tmp_path, optim={"train_only": ["scene"]})


def test_a_task_that_no_source_trains_is_told(tmp_path: Path) -> None:
    sources = {"maps": both_sources()["maps"]}
    with pytest.raises(UserError, match="task 'scene': no source trains it"):
        make(tmp_path, sources=sources)
    assert set(make(tmp_path, sources=sources, init="trained already").tasks) == {"object", "scene"}


def test_sources_that_teach_nothing_take_no_steps(tmp_path: Path) -> None:
    sources = both_sources() | {"mute": SourceConfig(dataset=Memory(), targets={}, weight=1000.0)}
    trainer = make(tmp_path, sources=sources)
    assert [source.name for source in trainer.mixture.sources] == ["maps", "whole"]
    alone = make(tmp_path, optim={"train_only": ["scene"]}, init="trained already")
    assert [source.name for source in alone.mixture.sources] == ["whole"]


def test_a_batch_without_any_label_is_survived(tmp_path: Path) -> None:
    sources = {
        "maps": SourceConfig(dataset=Memory(unlabelled=True), targets={"object": TargetConfig()}),
        "whole": SourceConfig(dataset=Memory(unlabelled=True, dense=False), targets={"scene": TargetConfig()}),
    }
    trainer = make(tmp_path, sources=sources, optim={"weight_decay": 0.0}, steps=20)
    before = weights(trainer.plain_model)
    batches = batches_of(trainer, "maps", "whole", "maps")
    for name in ("object", "scene", "object"):
        assert trainer._train_step(batches)[0] == {name: 0.0}
    after = weights(trainer.plain_model)
    assert all(value.isfinite().all() for value in after.values())
    assert not moved(before, after) & {name for name, _ in trainer.plain_model.named_parameters()}


# --- how it moves ---------------------------------------------------------------------------------------------------

PLAIN = {"momentum": 0.0, "weight_decay": 0.0, "schedule": "constant", "lr": 0.5}


def gradients(trainer: Trainer, batch: Batch) -> list[Tensor]:
    """Gradients of the sum of the losses at the trainer's own weights, computed on a copy."""
    keep, trainer.model = trainer.model, deepcopy(trainer.plain_model).train()
    try:
        sum(trainer.losses(batch).values(), torch.zeros(())).backward()
        return [torch.zeros_like(p) if p.grad is None else p.grad for p in trainer.model.parameters()]
    finally:
        trainer.model = keep


def without_dropout() -> dict[str, Task]:
    return {"object": Object(labels=LEVELS, width=8), "scene": Scene(labels=LEVELS, width=8)}


def test_gradients_of_a_step_are_the_mean_over_its_batches(tmp_path: Path) -> None:
    trainer = make(tmp_path, without_dropout(), optim=PLAIN | {"accumulate": 2}, steps=20)
    assert len(trainer.mixture) == 40
    one, two = batches_of(trainer, "maps", "whole")
    expected = [(a + b) / 2 for a, b in zip(gradients(trainer, one), gradients(trainer, two), strict=True)]
    before = [p.detach().clone() for p in trainer.plain_model.parameters()]
    losses, _ = trainer._train_step(iter([one, two]))
    assert set(losses) == {"object", "scene"}
    for p, b, g in zip(trainer.plain_model.parameters(), before, expected, strict=True):
        torch.testing.assert_close(p.detach(), b - 0.5 * g, atol=1e-6, rtol=1e-4)


def test_clipping_bounds_the_norm_of_all_gradients_together(tmp_path: Path) -> None:
    trainer = make(tmp_path, without_dropout(), optim=PLAIN | {"clip": 1e-3}, steps=20)
    (batch,) = batches_of(trainer, "maps")
    raw = torch.cat([g.flatten() for g in gradients(trainer, batch)])
    before = [p.detach().clone() for p in trainer.plain_model.parameters()]
    trainer._train_step(iter([batch]))
    parameters = trainer.plain_model.parameters()
    step = torch.cat([(b - p.detach()).flatten() for b, p in zip(before, parameters, strict=True)])
    assert raw.norm() > 1e-2
    torch.testing.assert_close(step, 0.5 * 1e-3 * raw / raw.norm(), atol=1e-7, rtol=0.02)


def test_the_weight_of_a_task_scales_its_loss(tmp_path: Path) -> None:
    changes = []
    for weight in (1.0, 0.25):
        tasks: dict[str, Task] = {"object": Object(labels=LEVELS, width=8, weight=weight)}
        sources = {"maps": SourceConfig(dataset=Memory(), targets={"object": TargetConfig()})}
        trainer = make(tmp_path, tasks, sources, optim=PLAIN)
        bias = trainer.plain_model.heads["object"].classifier.bias
        losses, _ = trainer._train_step(batches_of(trainer, "maps"))
        changes.append((losses["object"], bias.detach().clone()))
    assert changes[0][0] == changes[1][0]  # told unweighted
    torch.testing.assert_close(changes[1][1], 0.25 * changes[0][1])


def test_an_auxiliary_task_learns_from_the_main_target(tmp_path: Path) -> None:
    tasks: dict[str, Task] = {
        "semantic": Semantic(labels=LEVELS),
        "helper": Semantic(labels=LEVELS, level="c4", target="semantic", auxiliary=True),
    }
    sources = {"maps": SourceConfig(dataset=Memory(), targets={"semantic": TargetConfig()})}
    trainer = make(tmp_path, tasks, sources, steps=1)
    results = fit(trainer)
    assert {row["task"] for row in rows(tmp_path) if row["metric"] == "loss"} == {"semantic", "helper"}
    assert [result.task for result in results] == ["semantic"]


def test_rates_follow_the_schedule_in_every_group(tmp_path: Path) -> None:
    trainer = make(tmp_path, optim={"lr": 0.1, "backbone_lr": 0.01, "min_lr": 0.0, "power": 1.0}, steps=4)
    batches = iter(list(batches_of(trainer, "maps")) * 2)
    for factor in (1.0, 0.75):
        trainer._train_step(batches)
        assert {round(group["lr"] / factor, 9) for group in trainer.optimizer.param_groups} == {0.1, 0.01}


def test_norms_stop_counting_where_they_are_told_to(tmp_path: Path) -> None:
    trainer = make(tmp_path, optim={"freeze_norm": 0.5, "norm_momentum": 0.2}, steps=4)
    assert trainer.norms
    assert {norm.momentum for norm in trainer.norms} == {0.2}
    statistics = []
    batches = iter(list(batches_of(trainer, "maps")) * 4)
    for _ in range(4):
        trainer._train_step(batches)
        statistics.append({k: v for k, v in weights(trainer.plain_model).items() if "running" in k or "tracked" in k})
    assert moved(statistics[0], statistics[1])
    assert not moved(statistics[1], statistics[3])
    assert all(norm.weight.requires_grad for norm in trainer.norms)


def test_the_backbones_statistics_may_stay_as_they_are(tmp_path: Path) -> None:
    trainer = make(tmp_path, optim={"freeze_backbone_norm": True})
    before = weights(trainer.plain_model)
    for _ in range(2):
        trainer._train_step(batches_of(trainer, "maps"))
    names = moved(before, weights(trainer.plain_model))
    assert not any("running" in name for name in names if name.startswith("backbone."))
    assert any("running" in name for name in names if name.startswith("decoder."))
    assert any(name.startswith("backbone.") for name in names)


def test_half_precision_arithmetic_keeps_whole_weights(tmp_path: Path) -> None:
    trainer = make(tmp_path, precision="bf16-mixed", steps=1)
    before = weights(trainer.plain_model)
    fit(trainer)
    after = weights(trainer.plain_model)
    assert moved(before, after)
    assert all(value.dtype in (torch.float32, torch.int64) and value.isfinite().all() for value in after.values())


@dataclass(kw_only=True)
class Broken(Object):
    """An object task whose loss is not a number after so many steps."""

    after: int = 0

    def loss(self, logits: Tensor, target: Tensor, sets: ClassSets) -> Tensor:
        self.after -= 1
        return super().loss(logits, target, sets) * (float("nan") if self.after < 0 else 1)


def test_a_loss_that_is_not_a_number_is_told_before_it_does_harm(tmp_path: Path) -> None:
    trainer = make(tmp_path, {"object": Broken(labels=LEVELS)}, {"maps": both_sources()["maps"]}, save_every=1)
    before = weights(trainer.plain_model)
    with pytest.raises(WorkError) as caught:
        fit(trainer)
    assert str(caught.value) == "the object loss is nan at step 0; lower optim.lr or set optim.clip"
    assert not moved(before, weights(trainer.plain_model)) & {
        name for name, _ in trainer.plain_model.named_parameters()
    }


def test_the_state_saved_at_a_failure_is_that_of_the_last_good_step(tmp_path: Path) -> None:
    """Or else the run goes on from what the bad batch left in the batch norms, perhaps NaN."""
    trainer = make(tmp_path, {"object": Broken(labels=LEVELS, after=2)}, {"maps": both_sources()["maps"]})
    good: list[dict[str, Tensor]] = []
    at_step(trainer, 2, lambda: good.append(weights(trainer.plain_model)))
    with pytest.raises(WorkError, match="at step 2"):
        fit(trainer)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 2
    assert not moved(good[0], state["model"])


def test_an_exploding_run_is_told(tmp_path: Path) -> None:
    trainer = make(tmp_path, optim={"lr": 1e20, "schedule": "constant"}, steps=10)
    with pytest.raises(WorkError, match=r"the (object|scene) loss is (nan|inf) at step \d+; lower optim\.lr"):
        fit(trainer)


def test_a_gradient_that_is_not_finite_is_told_where_it_is_measured(tmp_path: Path) -> None:
    trainer = make(tmp_path, optim={"clip": 1.0}, steps=10)
    before = weights(trainer.plain_model)
    next(trainer.plain_model.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(WorkError, match=r"the gradient is not finite at step 0; lower optim\.lr"):
        trainer._train_step(batches_of(trainer, "maps"))
    assert not moved(before, weights(trainer.plain_model)) & {
        name for name, _ in trainer.plain_model.named_parameters()
    }


def test_an_image_that_cannot_be_read_stops_the_run_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = make(tmp_path / "whole"), make(tmp_path / "broken")
    calls: list[str] = []
    read = Memory.read

    def failing(source: Memory, item: Item) -> Any:
        calls.append(item.id)
        if len(calls) > 5:
            raise UserError("one.jpg: cannot be read as an image")
        return read(source, item)

    with monkeypatch.context() as patch:
        patch.setattr(Memory, "read", failing)
        with pytest.raises(WorkError, match=r"source '(maps|whole)': one\.jpg: cannot be read as an image"):
            fit(broken)
    assert torch.load(tmp_path / "broken" / "state.pt", weights_only=True)["step"] == 2
    again = make(tmp_path / "broken")
    fit(again)
    fit(whole)
    assert not moved(weights(whole.plain_model), weights(again.plain_model))


# --- the moving average ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        "weights",
        "statistics",
    ],
)
def test_the_moving_average_is_what_is_measured_and_saved(tmp_path: Path, kind: str) -> None:
    trainer = make(tmp_path, optim={"ema": 0.75, "lr": 0.1}, steps=3)
    seen: list[dict[str, Tensor]] = []
    for step in (1, 2, 3):
        at_step(trainer, step, lambda: seen.append(weights(trainer.plain_model)))
    fit(trainer)
    expected = seen[0]
    for state in seen[1:]:
        expected = {k: 0.75 * v + 0.25 * state[k] for k, v in expected.items()}
    saved = weights(load_model(tmp_path / "model")[0])
    names = {name for name in saved if name.endswith(("running_mean", "running_var")) == (kind == "statistics")}
    for name in names:
        if name.endswith("num_batches_tracked"):
            assert torch.equal(saved[name], seen[-1][name])
        else:
            torch.testing.assert_close(saved[name], expected[name], atol=1e-6, rtol=1e-5)
    assert moved(saved, seen[-1]) & names
    assert trainer.ema is not None
    assert trainer._evaluated_model() is trainer.ema.module
    assert not trainer.ema.module.training


def test_without_a_moving_average_the_weights_themselves_are_saved(tmp_path: Path) -> None:
    trainer = make(tmp_path, steps=1)
    fit(trainer)
    saved, tasks, inference = load_model(tmp_path / "model")
    assert not moved(weights(trainer.plain_model), weights(saved))
    assert tasks == both_tasks()
    assert inference == InferenceConfig(short_side=32)


# --- the run folder -------------------------------------------------------------------------------------------------


def test_a_run_folder_holds_everything(tmp_path: Path) -> None:
    trainer = make(tmp_path, steps=4, val_every=2, log_every=2, optim={"backbone_lr": 0.001})
    results = fit(trainer)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "metrics.csv", "model", "previews", "state.pt", "tensorboard",
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "previews").iterdir()) == ["step_000002.jpg", "step_000004.jpg"]
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.yaml", "model.safetensors"]
    assert [(r.source, r.task) for r in results] == [("maps", "object"), ("whole", "scene")]
    written = rows(tmp_path)
    assert [row["step"] for row in written if row["metric"] == "lr"] == ["2", "4"]
    lr = float(next(row["value"] for row in written if row["metric"] == "lr"))
    assert lr == pytest.approx(0.01 * 0.75**0.9, rel=1e-4)
    validated = [(row["step"], row["source"], row["metric"]) for row in written if row["phase"] == "val"]
    assert validated == [
        (step, source, metric)
        for step in ("2", "4")
        for source, metrics in (("maps", ("mIoU", "mAcc", "PA")), ("whole", ("top-1",)))
        for metric in metrics
    ]


def test_validation_leaves_training_undisturbed(tmp_path: Path) -> None:
    often, never = make(tmp_path / "often", val_every=1), make(tmp_path / "never", val_every=0)
    fit(often)
    fit(never)
    assert not moved(weights(often.plain_model), weights(never.plain_model))


@pytest.mark.parametrize("val", [None, "val"])
def test_a_run_may_have_nothing_to_validate(tmp_path: Path, val: str | None) -> None:
    tasks: dict[str, Task] = {"object": Semantic(labels=LEVELS)}
    targets = {"object": TargetConfig(evaluate=False)}
    trainer = make(tmp_path, tasks, {"maps": SourceConfig(dataset=Memory(), targets=targets, val=val)}, steps=1)
    assert fit(trainer) == []
    assert list(load_model(tmp_path / "model")[1]) == ["object"]
    assert (tmp_path / "previews").exists() == (val is not None)


# --- stopping and going on ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optim", OPTIMISERS)
def test_a_run_taken_up_again_equals_an_unbroken_one(tmp_path: Path, optim: str) -> None:
    """Weights, average and optimiser bit for bit, with dropout, colour and both sources; killed a step after a save."""
    options: dict[str, Any] = {
        "optim": OPTIMISERS[optim] | {"lr": 0.05, "ema": 0.9, "accumulate": 2},
        "save_every": 2,
        "backbone": "test_efficientnet",
    }
    whole = make(tmp_path / "whole", **options)
    fit(whole)

    def kill() -> None:
        raise RuntimeError("power cut")

    broken = make(tmp_path / "broken", **options)
    at_step(broken, 4, kill)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(broken)
    assert [row["step"] for row in rows(tmp_path / "broken") if row["metric"] == "lr"] == ["1", "2", "3"]
    torch.manual_seed(1234)
    again = make(tmp_path / "broken", **options)
    nn.init.normal_(next(again.plain_model.parameters()))
    fit(again)

    assert not moved(weights(whole.plain_model), weights(again.plain_model))
    assert whole.ema is not None
    assert again.ema is not None
    assert not moved(weights(whole.ema), weights(again.ema))
    states = [run.optimizer.state_dict()["state"] for run in (whole, again)]
    assert states[0].keys() == states[1].keys()
    for number, state in states[0].items():
        assert all(
            torch.equal(torch.as_tensor(value), torch.as_tensor(states[1][number][k])) for k, value in state.items()
        )
    told = [
        [(r["step"], r["phase"], r["task"], r["metric"], r["value"]) for r in rows(tmp_path / n) if r["metric"] == "lr"
         or r["phase"] == "val"]
        for n in ("whole", "broken")
    ]  # fmt: skip
    assert told[0] == told[1]
    keys = [(r["step"], r["phase"], r["source"], r["task"], r["metric"]) for r in rows(tmp_path / "broken")]
    assert len(keys) == len(set(keys))
    first, second = (load_model(tmp_path / n / "model")[0] for n in ("whole", "broken"))
    assert not moved(weights(first), weights(second))


def test_dropout_is_drawn_anew_each_step_and_the_same_each_run(tmp_path: Path) -> None:
    told = []
    for seed in (1, 2):
        trainer = make(tmp_path, optim=PLAIN | {"lr": 1e-12})
        (batch,) = batches_of(trainer, "maps")
        torch.manual_seed(seed)
        told.append([trainer._train_step(iter([batch]))[0]["object"] for _ in range(3)])
    assert len(set(told[0])) == 3
    assert told[0] == told[1]


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    fit(make(tmp_path, steps=2))
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    again = make(tmp_path, steps=2)
    fit(again)
    assert again.step == 2
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before
    keys = [(r["step"], r["phase"], r["source"], r["task"], r["metric"]) for r in rows(tmp_path)]
    assert len(keys) == len(set(keys))


def test_a_run_may_be_made_longer(begun: Path) -> None:
    longer = make(begun, steps=2)
    fit(longer)
    assert longer.step == 2
    assert [row["step"] for row in rows(begun) if row["metric"] == "lr"] == ["1", "2"]


def test_a_run_may_be_begun_anew(tmp_path: Path) -> None:
    fit(make(tmp_path, steps=2))
    anew = make(tmp_path, steps=1, resume=False)
    fit(anew)
    assert anew.step == 1
    assert {row["step"] for row in rows(tmp_path)} == {"1"}


def test_ctrl_c_finishes_the_step_saves_and_stops(tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGINT)
    trainer = make(tmp_path, save_every=1000)
    at_step(trainer, 2, interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(trainer)
    assert signal.getsignal(signal.SIGINT) is handler
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.csv", "state.pt", "tensorboard"]
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 2

    again, whole = make(tmp_path), make(tmp_path / "whole")
    fit(again)
    fit(whole)
    assert not moved(weights(whole.plain_model), weights(again.plain_model))
    assert not moved(weights(whole.plain_model), weights(load_model(tmp_path / "model")[0]))


def test_ctrl_c_in_the_last_step_still_leaves_a_model_in_the_end(tmp_path: Path) -> None:
    trainer = make(tmp_path, steps=2)
    at_step(trainer, 2, interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(trainer)
    again = make(tmp_path, steps=2)
    results = fit(again)
    assert not moved(weights(trainer.plain_model), weights(load_model(tmp_path / "model")[0]))
    assert [result.task for result in results] == ["object", "scene"]


def test_the_first_ctrl_c_is_noted_and_the_second_acts_at_once() -> None:
    handler = signal.getsignal(signal.SIGINT)
    with interruptible() as interrupted:
        assert not interrupted()
        interrupt()
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            interrupt()
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_run_in_a_thread_cannot_be_interrupted_but_works(tmp_path: Path) -> None:
    trainer = make(tmp_path, steps=1)
    thread = threading.Thread(target=fit, args=(trainer,))
    thread.start()
    thread.join(120)
    assert trainer.step == 1
    assert not moved(weights(trainer.plain_model), weights(load_model(tmp_path / "model")[0]))


@pytest.fixture(scope="module")
def one_step(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder, not to be written to, of a run of one step."""
    folder = tmp_path_factory.mktemp("begun")
    fit(make(folder, steps=1))
    return folder


@pytest.fixture
def begun(one_step: Path, tmp_path: Path) -> Path:
    """The folder of a run that has made one step, the test's own."""
    return shutil.copytree(one_step, tmp_path / "begun")


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "another file"])
def test_a_damaged_state_is_told(begun: Path, damage: str) -> None:
    state = begun / "state.pt"
    if damage == "truncated":
        state.write_bytes(state.read_bytes()[:-2000])
    elif damage == "another file":
        torch.save({"weights": torch.zeros(3)}, state)
    else:
        state.write_bytes(b"" if damage == "empty" else b"not a checkpoint")
    with pytest.raises(WorkError) as caught:
        fit(make(begun))
    assert str(caught.value) == f"{state}: damaged; delete it to start afresh, or choose another run.out"


OTHER_SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "rate": ({"optim": {"lr": 0.5}}, "optim.lr '0.01', not '0.5'"),
    "optimiser": ({"optim": {"name": "adamw"}}, "optim.name 'sgd', not 'adamw'"),
    "average": ({"optim": {"ema": 0.9}}, "optim.ema 'None', not '0.9'"),
    "network": ({"backbone": "test_efficientnet"}, "model.backbone 'test_resnet', not 'test_efficientnet'"),
    "seed": ({"seed": 1}, "run.seed '0', not '1'"),
    "task": ({"tasks": both_tasks() | {"object": Semantic(labels=LEVELS, dropout=0.1)}}, "dropout '0.5', not '0.1'"),
    "data": (
        {
            "sources": both_sources()
            | {"maps": SourceConfig(dataset=Memory(salt=9), targets={"object": TargetConfig()})}
        },
        "salt '1', not '9'",
    ),
}


@pytest.mark.parametrize("other", OTHER_SETTINGS)
def test_a_run_of_other_settings_is_told(begun: Path, other: str) -> None:
    """Going on would give neither the old run nor the new one."""
    options, part = OTHER_SETTINGS[other]
    with pytest.raises(UserError) as caught:
        fit(make(begun, **options))
    assert not isinstance(caught.value, WorkError)
    assert str(caught.value).startswith(f"{begun}: holds a run with ")
    assert f"{part}; choose another run.out" in str(caught.value)


def test_length_and_bookkeeping_of_a_run_may_change(begun: Path) -> None:
    trainer = make(begun, steps=3, val_every=1, save_every=2, log_every=2, half=True)
    trainer.data.workers = 1
    fit(trainer)
    assert trainer.step == 3
    assert [row["step"] for row in rows(begun) if row["metric"] == "lr"] == ["1", "2"]
    assert [row["step"] for row in rows(begun) if row["metric"] == "mIoU"] == ["1", "2", "3"]
    saved = load_file(begun / "model" / "model.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.float16, torch.int64}


def test_a_run_is_not_made_shorter_than_it_is(tmp_path: Path) -> None:
    fit(make(tmp_path, steps=3))
    with pytest.raises(UserError, match=rf"run\.steps: 2, but {tmp_path} holds a run at step 3; give at least 3"):
        fit(make(tmp_path, steps=2))


@pytest.mark.parametrize("step", [2, 4])
@pytest.mark.parametrize("moment", ["validate", "_save_model"])
def test_a_validation_that_was_cut_off_is_made_up_for_and_told_once(tmp_path: Path, step: int, moment: str) -> None:
    trainer = make(tmp_path, val_every=2, save_every=1)
    original = getattr(trainer, moment)

    def cut_off(*arguments: Any) -> Any:
        if trainer.step == step:
            raise RuntimeError("power cut")
        return original(*arguments)

    setattr(trainer, moment, cut_off)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(trainer)
    again = make(tmp_path, val_every=2, save_every=1)
    fit(again)
    assert [row["step"] for row in rows(tmp_path) if row["metric"] == "mIoU"] == ["2", "4"]
    assert not moved(weights(again.plain_model), weights(load_model(tmp_path / "model")[0]))


def test_a_state_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(tmp_path, steps=1)
    fit(trainer)
    before = (tmp_path / "state.pt").read_bytes()

    def full_disk(state: object, file: IO[bytes]) -> None:
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        trainer._save()
    assert (tmp_path / "state.pt").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["metrics.csv", "state.pt"]


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet"])
def test_norms_that_are_shared_by_processes_keep_their_activations(name: str) -> None:
    """Of many of timm's networks the activation lies in the norm, where torch's own conversion would drop it."""
    model = build_model(ModelConfig(backbone=name, width=8), both_tasks()).eval()
    image = torch.rand(1, 3, 64, 64)
    before = model(image)
    shared = trainer_module.convert_sync_batchnorm(model)
    assert not any(type(module) is nn.BatchNorm2d for module in shared.modules())
    assert any(isinstance(module, nn.SyncBatchNorm) for module in shared.modules())
    for key, value in shared.eval()(image).items():
        torch.testing.assert_close(value, before[key])


def test_a_validation_split_that_lacks_files_is_told_before_the_first_step(tmp_path: Path) -> None:
    class Lacking(Memory):
        def items(self, split: str) -> list[Item]:
            if split == "val":
                raise UserError("no such split")
            return super().items(split)

    sources = {"maps": SourceConfig(dataset=Lacking(), targets={"object": TargetConfig()})}
    with pytest.raises(UserError, match="source 'maps': no such split"):
        make(tmp_path, {"object": Semantic(labels=LEVELS)}, sources)


def test_losses_of_a_step_are_told_as_means_over_its_batches(tmp_path: Path) -> None:
    options = PLAIN | {"lr": 1e-12}
    single = make(tmp_path / "one", without_dropout(), optim=options, steps=20)
    one, two = batches_of(single, "maps", "maps")
    each = [single._train_step(iter([batch]))[0]["object"] for batch in (one, two)]
    double = make(tmp_path / "two", without_dropout(), optim=options | {"accumulate": 2}, steps=20)
    assert double._train_step(iter([one, two]))[0]["object"] == pytest.approx(sum(each) / 2, rel=1e-4)


def test_a_loader_that_dies_is_failed_work_and_what_was_reached_is_saved(tmp_path: Path) -> None:
    trainer = make(tmp_path, steps=4)

    def batches() -> Iterator[Batch]:
        yield from batches_of(trainer, "maps")
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. \nMore words.")

    trainer._batches = batches  # type: ignore[method-assign, assignment]
    with pytest.raises(WorkError) as caught:
        trainer.fit()
    assert str(caught.value).startswith("a process that reads images has died (DataLoader worker (pid 7) is killed by")
    assert str(caught.value).endswith("; lower data.workers")
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 1


def test_a_batch_that_does_not_fit_is_failed_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(tmp_path, steps=4)

    def too_much(batch: Batch) -> dict[str, Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setattr(trainer, "losses", too_much)
    with pytest.raises(WorkError) as caught:
        trainer.fit()
    line = "2 crops of 32×32 do not fit into the memory of cpu; lower data.batch, and raise optim.accumulate instead"
    assert str(caught.value) == line


def test_a_run_of_several_processes_is_not_taken_up_by_one(begun: Path) -> None:
    state = torch.load(begun / "state.pt", weights_only=True)
    assert state["settings"]["processes"] == "1"
    state["settings"]["processes"] = "2"
    torch.save(state, begun / "state.pt")
    with pytest.raises(UserError, match="holds a run of 2 processes, each with its own part of every batch, not of 1;"):
        fit(make(begun, steps=2))


def test_a_run_that_is_older_than_an_option_goes_on_with_its_default(begun: Path) -> None:
    state = torch.load(begun / "state.pt", weights_only=True)
    assert state["settings"].pop("optim.freeze_norm") == "1.0"
    torch.save(state, begun / "state.pt")
    with pytest.raises(UserError, match=r"optim\.freeze_norm '1\.0', not '0\.5'"):
        fit(make(begun, optim={"freeze_norm": 0.5}, steps=2))
    trainer = make(begun, steps=2)
    fit(trainer)
    assert trainer.step == 2


def test_data_may_move_between_two_parts_of_a_run(tmp_path: Path) -> None:
    def at(root: str) -> dict[str, SourceConfig]:
        return {"maps": SourceConfig(dataset=Memory(root=root), targets={"object": TargetConfig()})}

    tasks: dict[str, Task] = {"object": Semantic(labels=LEVELS)}
    fit(make(tmp_path, tasks, at("here"), steps=1))
    trainer = make(tmp_path, tasks, at("there"), steps=2)
    fit(trainer)
    assert trainer.step == 2


def test_processes_look_for_unused_branches_only_where_there_may_be_some(tmp_path: Path) -> None:
    plain = {"maps": SourceConfig(dataset=Memory(), targets={"object": TargetConfig()})}
    fused = make(tmp_path, {"object": Semantic(labels=LEVELS)}, plain)
    assert not fused._may_skip_parameters()
    fused.losses(next(batches_of(fused, "maps")))["object"].backward()
    assert all(p.grad is not None for p in fused.plain_model.parameters())
    for level in ("c4", "p3", "ppm"):
        trainer = make(tmp_path, {"object": Semantic(labels=LEVELS, level=level)}, plain)
        assert trainer._may_skip_parameters()
    assert make(tmp_path)._may_skip_parameters()  # two sources, each for one of two tasks
    apart: dict[str, Task] = {"object": Semantic(labels=LEVELS, detach=True)}
    assert make(tmp_path, apart, plain)._may_skip_parameters()
