"""The training loop on a tiny network: what moves, what stands still, and what stops it."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_data import Memory
from small_training import (
    LEVELS,
    OPTIMISERS,
    at_step,
    batches_of,
    both_sources,
    both_tasks,
    fit,
    make,
    moved,
    rows,
    weights,
)
from torch import Tensor, nn

import upernet.engine.trainer as trainer_module
from upernet.config import ModelConfig
from upernet.data.config import SourceConfig, TargetConfig
from upernet.data.sample import Batch
from upernet.data.source import Item
from upernet.engine.trainer import Trainer
from upernet.errors import UserError, WorkError
from upernet.labels import ClassSets
from upernet.model.build import build_model
from upernet.store.loading import load_model
from upernet.tasks import Object, Scene, Semantic, Task, Texture


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
    with pytest.raises(UserError, match=r"optim\.train_only: 'textur' is not a task; tasks: object, scene"):
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


def test_activations_that_are_computed_again_lead_to_the_same_weights(tmp_path: Path) -> None:
    """Dropout and running statistics included."""
    found = []
    for checkpoint in ("none", "all"):
        trainer = make(tmp_path, checkpoint=checkpoint)
        assert trainer.plain_model.decoder.fusion.taps
        for _ in range(2):
            trainer._train_step(batches_of(trainer, "maps", "whole"))
        found.append(weights(trainer.plain_model))
    assert trainer.plain_model.checkpoint == "all"
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-5, atol=1e-6)


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


def test_dropout_is_drawn_anew_each_step_and_the_same_each_run(tmp_path: Path) -> None:
    told = []
    for seed in (1, 2):
        trainer = make(tmp_path, optim=PLAIN | {"lr": 1e-12})
        (batch,) = batches_of(trainer, "maps")
        torch.manual_seed(seed)
        told.append([trainer._train_step(iter([batch]))[0]["object"] for _ in range(3)])
    assert len(set(told[0])) == 3
    assert told[0] == told[1]


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
