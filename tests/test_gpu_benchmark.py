"""The script that measures on a GPU, rehearsed on a CPU."""

from __future__ import annotations

import argparse
import json
import runpy
from pathlib import Path

from conftest import ROOT


def test_a_rehearsal(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "benchmarks" / "gpu.py"))
    out = tmp_path / "figures.json"
    args = argparse.Namespace(device="cpu", tiny=True, no_compile=True, budget=60, expected=1, batch=1, out=out)
    script["measure_network"](0, args)
    figures = json.loads(out.read_text())
    assert list(figures["parts"]) == ["bf16", "float32"]
    for part in figures["parts"].values():
        forms = part["contenders"]
        assert list(forms)[:3] == ["plain", "fused", "fused, graph"] and not part["failed"].keys() & set(
            script["FORMS"]
        )
        assert forms["fused"]["multiply_adds"] < forms["plain"]["multiply_adds"] == figures["multiply_adds"]
    exact = figures["parts"]["float32"]["contenders"]["fused"]
    assert exact["disagreement"] < 1e-4 and exact["equal_classes"] == 1
    figures["machine"]["gpu"] = "NVIDIA H100 80GB HBM3"
    figures["multiply_adds"] = 10**15  # a thousand frames at the card's peak would take 989 TFLOP/s
    figures["parts"]["bf16"]["contenders"]["plain"]["fps"] = 0.4945 / 2
    written = script["table"]({"networks": [figures]})
    assert "NVIDIA H100" in written and "| bf16 | plain | 0.2 |" in written and "| 50 % |" in written


def test_what_does_not_fit_into_the_budget_is_named(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "benchmarks" / "gpu.py"))
    args = argparse.Namespace(
        device="cuda", tiny=False, no_compile=False, budget=30, batch=1, out=tmp_path / "gpu.json"
    )
    report = script["measure_all"](args)
    assert [set(figures["absent"]) for figures in report["networks"]] == [{"all"}] * 4
    assert "ade20k/upernet_r101_512x512_80k.yaml" in script["table"](report)
