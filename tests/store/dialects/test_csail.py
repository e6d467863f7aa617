"""The files of the authors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import upernet
from upernet.errors import UserError


def test_one_of_the_authors_two_files(tmp_path: Path) -> None:
    torch.save({"conv3.weight": torch.zeros(1), "bn3.weight": torch.zeros(1), "layer1.0.conv1.weight": torch.zeros(1)},
               tmp_path / "encoder_epoch_40.pth")  # fmt: skip
    with pytest.raises(UserError, match="give both files"):
        upernet.load(tmp_path / "encoder_epoch_40.pth")
