"""A network from anything that a user may name, and one line for everything that is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_model import edit, save, told

from upernet.store.loading import find_model, load_model
from upernet.store.native import CONFIG, WEIGHTS
from upernet.zoo.shipped import shipped_models


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "m")


def test_no_model_is_told(folder: Path) -> None:
    line = told(folder / "nowhere")
    assert line.startswith(
        f"{folder / 'nowhere'}: no such model; give a folder with model.safetensors and config.yaml, "
    )


def test_half_a_model_folder_is_told(folder: Path) -> None:
    weights = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).unlink()
    assert told(folder) == f"{folder}: holds config.yaml, but no model.safetensors beside it"
    (folder / CONFIG).unlink()
    assert told(folder).startswith(f"{folder}: no checkpoint files; give one file, or a folder with")
    (folder / WEIGHTS).write_bytes(weights)
    assert "are not those of a UPerNet" in told(folder)


def test_addresses_of_other_kinds_are_told() -> None:
    assert told("ftp://host/model.pth").startswith("'ftp://host/model.pth' is no address of weights")


def test_what_is_published_and_not_read_says_why() -> None:
    assert "is published, but cannot be read: " in told("upernet_beit-base_8x2_640x640_160k_ade20k")


def test_a_shipped_model_is_found_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upernet.zoo.shipped.SHIPPED", folder.parent)
    assert shipped_models() == {"m": folder}
    assert find_model("m") == [folder]
    assert "a shipped model (m) or of a published one (upernet models lists them)" in told("n")


@pytest.mark.parametrize("size", [0, 5, 1000, -1])
def test_damaged_weights_are_told(folder: Path, size: int) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:size])
    assert told(folder).startswith(f"{path}: no readable safetensors file (")


def test_a_network_of_modules_without_end_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upernet.model.build.MAX_MODULES", 400)
    load_model(folder)
    path = edit(folder, lambda c: c["model"].update(backbone="resnet18", backbone_args={"layers": [10**9, 1, 1, 1]}))
    assert told(folder) == f"{path}: asks for a network of more than 400 modules; it may be hostile"


def test_tables_that_no_file_pays_for_are_told(folder: Path) -> None:
    """Positions in windows of 128 are compared pair by pair: gigabytes from a table of 65,025 rows."""
    shape = {"depths": [1, 1, 1, 1], "embed_dim": 8, "num_heads": [1, 1, 1, 1], "window_size": 128}
    path = edit(
        folder,
        lambda c: c["model"].update(backbone="swin_tiny_patch4_window7_224", backbone_args={**shape, "img_size": 4096}),
    )
    assert told(folder).startswith(f"{path}: implies tables of ")


def test_an_index_that_leads_elsewhere_is_told(tmp_path: Path) -> None:
    index = tmp_path / "model" / "pytorch_model.bin.index.json"
    index.parent.mkdir()
    (tmp_path / "model-1-of-2.bin").write_bytes(b"outside")
    for name in ("../model-1-of-2.bin", "..", str(tmp_path / "model-1-of-2.bin")):
        index.write_text(json.dumps({"weight_map": {"x": name}}))
        assert told(index.parent) == f"{index}: names {name!r}, which is no file beside it; valid: 'model-1-of-2.bin'"
    index.write_text(json.dumps({"weight_map": {"x": "model-1-of-2.bin"}}))
    assert told(index.parent) == (
        f"{index}: names the weight file 'model-1-of-2.bin', which is not beside it; download it too"
    )


def test_weights_that_claim_what_no_network_has_are_told(folder: Path) -> None:
    header = b'{"x":{"dtype":"F32","shape":[0,1099511627776],"data_offsets":[0,0]}}'
    (folder / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header)
    assert told(folder).startswith(f"{folder / WEIGHTS}: tensor 'x' claims a side of 1099511627776")


def test_weights_of_another_network_are_told(folder: Path) -> None:
    edit(folder, lambda c: c["tasks"]["object"]["init_args"]["labels"].append("tree"))
    line = told(folder)
    assert line.startswith(
        f"{folder / WEIGHTS}: 2 tensors do not fit the network, width 8 on test_resnet: heads.object."
    )
    edit(folder, lambda c: c["tasks"].pop("scene"))
    assert "heads.scene.classifier.bias has no place" in told(folder)
