"""What no file of a UPerNet needs is refused, whatever its format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from archive_files import FORMATS, refusal, tensor_pickle, write, zip_of
from safetensors.torch import save_file

from upernet.store.archives import building, read_checkpoint, read_safetensors, safetensors_format


@FORMATS
def test_weights_must_be_finite(tmp_path: Path, legacy: bool) -> None:
    """What is no weight need not be: masks, an optimiser's state."""
    for value, told, dtype in (
        (np.nan, "nan", torch.float32),
        (np.inf, "inf", torch.float16),
        (-np.inf, "inf", torch.float64),
    ):
        bad = torch.tensor([1, value, 2], dtype=dtype)
        honest = {"attn_mask": bad, "momentum_buffer": bad, "a.weight": torch.empty(0), "a.bias": torch.ones(1).int()}
        assert len(read_checkpoint(write(tmp_path / "a.pth", honest, legacy))) == 4
        for name in ("conv_seg.weight", "bn.running_var", "norm1.bias"):
            text = refusal(write(tmp_path / "a.pth", {"state_dict": {name: bad}}, legacy))
            assert text.startswith(f"tensor 'state_dict.{name}' holds {told}; its training diverged")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float8_e5m2], ids=str)
def test_weights_of_safetensors_must_be_finite(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file({"a.weight": torch.ones(2).to(dtype), "attn_mask": torch.full((2,), torch.nan)}, tmp_path / "a.pth")
    assert len(read_safetensors(tmp_path / "a.pth")) == 2
    save_file({"a.weight": torch.tensor([1, torch.nan]).to(dtype)}, tmp_path / "a.pth")
    assert refusal(tmp_path / "a.pth").startswith("tensor 'a.weight' holds nan; ")


def test_sides_that_no_upernet_has_are_refused(tmp_path: Path) -> None:
    """A classifier of so many classes would take memory for their names that its weights do not take."""
    text = refusal(write(tmp_path / "a.pth", {"state_dict": {"conv_seg.weight": torch.zeros(2**16, 1, 1, 1)}}))
    assert text == "tensor 'state_dict.conv_seg.weight' claims a side of 65536; no UPerNet has one above 32768"
    text = refusal(zip_of(tmp_path / "b.pth", tensor_pickle((0, 2**40), (1, 1)), {"0": bytes(16)}))
    assert text.startswith("tensor 'x' claims a side of 1099511627776; ")
    assert "side" in refusal(write(tmp_path / "c.pth", [np.empty((0, 2**40))]))
    flat = torch.zeros(2**16)  # as optimisers keep
    assert torch.equal(read_checkpoint(write(tmp_path / "d.pth", flat)), flat)


def test_more_tensors_than_any_file_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "TENSORS", 3)
    monkeypatch.setattr(safetensors_format, "TENSORS", 3)
    one = {name: torch.zeros(1) for name in "abcd"}
    assert (
        refusal(write(tmp_path / "a.pth", one)) == "holds more than 3 tensors and arrays, up to 'd'; it may be hostile"
    )
    save_file(one, tmp_path / "a.safetensors")
    assert "holds 4 tensors, more than 3" in refusal(tmp_path / "a.safetensors")
    del one["d"]
    assert len(read_checkpoint(write(tmp_path / "a.pth", one))) == 3
