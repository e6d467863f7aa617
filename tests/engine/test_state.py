"""What a run needs to go on: its state, and the settings that must not change."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from fake_data import Memory
from safetensors.torch import load_file
from small_training import (
    LEVELS,
    OPTIMISERS,
    at_step,
    both_sources,
    both_tasks,
    fit,
    make,
    moved,
    rows,
    weights,
)
from torch import nn

from upernet.data.config import AugmentConfig, DataConfig, SourceConfig, TargetConfig
from upernet.engine.state import flat_settings
from upernet.engine.trainer import Trainer
from upernet.errors import UserError, WorkError
from upernet.store.loading import load_model
from upernet.tasks import Semantic, Task


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


def test_a_run_may_go_on_with_other_figures() -> None:
    assert "data.batch" in flat_settings(data=DataConfig())
    assert not any("protocol" in key for key in flat_settings(data=DataConfig(protocol="paper")))


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


def test_options_of_tasks_and_sources_may_be_younger_than_a_run_too(tmp_path: Path) -> None:
    def at(augment: AugmentConfig | None, **options: Any) -> Trainer:
        source = SourceConfig(dataset=Memory(), targets={"object": TargetConfig()}, augment=augment)
        return make(tmp_path, {"object": Semantic(labels=LEVELS, **options)}, {"maps": source}, steps=2)

    own = AugmentConfig(crop=(64, 64))
    trainer = at(own)
    trainer.run.steps = 1
    fit(trainer)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    for key in ("tasks.object.init_args.dropout", "data.sources.maps.augment.flip"):
        del state["settings"][key]
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(UserError, match=r"dropout '0\.1', not '0\.5'"):
        fit(at(own, dropout=0.5))
    with pytest.raises(UserError, match=r"augment\.aspect '1\.0', not None"):
        fit(at(None))
    fit(at(own))


def test_an_object_that_a_run_lacks_is_no_younger_option(tmp_path: Path) -> None:
    """An augmentation of the source's own is another one than that of all sources, even where both are the default."""
    sources = {"maps": SourceConfig(dataset=Memory(), targets={"object": TargetConfig()})}
    tasks: dict[str, Task] = {"object": Semantic(labels=LEVELS)}
    fit(make(tmp_path, tasks, sources, steps=1))
    sources["maps"].augment = AugmentConfig()
    with pytest.raises(UserError, match=r"data\.sources\.maps\.augment\.aspect None, not '1\.0'"):
        fit(make(tmp_path, tasks, sources, steps=2))


def test_data_may_move_between_two_parts_of_a_run(tmp_path: Path) -> None:
    def at(root: str) -> dict[str, SourceConfig]:
        return {"maps": SourceConfig(dataset=Memory(root=root), targets={"object": TargetConfig()})}

    tasks: dict[str, Task] = {"object": Semantic(labels=LEVELS)}
    fit(make(tmp_path, tasks, at("here"), steps=1))
    trainer = make(tmp_path, tasks, at("there"), steps=2)
    fit(trainer)
    assert trainer.step == 2
