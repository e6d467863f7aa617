"""A network by file, by name and by address."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_files import toolbox, toolbox_file
from PIL import Image
from tiny_model import edit, save

import upernet
from upernet.cli import main
from upernet.errors import UserError
from upernet.model import UPerNet
from upernet.store.loading import find_model, load_model
from upernet.store.native import CONFIG, WEIGHTS
from upernet.zoo.published import Published
from upernet.zoo.shipped import shipped_models


def test_a_file_called_like_a_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "model = dict(test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(99, 99)), "
        "decode_head=dict(pool_scales=(1, 2)))"
    )
    monkeypatch.chdir(tmp_path)
    toolbox_file(Path("inference"), toolbox("plain"), text)
    with pytest.raises(UserError, match=r"^inference: inference\.stride: "):
        upernet.load("inference")


def test_a_network_is_planned_once_and_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = toolbox_file(tmp_path / "old.pth", toolbox("plain"), "model = dict(decode_head=dict(pool_scales=(1, 2)))")
    built = []
    monkeypatch.setattr("upernet.model.build.UPerNet", lambda *args: built.append(UPerNet(*args)) or built[-1])
    upernet.load(path)
    assert [next(model.parameters()).is_meta for model in built] == [True, False]


def test_a_foreign_model_parses(tmp_path: Path) -> None:
    text = "model = dict(decode_head=dict(pool_scales=(1, 2)))"
    path = toolbox_file(tmp_path / "old.pth", toolbox("plain"), text)
    prediction = upernet.load(path)(torch.rand(3, 70, 50))
    assert prediction["semantic"].shape == (70, 50)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address under which it is served."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()


def published_file(folder: Path) -> Path:
    """A checkpoint named as published ones are, by the first digits of its hash."""
    text = "model = dict(decode_head=dict(pool_scales=(1, 2)))\ntest_pipeline = [dict(type='Resize', scale=(128, 64))]"
    path = toolbox_file(folder / "upernet.pth", toolbox("plain"), text)
    return path.rename(folder / f"upernet_r18-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth")


def test_a_photograph_parsed_by_a_published_model(
    tmp_path: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By name through a mirror, and by address: downloaded, verified, opened, run."""
    folder, address = server
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    path = published_file(folder)
    row = Published(
        name="upernet_r18",
        dataset="ade20k",
        backbone="R-18",
        classes="ade20k",
        addresses=(f"https://weights.invalid/{path.name}",),
        sha256=path.stem[-8:],
    )
    monkeypatch.setattr("upernet.store.loading.find_published", {"upernet_r18": row}.get)
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)).save(photo)
    words = ["predict", str(photo), "--out", str(tmp_path / "out")]
    assert main([*words, "--model", "upernet_r18", "--mirror", address]) == 0
    assert (tmp_path / "cache" / "hub" / "checkpoints" / path.name).read_bytes() == path.read_bytes()
    with Image.open(tmp_path / "out" / "photo.semantic.png") as picture:
        assert picture.size == (60, 40)
    path.unlink()  # from now on the cache must do
    assert main([*words, "--model", f"{address}/{path.name}"]) == 0
    assert main(["convert", f"{address}/{path.name}", str(tmp_path / "ours")]) == 0
    assert main([*words, "--model", f"{address}/other-12345678.pth"]) == 1
    assert "404" in capsys.readouterr().err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "m")


def told(folder: str | Path) -> str:
    with pytest.raises(UserError) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_model_is_told(folder: Path) -> None:
    line = told(folder / "nowhere")
    assert line.startswith(f"{folder / 'nowhere'}: no model; give a folder with model.safetensors and config.yaml, ")


def test_half_a_model_folder_is_told(folder: Path) -> None:
    weights = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).unlink()
    assert told(folder) == f"{folder}: holds config.yaml, but no model.safetensors beside it"
    (folder / CONFIG).unlink()
    assert told(folder).startswith(f"{folder}: no checkpoint files; give one file, or a folder with")
    (folder / WEIGHTS).write_bytes(weights)
    assert "no UPerNet by its tensors" in told(folder)


def test_addresses_of_other_kinds_are_told() -> None:
    assert told("ftp://host/model.pth").startswith("'ftp://host/model.pth' is no address of weights")


def test_what_is_published_and_not_read_says_why() -> None:
    assert "published, but not read: " in told("upernet_beit-base_8x2_640x640_160k_ade20k")


def test_a_shipped_model_is_found_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upernet.zoo.shipped.SHIPPED", folder.parent)
    monkeypatch.setattr("upernet.store.loading.SHIPPED", folder.parent)
    assert shipped_models() == ["m"]
    assert find_model("m") == [folder]
    assert "shipped inside is m, upernet models" in told("n")


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
        assert told(index.parent) == f"{index}: names no weight files beside it but {name!r}; valid: 'model-1-of-2.bin'"
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
