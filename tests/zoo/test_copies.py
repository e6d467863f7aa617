"""A model that is published in two places: the second is tried where the first fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from refusals import told_by

from upernet.errors import WorkError
from upernet.zoo.fetch import fetch_published
from upernet.zoo.published import Published

NAMES = ("encoder_epoch_40.pth", "decoder_epoch_40.pth")
ASKED: list[str] = []


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder, and remembers what it was asked for."""

    def do_GET(self) -> None:
        ASKED.append(self.path)
        super().do_GET()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder with the places `one` and `two`, each with both files, and its address."""
    for name in ("UPERNET_MIRROR", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    ASKED.clear()
    for place in ("one", "two"):
        (tmp_path / "served" / place).mkdir(parents=True)
        for name in NAMES:
            torch.save(
                {"from": f"{place}/{name}"}, tmp_path / "served" / place / name,
                _use_new_zipfile_serialization=place == "one",
            )  # fmt: skip
    handler = partial(Handler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield tmp_path / "served", f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


def pair(first: str, second: str) -> Published:
    return Published(
        name="pair",
        dataset="broden_plus",
        backbone="R-50",
        classes="broden_plus",
        addresses=tuple(f"{first}/{name}" for name in NAMES),
        copies=tuple(f"{second}/{name}" for name in NAMES),
    )


def origins(paths: list[Path]) -> list[str]:
    return [torch.load(path, weights_only=True)["from"] for path in paths]


def test_the_first_place_is_enough(served: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    _, host = served
    assert origins(fetch_published(pair(f"{host}/one", f"{host}/two"))) == [f"one/{name}" for name in NAMES]
    assert [f"/one/{name}" for name in NAMES] == ASKED
    assert "trying" not in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["missing", "page", "unreachable", "half"])
def test_all_files_come_from_the_second_place(
    fault: str, served: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, host = served
    first = f"{host}/one"
    if fault == "missing":
        (folder / "one" / NAMES[0]).unlink()
        line = f"{first}/{NAMES[0]}: HTTP 404 File not found"
    elif fault == "half":
        (folder / "one" / NAMES[1]).unlink()
        line = f"{first}/{NAMES[1]}: HTTP 404 File not found"
    elif fault == "page":
        (folder / "one" / NAMES[0]).write_text("<html>We have moved.</html>")
        line = f"{first}/{NAMES[0]}: begins with b'<html>We', so it is no checkpoint; it was deleted"
    else:
        first = "http://127.0.0.1:9"
        line = f"{first}/{NAMES[0]}: Connection refused"
    model = pair(first, f"{host}/two")
    assert origins(fetch_published(model)) == [f"two/{name}" for name in NAMES]
    told = [text for text in capsys.readouterr().err.splitlines() if "trying" in text]
    assert told == [f"upernet: {line}; trying {host}/two/{NAMES[0]}"]
    # What has been fetched from the second place serves from now on, without a word.
    ASKED.clear()
    assert origins(fetch_published(model)) == [f"two/{name}" for name in NAMES]
    assert ASKED == []
    assert capsys.readouterr().err == ""


def test_where_neither_has_it_the_second_is_told_of(
    served: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, host = served
    for place in ("one", "two"):
        (folder / place / NAMES[0]).write_text("<html>")
    line = told_by(lambda: fetch_published(pair(f"{host}/one", f"{host}/two")), WorkError)
    assert line == f"{host}/two/{NAMES[0]}: begins with b'<html>', so it is no checkpoint; it was deleted"
    assert f"trying {host}/two/{NAMES[0]}" in capsys.readouterr().err
    assert not list((folder.parent / "cache").rglob("*.pth"))
    assert not list((folder.parent / "cache").rglob("*.part"))
