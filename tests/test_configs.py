"""Every shipped configuration is read, built with a tiny backbone, and takes a step from each of its sources."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import fake_broden
import fake_data
import pytest
import timm
import torch

from upernet.config import PAPER_INFERENCE
from upernet.data.mixture import SourceMixture, bind_sources
from upernet.engine.optim import lr_factor
from upernet.engine.trainer import Trainer
from upernet.model.build import build_model
from upernet.options import read_options
from upernet.recipes import CONFIGS, shipped_recipes
from upernet.store.loading import load_model

SHIPPED = shipped_recipes()
PUBLISHED = [name for name in SHIPPED if not name.startswith(("upp/", "camvid/", "broden_plus/"))]
JOINT = [name for name in SHIPPED if name.startswith("broden_plus/upp_")]
# The others differ from these in the depth of the backbone and the number of steps alone.
_EACH = ("r50_769x769_40k.yaml", "r50_512x1024_40k.yaml", "r50_512x512_80k.yaml", "r50_512x512_20k.yaml")
STEPPED = [name for name in SHIPPED if name not in PUBLISHED or name.endswith(_EACH)]


def command(name: str, folder: Path) -> list[str]:
    """The words of the `upernet train` line at the top of a shipped file."""
    text = (CONFIGS / name).read_text()
    line = next(line for line in text.splitlines() if line.startswith("#") and " upernet train " in line)
    words = line.split(" upernet train ")[1].split()
    return [{"<model>": "upp-mini", "<folder>": str(folder)}.get(word, word) for word in words]


@pytest.fixture(scope="session")
def published_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published data sets where the recipes expect them."""
    folder = tmp_path_factory.mktemp("published")
    fake_broden.prepared(folder / "data" / "broden_plus")
    fake_data.camvid(folder / "data" / "camvid")
    fake_data.ade20k(folder / "data" / "ade" / "ADEChallengeData2016")
    fake_data.cityscapes(folder / "data" / "cityscapes")
    devkit = fake_data.voc(folder / "data" / "VOCdevkit" / "VOC2012", counts={"train": 3, "aug": 3, "val": 2})
    shutil.copytree(devkit / "SegmentationClass", devkit / "SegmentationClassAug")
    return folder


@pytest.fixture
def options(
    request: pytest.FixtureRequest,
    fake_root: Path,
    published_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Any]:
    """What the command of a shipped file asks for, and of the model it starts from what its sources teach."""
    monkeypatch.setenv("UPERNET_DATA", str(fake_root))
    monkeypatch.chdir(published_data)
    words = command(request.param, tmp_path)
    assert request.param in words
    asked = read_options("train", words)
    if asked["run"].init:
        known, taught = load_model("upp-mini")[1], {t for s in asked["data"].sources.values() for t in s.targets}
        asked["tasks"] = {n: t for n, t in known.items() if (t.target or n) in taught} | asked["tasks"]
    return asked


def test_there_are_some() -> None:
    assert "upp/upp_mini.yaml" in SHIPPED
    assert len(PUBLISHED) == 16
    assert len(STEPPED) == 15
    assert len(JOINT) == 4


@pytest.mark.parametrize("options", SHIPPED, indirect=True)
def test_is_read_and_its_labels_have_a_meaning(options: dict[str, Any]) -> None:
    assert options["run"].init or timm.is_model(options["model"].backbone)
    bound = bind_sources(options["data"], options["tasks"])
    measured = {key for source in bound.values() for key, target in source.supervision.items() if target.evaluate}
    trained = {key for source in bound.values() for key in source.supervision}
    for name, task in options["tasks"].items():
        assert (task.target or name) in trained
        assert task.auxiliary or (task.target or name) in measured


@pytest.mark.parametrize("options", STEPPED, indirect=True)
def test_takes_a_step_from_every_source_and_measures_every_task(options: dict[str, Any], tmp_path: Path) -> None:
    """The recipe as it is shipped, but for sizes: backbone, width, crop, batch."""
    tasks, alone = options["tasks"], options["optim"].train_only
    sources = {name: replace(s, augment=None, batch=None) for name, s in options["data"].sources.items()}
    geometry: dict[str, Any] = {"crop": (64, 64)} | (
        {"box": (64, 64)} if options["data"].augment.box else {"short_side": 64}
    )
    if options["data"].augment.short_sides:
        geometry = {"short_sides": (64,), "long_side": 128}
    augment = replace(options["data"].augment, **geometry)
    data = replace(options["data"], sources=sources, augment=augment, batch=2, workers=0)
    torch.manual_seed(0)
    model = build_model(replace(options["model"], backbone="test_efficientnet", width=8), tasks)
    trainer = Trainer(
        model,
        tasks,
        bind_sources(data, tasks),
        data=data,
        optim=options["optim"],
        run=replace(options["run"], out=str(tmp_path), device="cpu"),
        inference=replace(options["inference"], short_side=64, max_side=128),
    )
    before = {name: value.clone() for name, value in model.named_parameters()}
    for source in trainer.mixture.sources:
        batch = SourceMixture([source], data, steps=1, seed=0)[0]
        losses, _ = trainer._train_step(repeat(batch))  # type: ignore[arg-type]
        asked = {
            n for n, task in tasks.items() if (task.target or n) in source.supervision and (not alone or n in alone)
        }
        assert set(losses) == asked
        assert all(0 < loss < 100 for loss in losses.values())
    still = {name for name, value in model.named_parameters() if torch.equal(value, before[name])}
    assert still == {name for name, value in model.named_parameters() if not value.requires_grad}
    results = trainer.validate()
    assert {(r.source, r.task) for r in results} == {
        (s.name, n) for s in trainer.sources.values() for n, t in tasks.items()
        if (target := s.supervision.get(t.target or n)) and target.evaluate and not t.auxiliary and s.config.val
    }  # fmt: skip
    assert all(0 <= next(iter(r.values.values())) <= 1 for r in results)


PARAMETERS = {
    ("R-50", 150): 66_516_108,
    ("R-50", 19): 66_415_238,
    ("R-50", 21): 66_416_778,
    ("R-101", 150): 85_508_236,
    ("R-101", 19): 85_407_366,
    ("R-101", 21): 85_408_906,
}
"""Of the whole network with its auxiliary head (SPEC A3)."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_says_what_the_published_recipe_says(name: str, spec_dir: Path) -> None:
    """Every number of the specification's row, read from the recipe as it is shipped."""
    asked = read_options("train", ["--config", name])
    data, row = asked["data"], _row(name, spec_dir)
    optim, augment, inference, run = asked["optim"], data.augment, asked["inference"], asked["run"]
    (source,) = data.sources.values()
    assert asked["model"].backbone == {"R-50": "resnet50c", "R-101": "resnet101c"}[row["backbone"]]
    assert asked["model"].align_corners is row["align_corners"]
    assert (asked["model"].width, asked["model"].pool_scales, asked["model"].level_norm) == (512, (1, 2, 3, 6), False)
    assert len(asked["tasks"]["semantic"].classes) == row["num_classes"]
    for task in asked["tasks"].values():
        assert task.dropout == row["dropout"]
        (loss,) = task.losses
        assert loss.average == ("labelled" if row["avg_non_ignore"] else "all")
    assert (asked["tasks"]["semantic"].weight, asked["tasks"]["auxiliary"].weight) == (
        row["decode_loss_weight"],
        row["aux_loss_weight"],
    )
    wanted = row["optimizer"]
    assert (optim.name, optim.lr, optim.momentum, optim.weight_decay) == (
        "sgd", wanted["lr"], wanted["momentum"], wanted["weight_decay"]
    )  # fmt: skip
    assert optim.decay_all and optim.clip is None and optim.backbone_lr is None and optim.warmup == 0
    assert (optim.schedule, optim.power, optim.min_lr) == ("poly", row["schedule"]["power"], row["schedule"]["min_lr"])
    assert (run.steps, run.val_every) == (row["iterations"], row["val_and_checkpoint_interval"])
    assert run.save_every <= run.val_every
    assert (run.log_every, optim.min_lr_at_last_step, optim.accumulate, optim.ema) == (50, False, 1, None)
    auxiliary = asked["tasks"]["auxiliary"]
    assert (auxiliary.level, auxiliary.convs, auxiliary.width, auxiliary.target) == ("c4", 1, 256, "semantic")
    assert (auxiliary.auxiliary, asked["tasks"]["semantic"].convs, run.precision) == (True, 0, "32-true")
    with torch.device("meta"):
        built = build_model(asked["model"], asked["tasks"])
    assert sum(p.numel() for p in built.parameters()) == PARAMETERS[row["backbone"], row["num_classes"]]
    assert (source.batch or data.batch) * row["gpus"] == row["total_batch"]
    steps = {step["op"]: step for step in row["train_pipeline"]}
    assert augment.box == tuple(steps["random_resize"]["scale_long_short"])
    assert augment.scale == tuple(steps["random_resize"]["ratio_range"])
    assert augment.crop == tuple(steps["random_crop"]["crop_hw"])
    assert augment.cat_max_ratio == steps["random_crop"]["cat_max_ratio"]
    assert augment.flip == steps["random_flip"]["prob"]
    assert augment.photometric
    mean = steps["bgr_to_rgb_and_normalize"]["mean"]
    assert asked["model"].mean == augment.pad_colour == pytest.approx(tuple(v / 255 for v in mean))
    assert asked["model"].std == pytest.approx(tuple(v / 255 for v in steps["bgr_to_rgb_and_normalize"]["std"]))
    test = row["test"]
    assert (inference.max_side, inference.short_side) == tuple(test["resize_long_short"])
    assert inference.window == (tuple(test["crop"]) if test["crop"] else None)
    assert inference.stride == (tuple(test["stride"]) if test["stride"] else None)


def _row(name: str, spec_dir: Path) -> dict[str, Any]:
    """The specification's recipe of a shipped file: `ade20k/upernet_r50_512x512_80k.yaml`."""
    folder, _, stem = name.removesuffix(".yaml").partition("/")
    _, backbone, crop, steps = stem.split("_")
    rows = json.loads((spec_dir / "recipes.json").read_text())
    (row,) = [
        r for r in rows
        if f"_{backbone}_" in r["config"] and crop in r["config"] and f"-{steps}_{folder}" in r["config"]
    ]  # fmt: skip
    return row


@pytest.mark.parametrize("options", JOINT, indirect=True)
def test_says_what_the_authors_code_says(options: dict[str, Any]) -> None:
    """The data side of SPEC E5, which all recipes on Broden+ share, and A4's network."""
    data, tasks, model, optim = options["data"], options["tasks"], options["model"], options["optim"]
    augment, inference = data.augment, options["inference"]
    assert (data.batch, data.draw, data.group_orientation) == (2, "step", True)
    assert (augment.short_sides, augment.long_side, augment.flip) == ((300, 375, 450, 525, 600), 1200, 0.5)
    assert (augment.multiple, augment.label_stride) == (32, 4)
    assert augment.pad_colour == model.mean
    colours = (augment.brightness, augment.contrast, augment.saturation, augment.hue, augment.grey)
    assert (colours, augment.photometric) == ((0, 0, 0, 0, 0), False)
    assert {n: (len(t.classes), t.weight, t.width, t.level) for n, t in tasks.items()} == {
        "scene": (365, 0.25, 512, "ppm"),
        "object": (336, 1.0, 512, "fused"),
        "part": (427, 0.5, 512, "fused"),
        "material": (26, 1.0, 512, "p2"),
    }
    assert tasks["part"].needs_a_part
    assert {name: set(source.targets) for name, source in data.sources.items()} == {
        "scene_parsing": {"object", "part", "scene"},
        "materials": {"material"},
    }
    assert all(source.weight is None for source in data.sources.values())  # drawn by the number of images
    assert (model.width, model.pooling, model.ppm_order, model.align_corners) == (
        512,
        "precise",
        "upsample_conv",
        False,
    )
    assert (optim.loss_average, optim.decay_all, optim.min_lr, options["run"].steps) == ("batches", False, 0, 200_000)
    assert (inference, data.protocol) == (PAPER_INFERENCE, "paper")


@pytest.mark.parametrize("options", ["broden_plus/upp_r50.yaml", "broden_plus/upp_r101.yaml"], indirect=True)
def test_trains_as_the_authors_code_does(options: dict[str, Any], spec_dir: Path) -> None:
    optim, model = options["optim"], options["model"]
    assert (optim.name, optim.momentum, optim.weight_decay, optim.warmup) == ("sgd", 0.9, 1e-4, 0)
    assert (optim.norm_rule, optim.clip, optim.ema, optim.backbone_lr) == ("cumulative", None, None, None)
    for step, lr in ((0, 0.02), (50_000, 0.01543779), (100_000, 0.01071773), (150_000, 0.00574349)):
        assert optim.lr * lr_factor(optim, step, options["run"].steps) == pytest.approx(lr, abs=5e-9)
    assert [255 * mean for mean in model.mean] == pytest.approx([122.7717, 115.9465, 102.9801])
    assert [255 * std for std in model.std] == pytest.approx([1, 1, 1])
    with torch.device("meta"):
        built = build_model(model, options["tasks"])
    stem = [m.out_channels for m in built.backbone.body.conv1 if isinstance(m, torch.nn.Conv2d)]
    assert stem == [64, 64, 128]
    files = ["multitask_decoder.json"] + (["multitask_encoder_r50.json"] if model.backbone == "resnet50s" else [])
    theirs = [shapes for file in files for shapes in json.loads((spec_dir / "keys" / file).read_text()).items()]
    ours = [built.decoder, built.heads] + ([built.backbone] if len(files) == 2 else [])
    trained = [math.prod(shape) for name, shape in theirs if name.endswith((".weight", ".bias"))]
    assert sorted(trained) == sorted(p.numel() for part in ours for p in part.parameters())
