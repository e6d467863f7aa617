"""`upernet models`: legible in a terminal, complete in a pipe."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from upernet.cli import main
from upernet.zoo.published import published
from upernet.zoo.shipped import SHIPPED

QUICK = """
import sys
from upernet.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
sys.exit(7 if "torch" in sys.modules else code)
"""


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["models", *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


@pytest.mark.parametrize("words", [["models", "--help"], ["models"], ["models", "--json"]], ids=" ".join)
def test_quick_and_without_torch(words: list[str]) -> None:
    begin = os.times()
    run = subprocess.run([sys.executable, "-c", QUICK, *words], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert "upernet" in run.stdout
    end = os.times()
    # Processor time, because tests may run beside something else.
    assert end.children_user + end.children_system - begin.children_user - begin.children_system < 1.5


def test_a_pipe_gets_everything(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    first, header, *lines = shown(capsys).splitlines()
    assert first == "# upernet predict photo.jpg --model NAME"
    columns = header.split("\t")
    rows = [dict(zip(columns, line.split("\t"), strict=True)) for line in lines]
    by_name = {row["name"]: row for row in rows}
    assert len(by_name) == len(rows)
    for model in published():
        row = by_name[model.name]
        assert row["weights"].split() == [*model.addresses, *model.copies, *([model.hub] if model.hub else [])]
        assert row["mIoU"] == ("-" if model.miou is None else f"{model.miou:.2f}")
        assert (row["note"] == "-") == model.loadable
    row = by_name["upernet_r50_512x512_80k_ade20k"]
    figures = [row[key] for key in ("data", "backbone", "crop", "steps", "mIoU", "ms+flip", "GB", "fps")]
    assert figures == ["ADE20K", "R-50", "512x512", "80k", "40.70", "41.81", "8.1", "23.4"]
    for folder in SHIPPED.iterdir():
        assert by_name[folder.name]["weights"] == "package"


@pytest.mark.parametrize("width", [80, 120, 200])
def test_a_terminal_gets_lines_that_fit(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    out = re.sub(r"\x1b\[[0-9;]*m", "", shown(capsys))
    lines = [line.rstrip() for line in out.splitlines()]
    assert lines[0] == "To use one: upernet predict photo.jpg --model NAME"
    assert max(map(len, lines)) <= width
    words = out.split()
    for model in published():
        assert model.name in words
    assert "not yet: Twins is not read yet" in lines
    wide = [line for line in lines if line.startswith("upernet_r50_512x512_80k_ade20k ")]
    assert bool(wide) == (width == 200)


def test_json_has_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    records = {record["name"]: record for record in json.loads(shown(capsys, "--json"))}
    record = records["upernet_convnext_tiny_fp16_512x512_160k_ade20k"]
    assert record["addresses"][0].endswith("-cad485de.pth")
    assert (record["sha256"], record["hub"]) == ("cad485de", "hf://openmmlab/upernet-convnext-tiny")
    assert (record["crop"], record["steps"], record["loadable"], record["shipped"]) == ([512, 512], 160000, True, False)
    assert records["upp-mini"]["shipped"]
    pair = records["upp-resnet50-upernet"]
    hosts = [[address.split("/")[2] for address in pair[key]] for key in ("addresses", "copies")]
    assert hosts == [["sceneparsing.csail.mit.edu"] * 2, ["dissect.csail.mit.edu"] * 2]


@pytest.mark.parametrize(
    ("pattern", "count"),
    [("SWIN", 6), ("*r50*ade20k", 2), ("voc 2012", 4), ("upp-mini", 1), ("R-101", 9), ("broden", 1)],
)
def test_a_pattern_chooses(pattern: str, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(json.loads(shown(capsys, "--json", "--pattern", pattern))) == count


def test_a_pattern_that_fits_nothing_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--pattern", "segformer"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "--pattern segformer: no model's name, data or backbone matches; for example swin" in err
