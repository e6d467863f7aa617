"""Joint training by the recipe of the authors' code, on made-up Broden+: everything on at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fake_broden import prepared
from processes import in_two_processes
from runs import recipe, write
from small_training import at_step, moved, rows, weights
from torch import nn

from upernet.cli import main
from upernet.config import InferenceConfig, ModelConfig, OptimConfig, RunConfig
from upernet.data import BrodenPlus
from upernet.data.config import AugmentConfig, DataConfig, SourceConfig, TargetConfig
from upernet.data.mixture import bind_sources
from upernet.data.sets.broden_plus import broden_plus
from upernet.data.sets.broden_plus.tables import part_channels
from upernet.engine.norms import CumulativeBatchNorm
from upernet.engine.trainer import Trainer
from upernet.labels import IGNORE
from upernet.model.build import build_model
from upernet.store.loading import load_model
from upernet.tasks import Material, Object, Part, Scene, Task

MEAN = (0.4814576470588235, 0.4546921568627451, 0.40384352941176466)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Broden+ as it is prepared, not to be written to."""
    return prepared(tmp_path_factory.mktemp("broden_plus"))


PARTS = {name: broden_plus()["part"][name] for name in ("car", "person")}


def make(root: Path, out: Path, run: dict[str, Any] | None = None, **optim: Any) -> Trainer:
    tasks: dict[str, Task] = {
        "scene": Scene(labels="broden_plus/scene", width=8, weight=0.25),
        "object": Object(labels="broden_plus/object", width=8),
        "part": Part(parts=PARTS, width=8, needs_a_part=True),
        "material": Material(labels="broden_plus/material", width=8),
    }
    unknown = dict.fromkeys(name for name in part_channels() if name not in tasks["part"].classes.names)
    data = DataConfig(
        sources={
            "scene_parsing": SourceConfig(
                dataset=BrodenPlus(root=str(root), subsets=["ade20k", "pascal"]),
                targets={
                    "object": TargetConfig(annotation="object"),
                    "part": TargetConfig(annotation="part", classes=unknown),
                    "scene": TargetConfig(annotation="scene"),
                },
            ),
            "materials": SourceConfig(
                dataset=BrodenPlus(root=str(root), subsets=["opensurfaces"]),
                targets={"material": TargetConfig(annotation="material")},
            ),
        },
        augment=AugmentConfig(
            short_sides=(32, 40, 48), long_side=96, multiple=32, label_stride=4, flip=0.5, pad_colour=MEAN
        ),
        batch=2,
        workers=0,
        draw="step",
        group_orientation=True,
    )
    torch.manual_seed(0)
    config = ModelConfig(
        backbone="test_efficientnet",
        width=8,
        pooling="precise",
        ppm_order="upsample_conv",
        mean=MEAN,
        std=(1 / 255, 1 / 255, 1 / 255),
    )
    options = {"lr": 0.02, "weight_decay": 1e-4, "decay_all": False, "accumulate": 2} | optim
    return Trainer(
        build_model(config, tasks),
        tasks,
        bind_sources(data, tasks),
        data=data,
        optim=OptimConfig(norm_rule="cumulative", loss_average="batches", **options),
        run=RunConfig(out=str(out), steps=5, device="cpu", log_every=1, val_every=0, save_every=2, **run or {}),
        inference=InferenceConfig(short_side=48, max_side=96),
    )


def fit(trainer: Trainer) -> None:
    trainer.folder.mkdir(parents=True, exist_ok=True)
    trainer.resume()
    trainer.fit()


def test_a_joint_run_taken_up_again_equals_an_unbroken_one(root: Path, tmp_path: Path) -> None:
    whole = make(root, tmp_path / "whole")
    assert all(isinstance(norm, CumulativeBatchNorm) for norm in whole.norms)
    sources = [whole.mixture.sources[n].name for n in whole.mixture.choices]
    assert set(sources) == {"scene_parsing", "materials"}
    assert sources[::2] == sources[1::2]
    for batch in (whole.mixture[n] for n in range(10)):
        assert all(side % 32 == 0 for side in batch.pixels.shape[-2:])
        maps = [target for target in batch.targets.values() if target.ndim == 3]
        assert {tuple(target.shape[1:]) for target in maps} == {tuple(n // 4 for n in batch.pixels.shape[-2:])}
        assert all((target != IGNORE).any() for target in maps)
    fit(whole)

    def kill() -> None:
        raise RuntimeError("power cut")

    broken = make(root, tmp_path / "broken")
    at_step(broken, 4, kill)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(broken)
    torch.manual_seed(99)
    again = make(root, tmp_path / "broken")
    nn.init.normal_(next(again.plain_model.parameters()))
    fit(again)
    assert not moved(weights(whole.plain_model), weights(again.plain_model))
    told = [
        [tuple(row.values()) for row in rows(tmp_path / name) if row["phase"] == "val" or row["metric"] == "lr"]
        for name in ("whole", "broken")
    ]
    assert told[0] == told[1]
    saved, tasks, _ = load_model(tmp_path / "broken" / "model")
    assert not moved(weights(whole.plain_model), weights(saved))
    assert not any(isinstance(module, CumulativeBatchNorm) for module in saved.modules())
    assert len(tasks["object"].classes) == 336
    said = yaml.safe_load((tmp_path / "broken" / "model" / "config.yaml").read_text())["tasks"]
    assert said["object"]["init_args"]["labels"] == "broden_plus/object"


def test_frozen_norms_keep_their_rule_and_their_statistics(root: Path, tmp_path: Path) -> None:
    trainer = make(root, tmp_path, freeze_backbone_norm=True)
    assert {
        isinstance(m, CumulativeBatchNorm) for m in trainer.norms if m in set(trainer.plain_model.backbone.modules())
    } == {False}
    assert any(isinstance(m, CumulativeBatchNorm) for m in trainer.plain_model.decoder.modules())


def test_norms_of_the_heads_that_train_alone_follow_the_rule(root: Path, tmp_path: Path) -> None:
    trainer = make(root, tmp_path, run={"init": "upp-mini"}, train_only=["material"])
    own = set(trainer.plain_model.heads["material"].modules())
    assert {norm for norm in trainer.norms if isinstance(norm, CumulativeBatchNorm)} == own & set(trainer.norms)
    fit(trainer)
    counts = {norm.num_batches_tracked.item() for norm in trainer.norms if norm in own}
    assert counts == {trainer.run.steps * trainer.optim.accumulate}
    assert all(norm.num_batches_tracked == 0 for norm in trainer.norms if norm not in own)


def test_a_label_of_the_whole_image_must_not_cover_padding(
    fake_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = content(fake_root, tmp_path)
    made["tasks"]["scene"]["class_path"] = "upernet.tasks.Texture"
    made["data"]["augment"] = {"short_sides": [32], "long_side": 64, "multiple": 32}
    assert main(["train", "--config", write(tmp_path / "recipe.yaml", made)]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "upernet: source 'places': task 'scene' would learn an image's one label on the padding of augment.short_sides "
        "too; give data.sources.places.augment crops, such as {crop: [512, 512]}"
    )


# --- several processes ----------------------------------------------------------------------------------------------


def content(fake_root: Path, out: Path, **optim: Any) -> dict[str, Any]:
    """Two tasks without a norm's own statistics where these are frozen; parts are left out to keep it short."""
    made = recipe(fake_root, out)
    del made["tasks"]["part"], made["data"]["sources"]["fronts"]["targets"]["part"]
    made["data"] |= {"draw": "step", "group_orientation": True}
    made["optim"] = {"lr": 0.02, "schedule": "constant"} | optim
    made["run"] |= {"steps": 3, "val_every": 0, "save_every": 3}
    return made


def assert_same_model(one: Path, other: Path, **tolerance: float) -> None:
    ours, theirs = (load_model(folder / "model")[0].state_dict() for folder in (one, other))
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, msg=name, **tolerance)


def test_two_processes_train_as_one_that_accumulates_two_batches(fake_root: Path, tmp_path: Path) -> None:
    """Images are of several sizes and partly unlabelled, so that batches differ in the number of labelled pixels."""
    made = content(fake_root, tmp_path / "two", freeze_norm=0.0, loss_average="batches")
    made["data"]["augment"] = {"short_sides": [32, 40, 48], "long_side": 80, "multiple": 32, "label_stride": 4}
    config = write(tmp_path / "recipe.yaml", made)
    codes, errors = in_two_processes(["train", "--config", config])
    assert codes == [0, 0], errors
    assert main(["train", "--config", config, "--run.out", str(tmp_path / "one"), "--optim.accumulate", "2"]) == 0
    assert_same_model(tmp_path / "one", tmp_path / "two", rtol=1e-4, atol=1e-6)


def test_two_processes_share_the_statistics_of_cumulative_norms(fake_root: Path, tmp_path: Path) -> None:
    """They train as one process with the whole batch, whose norms see the same images."""
    made = content(fake_root, tmp_path / "two", norm_rule="cumulative")
    made["data"]["group_orientation"] = False
    config = write(tmp_path / "recipe.yaml", made)
    codes, errors = in_two_processes(["train", "--config", config])
    assert codes == [0, 0], errors
    assert main(["train", "--config", config, "--run.out", str(tmp_path / "one"), "--data.batch", "4"]) == 0
    assert_same_model(tmp_path / "one", tmp_path / "two", rtol=1e-3, atol=1e-5)
