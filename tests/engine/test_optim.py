"""Schedules against published check values, and who is moved how."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from upernet.config import ModelConfig, OptimConfig
from upernet.engine.optim import build_optimizer, lr_factor, parameter_groups
from upernet.model import UPerNet
from upernet.tasks import Scene, Semantic

# --- schedules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "steps", "lr"),
    [
        (0, 20_000, 0.01),
        (5_000, 20_000, 0.00774171),
        (10_000, 20_000, 0.00540528),
        (15_000, 20_000, 0.00294303),
        (19_999, 20_000, 0.00010133),
        (40_000, 160_000, 0.00774171),
    ],
)
def test_poly_of_the_published_rows(step: int, steps: int, lr: float) -> None:
    config = OptimConfig(lr=0.01, min_lr=1e-4, power=0.9, schedule="poly")
    assert 0.01 * lr_factor(config, step, steps) == pytest.approx(lr, abs=5e-9)


@pytest.mark.parametrize(
    ("step", "lr"), [(0, 0.02), (50_000, 0.01543779), (100_000, 0.01071773), (150_000, 0.00574349)]
)
def test_poly_without_floor_of_the_multi_task_code(step: int, lr: float) -> None:
    config = OptimConfig(lr=0.02, min_lr=0.0)
    assert 0.02 * lr_factor(config, step, 200_000) == pytest.approx(lr, abs=5e-9)


def test_cosine() -> None:
    config = OptimConfig(lr=0.01, min_lr=0.002, schedule="cosine")
    factors = [lr_factor(config, step, 100) for step in (0, 25, 50, 75, 100)]
    assert factors == pytest.approx([1, 0.2 + 0.8 * 0.8535534, 0.6, 0.2 + 0.8 * 0.1464466, 0.2])


def test_constant() -> None:
    assert {lr_factor(OptimConfig(schedule="constant"), step, 10) for step in range(10)} == {1.0}


def test_warm_up_rises_from_a_thousandth_to_the_schedule() -> None:
    config, plain = OptimConfig(warmup=10), OptimConfig()
    for step, ramp in ((0, 1e-3), (5, 0.5005), (9, 0.9001)):
        assert lr_factor(config, step, 100) == pytest.approx(ramp * lr_factor(plain, step, 100))
    assert [lr_factor(config, step, 100) for step in (10, 50)] == [lr_factor(plain, step, 100) for step in (10, 50)]


@settings(deadline=None)
@given(
    schedule=st.sampled_from(["poly", "cosine", "constant"]),
    lr=st.floats(1e-5, 1),
    floor=st.floats(0, 1),
    warmup=st.integers(0, 50),
    steps=st.integers(1, 100),
)
def test_never_above_the_peak_nor_below_the_floor_and_falling(
    schedule: str, lr: float, floor: float, warmup: int, steps: int
) -> None:
    config = OptimConfig(schedule=schedule, lr=lr, min_lr=floor * lr, warmup=warmup)  # type: ignore[arg-type]
    factors = [lr_factor(config, step, steps) for step in range(steps)]
    assert all(0 < factor <= 1 + 1e-12 for factor in factors)
    after = factors[warmup:]
    assert all(factor >= floor - 1e-12 for factor in after)
    assert all(a >= b - 1e-12 for a, b in pairwise(after))


# --- parameter groups -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> UPerNet:
    tasks = {"semantic": Semantic(labels=["a", "b"]), "scene": Scene(labels=["x", "y"], width=8)}
    return UPerNet(ModelConfig(backbone="test_resnet", width=8), tasks)


def names_of(model: nn.Module, groups: list[dict]) -> list[set[str]]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [{names[parameter] for parameter in group["params"]} for group in groups]


def test_one_group_by_default(model: UPerNet) -> None:
    (group,) = parameter_groups(model, OptimConfig(lr=0.3, weight_decay=0.2))
    assert (group["lr"], group["peak"], group["weight_decay"]) == (0.3, 0.3, 0.2)
    assert len(group["params"]) == len(list(model.parameters()))


def test_backbone_rate_and_no_decay_of_norms_and_biases(model: UPerNet) -> None:
    config = OptimConfig(lr=0.3, backbone_lr=0.1, weight_decay=0.2, decay_all=False)
    groups = parameter_groups(model, config)
    named = names_of(model, groups)
    assert sum(map(len, named)) == len(set().union(*named)) == len(list(model.parameters()))
    dimensions = {name: parameter.ndim for name, parameter in model.named_parameters()}
    assert {(g["peak"], g["weight_decay"]) for g in groups} == {(0.3, 0.2), (0.3, 0.0), (0.1, 0.2), (0.1, 0.0)}
    for group, members in zip(groups, named, strict=True):
        assert group["lr"] == group["peak"]
        assert {name.startswith("backbone.") for name in members} == {group["peak"] == 0.1}
        assert {dimensions[name] > 1 for name in members} == {group["weight_decay"] == 0.2}


def test_a_backbone_that_stands_still(model: UPerNet) -> None:
    rates = {group["peak"] for group in parameter_groups(model, OptimConfig(backbone_lr=0.0))}
    assert rates == {0.0, 0.01}


def test_frozen_parameters_are_left_out(model: UPerNet) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("heads.scene."))
    try:
        (group,) = parameter_groups(model, OptimConfig())
        assert names_of(model, [group]) == [{n for n, _ in model.named_parameters() if n.startswith("heads.scene.")}]
    finally:
        model.requires_grad_(True)


def test_optimisers(model: UPerNet) -> None:
    sgd = build_optimizer(model, OptimConfig(momentum=0.8, weight_decay=0.1))
    assert isinstance(sgd, torch.optim.SGD)
    assert {key: sgd.param_groups[0][key] for key in ("lr", "peak", "momentum", "weight_decay", "nesterov")} == {
        "lr": 0.01, "peak": 0.01, "momentum": 0.8, "weight_decay": 0.1, "nesterov": False,
    }  # fmt: skip
    adamw = build_optimizer(model, OptimConfig(name="adamw", betas=(0.8, 0.95), backbone_lr=0.5))
    assert isinstance(adamw, torch.optim.AdamW)
    assert {group["betas"] for group in adamw.param_groups} == {(0.8, 0.95)}
    assert {group["peak"] for group in adamw.param_groups} == {0.01, 0.5}


def test_poly_that_reaches_its_floor_at_the_last_step() -> None:
    """The two readings of recent and older versions of the toolbox."""
    old, recent = (OptimConfig(lr=0.01, min_lr=1e-4, min_lr_at_last_step=last) for last in (False, True))
    assert lr_factor(recent, 99, 100) * 0.01 == pytest.approx(1e-4)
    assert lr_factor(old, 99, 100) * 0.01 > 1.5e-4
    assert lr_factor(recent, 0, 100) == lr_factor(old, 0, 100) == 1
    assert lr_factor(recent, 0, 1) == 1
