"""The command: which files it writes, what it says, and how it goes on when something is wrong."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import upernet.parse.parser
from upernet.commands.predict import _distinct, predict
from upernet.config import InferenceConfig
from upernet.errors import UserError
from upernet.parse.parser import Parser, Prediction
from upernet.tasks import Object, Scene


class Bright(nn.Module):
    """Object 1 where the left or right half of the image is bright; always the same scene."""

    upsampling_align_corners = False

    def forward(self, image, tasks):
        light = image.mean(1, keepdim=True)
        light = torch.stack([light[..., : light.shape[-1] // 2].mean(), light[..., light.shape[-1] // 2 :].mean()])
        light = 20 * (light - 0.5)
        return {"scene": torch.tensor([[2.0, 0.0]]), "object": torch.stack([-light, light])[None, :, None]}


@pytest.fixture(autouse=True)
def shipped(monkeypatch):
    """`load` gives the stub; asked for anything else it answers as the real one does."""

    def load(name, device, trust=(), mirror=None, engine="auto", reference=False, images=1, precision="float32"):
        if name != "upp-mini":
            raise UserError(f"no model {name!r}; shipped: upp-mini")
        tasks = {"scene": Scene(labels=["street", "beach"]), "object": Object(labels=["road", "sky"])}
        return Parser(Bright(), tasks, InferenceConfig(), name)

    monkeypatch.setattr(upernet.parse.parser, "load", load)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """photos/{a.png,b.jpg,deep/a.png}, seen from inside the folder above; left half dark, right half bright."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, 30:] = 255
    for name in ("a.png", "b.jpg", "deep/a.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    monkeypatch.chdir(tmp_path)
    return Path("photos")


def written(folder: str = "upernet-out") -> set[str]:
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}


def files(*stems: str) -> set[str]:
    return {f"{stem}.{ending}" for stem in stems for ending in ("object.png", "parsed.jpg", "json")}


def test_one_photo(photos, capsys):
    assert predict(["photos/a.png"]) == 0
    assert written() == files("a")
    out, err = capsys.readouterr()
    assert out == "photos/a.png: scene street 88 %; object road 50 %, sky 50 % -> upernet-out/a.parsed.jpg\n"
    assert err == ""
    report = json.loads(Path("upernet-out/a.json").read_text("utf-8"))
    assert report["image"] == {"file": "photos/a.png", "width": 60, "height": 40}
    assert np.asarray(Image.open("upernet-out/a.object.png"))[:, [0, -1]].tolist() == [[0, 1]] * 40


def test_a_folder_keeps_its_sub_folders(photos):
    assert predict(["photos"], out=Path("results/here")) == 0
    assert written("results/here") == files("a", "b", "deep/a")


def test_the_same_stem_from_two_places_is_written_twice(photos):
    Image.new("RGB", (40, 40)).save("photos/a.bmp")
    assert predict(["photos/a.png", "photos/a.bmp", "photos/deep/a.png"]) == 0
    assert written() == files("a", "a-2", "a-3")


def test_distinct_targets():
    places = [Path(p) for p in ("a.jpg", "A.png", "a-2.jpg", "x/a.jpg", "a.tar.png", ".jpg")]
    assert [str(t) for t in _distinct(places)] == ["a", "A-2", "a-2-2", "x/a", "a.tar", ".jpg"]


def test_globs(photos):
    assert predict(["photos/**/*.png"]) == 0
    assert written() == files("a", "deep/a")


def test_one_bad_file_never_stops_the_rest(photos, capsys):
    Path("photos/bad.jpg").write_bytes(b"no image")
    Path("photos/cut.png").write_bytes(Path("photos/a.png").read_bytes()[:60])
    assert predict(["missing.jpg", "photos"]) == 1
    out, err = capsys.readouterr()
    assert written() == files("a", "b", "deep/a") and len(out.splitlines()) == 3
    assert [line.split(": ")[0] for line in err.splitlines()] == ["missing.jpg", "photos/bad.jpg", "photos/cut.png"]


def test_a_fault_of_any_kind_is_one_line(photos, capsys, monkeypatch):
    def fail(self, folder, stem):
        raise RuntimeError("broken\nin two lines") if stem == "a" else OSError(28, "No space left on device")

    monkeypatch.setattr(Prediction, "save", fail)
    assert predict(["photos/a.png", "photos/b.jpg"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "photos/a.png: broken in two lines",
        "photos/b.jpg: [Errno 28] No space left on device",
    ]


def test_nothing_found(photos, capsys):
    assert predict(["missing", "nothing*.jpg"]) == 1
    assert not Path("upernet-out").exists()
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_own_results_are_not_parsed_again(photos, capsys):
    assert predict(["."]) == predict(["."]) == 0
    assert written() == files("photos/a", "photos/b", "photos/deep/a")
    assert predict(["upernet-out"]) == 1
    assert "nothing to do" in capsys.readouterr().err


def test_wrong_use(photos):
    with pytest.raises(UserError, match="no model 'upp-maxi'"):
        predict(["photos"], model="upp-maxi")
    with pytest.raises(UserError, match="--top 0"):
        predict(["photos"], top=0)
    with pytest.raises(UserError, match=r"--out .*a\.png is a file"):
        predict(["photos"], out=Path("photos/a.png"))
    with pytest.raises(UserError, match=r"--out .*a\.png/deeper"):
        predict(["photos"], out=Path("photos/a.png/deeper"))


def test_scores_and_top(photos):
    assert predict(["photos/a.png"], scores=True, top=1) == 0
    assert written() == files("a") | {"a.scene.npz", "a.object.npz"}
    with np.load("upernet-out/a.object.npz") as arrays:
        assert arrays["probabilities"].shape == (2, 40, 60) and arrays["probabilities"].dtype == np.float16
    assert len(json.loads(Path("upernet-out/a.json").read_text("utf-8"))["tasks"]["scene"]["top"]) == 1


def test_an_interruption_leaves_whole_files_only(photos, monkeypatch):
    real = Image.Image.save

    def stop(self, file, *arguments, **options):
        if options.get("quality"):
            file.write(b"half a picture")
            raise KeyboardInterrupt
        real(self, file, *arguments, **options)

    monkeypatch.setattr(Image.Image, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        predict(["photos"])
    assert written() == {"a.object.png"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_for_several_images_on_a_terminal_only(photos, monkeypatch, capsys):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert predict(["photos/a.png"]) == 0
    assert terminal.getvalue() == ""
    Path("photos/bad.jpg").write_bytes(b"no image")
    assert predict(["photos"]) == 1
    assert "4/4" in terminal.getvalue() and "bad.jpg" in terminal.getvalue()
    # Piped output is no business of the bar's.
    assert len(capsys.readouterr().out.splitlines()) == 1 + 3


def test_names_that_would_harm_a_terminal(photos, capsys):
    Path("photos/a.png").rename("photos/\x1b[31m\nred.png")
    assert predict(["photos/\x1b[31m\nred.png"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and out.startswith("photos/\\x1b[31m\\nred.png: scene")


def test_a_screen_without_unicode(photos, monkeypatch):
    Path("photos/a.png").rename("photos/été-\udcff.png")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer := io.BytesIO(), encoding="ascii"))
    assert predict(["photos/été-\udcff.png"]) == 0
    assert buffer.getvalue().startswith(rb"photos/\xe9t\xe9-\udcff.png: scene street")


def test_the_module_loads_neither_torch_nor_pictures():
    code = "import sys, upernet.commands.predict; print({'torch', 'PIL', 'numpy', 'rich'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
