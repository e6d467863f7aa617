"""Where files of other software keep their tensors and settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from foreign_files import network, same, saved, toolbox, toolbox_file
from safetensors.torch import load_file, save_file

import upernet
from upernet.cli import main
from upernet.config import InferenceConfig
from upernet.errors import UserError, WorkError
from upernet.store.checkpoints import open_checkpoint
from upernet.store.dialects import mmseg
from upernet.store.foreign import read_foreign


def test_wrappers_without_end(tmp_path: Path) -> None:
    torch.save({"module." * 40_000 + "x": torch.zeros(1)}, tmp_path / "long.pth")
    with pytest.raises(UserError, match="not those of a UPerNet") as caught:
        upernet.load(tmp_path / "long.pth")
    assert len(str(caught.value)) < 1000


def test_a_date_is_no_hash(tmp_path: Path) -> None:
    text = "model = dict(decode_head=dict(pool_scales=(1, 2)))"
    path = toolbox_file(tmp_path / "mine-20240101.pth", toolbox("plain"), text)
    assert open_checkpoint([path]).name == str(path)


@pytest.mark.parametrize("wrap", ["module.", "model."])
def test_wrappers_and_other_places_of_the_state_dict(tmp_path: Path, wrap: str) -> None:
    model, tasks = network(toolbox("plain"))
    theirs, meta = mmseg.write(model, tasks, InferenceConfig())
    torch.save({"model": {wrap + k: v for k, v in theirs.items()}, "meta": meta, "epoch": 3}, tmp_path / "w.pth")
    assert same(model, upernet.load(tmp_path / "w.pth", reference=True).model)


def test_what_a_training_loop_keeps_beside_the_network_is_named(tmp_path: Path) -> None:
    theirs, meta = mmseg.write(*network(toolbox("plain")), InferenceConfig())
    wrapped = {f"model.{k}": v for k, v in theirs.items()}
    beside = {"mean": torch.zeros(3), "std": torch.ones(3)}
    torch.save({"state_dict": wrapped | beside, "meta": meta}, tmp_path / "lightning.ckpt")
    with pytest.raises(WorkError, match=r"2 tensors have no place in this network: mean, std$"):
        read_foreign([tmp_path / "lightning.ckpt"])
    key = "backbone.conv1.weight"
    torch.save({"state_dict": wrapped | {key: theirs[key]}, "meta": meta}, tmp_path / "twice.ckpt")
    with pytest.raises(WorkError, match=r"holds model\.backbone\.conv1\.weight with and without 'model\.'"):
        read_foreign([tmp_path / "twice.ckpt"])


def test_epochs_are_not_mixed(tmp_path: Path) -> None:
    for name in ("encoder_epoch_1.pth", "decoder_epoch_2.pth"):
        torch.save({"x": torch.zeros(1)}, tmp_path / name)
    with pytest.raises(UserError, match="holds epochs 1, 2"):
        upernet.load(tmp_path)


def test_a_published_name_must_fit_the_file(tmp_path: Path) -> None:
    path = toolbox_file(tmp_path / "upernet_r18-00000000.pth", toolbox("plain"))
    with pytest.raises(WorkError, match="sha256 begins with"):
        upernet.load(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"upsampling": 4, "upsampling": 8}', "names 'upsampling' twice"),
        ("[4]", "holds a list; expected a mapping"),
        ("{", "no readable JSON"),
        ("[" * 100_000, "no readable JSON"),
        (" " * (2**24 + 1), "is longer than"),
    ],
)
def test_settings_that_are_none(tmp_path: Path, text: str, says: str) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(WorkError) as caught:
        open_checkpoint([tmp_path])
    line = str(caught.value)
    assert line.startswith(f"{tmp_path / 'config.json'}: {says}")
    assert "\n" not in line


def test_sharded_files_of_the_hub(tmp_path: Path) -> None:
    model, tasks = network(toolbox("plain"))
    assert main(["convert", str(saved(tmp_path, model, tasks)), str(tmp_path / "hub"), "--to", "huggingface"]) == 0
    whole = load_file(tmp_path / "hub" / "model.safetensors")
    (tmp_path / "hub" / "model.safetensors").unlink()
    names = sorted(whole)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for name, keys in shards.items():
        save_file({k: whole[k] for k in keys}, tmp_path / "hub" / name)
    index = {"weight_map": {k: name for name, keys in shards.items() for k in keys}}
    (tmp_path / "hub" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert same(model, upernet.load(tmp_path / "hub", reference=True).model)
    index["weight_map"][names[0]] = "../elsewhere.safetensors"
    (tmp_path / "hub" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WorkError, match="which is no file beside it"):
        upernet.load(tmp_path / "hub")


def test_entries_that_are_no_tensors_are_named(tmp_path: Path) -> None:
    """Among tensors, that is; beside the state dict training loops keep what they like."""
    theirs, meta = mmseg.write(*network(toolbox("plain")), InferenceConfig())
    torch.save({"state_dict": theirs | {"decode_head.scale": 2.0}, "meta": meta, "epoch": 3}, tmp_path / "odd.pth")
    with pytest.raises(WorkError, match=r"1 of \d+ entries .* are no tensors: decode_head\.scale \(float\)"):
        read_foreign([tmp_path / "odd.pth"])
