"""The device to compute on, how exactly it computes, and how to recognise that memory ran out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from upernet.errors import UserError

Precision = Literal["float32", "tf32", "bf16", "fp16"]
"""What a user may choose; see `arithmetic`."""

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""The precisions in which convolutions and matrix products read and write 16 bits, and what they read."""


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


def check_precision(precision: Precision, device: torch.device) -> None:
    """Check that a device computes in a precision.

    Raises:
        UserError: If it does not.
    """
    if precision == "tf32" and device.type != "cuda":
        raise UserError(f"precision tf32: {device.type} has no such arithmetic; valid: float32, bf16, fp16")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError(f"precision bf16: {torch.cuda.get_device_name(device)} lacks it; valid: float32, tf32, fp16")


@contextmanager
def arithmetic(device: torch.device, precision: Precision) -> Iterator[None]:
    """Compute in a precision while the block runs.

    - float32: on a GPU too, where PyTorch would let convolutions use TF32.
    - tf32: matrix products and convolutions of a GPU read the first 19 of the 32 bits, and add up in float32.
    - bf16, fp16: mixed precision (autocast).
    """
    if device.type != "cuda":
        with torch.autocast(device.type, HALF.get(precision), enabled=precision in HALF):
            yield
        return
    parts: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [part.fp32_precision for part in parts]
    try:
        for part in parts:
            part.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        with torch.autocast("cuda", HALF.get(precision), enabled=precision in HALF):
            yield
    finally:
        for part, value in zip(parts, before, strict=True):
            part.fp32_precision = value
