"""A published network by name, through a mirror, and by address."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from foreign_files import toolbox, toolbox_file
from PIL import Image

from upernet.cli import main
from upernet.zoo.published import Published


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
