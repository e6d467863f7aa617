"""The device to compute on, and how to recognise that memory ran out."""

from __future__ import annotations

import torch

from upernet.errors import UserError


def find_device(device: str | torch.device) -> torch.device:
    """Find the device that a user names.

    Args:
        device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:1`.

    Raises:
        UserError: If there is no such device.
    """
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise UserError(f"device {str(device)!r} is unknown; valid: auto, cpu, cuda") from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device {str(device)!r}: no such GPU is ready for PyTorch; valid here: auto, cpu")
    return found


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that memory ran out, on a CPU or a GPU.

    On a CPU, PyTorch raises a plain `RuntimeError`, which only its text identifies.
    """
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error)
