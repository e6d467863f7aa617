"""One implementation in this process: arithmetic and memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_networks import shown
from torch import Tensor, nn

from upernet.compare.implementation import Implementation, Trial
from upernet.compare.runner import Runner, in_one_line, peak_memory, peak_process_memory
from upernet.errors import UserError

CPU = torch.device("cpu")
MEGA = 2**18
"""float32 values of a MiB."""


def test_precision_is_that_of_the_arithmetic() -> None:
    line, x = nn.Linear(2, 2), torch.ones(1, 2)
    kinds: dict[str, set[torch.dtype]] = {}
    for precision in ("float32", "bf16"):
        seen = kinds.setdefault(precision, set())

        def run(seen: set[torch.dtype] = seen) -> dict[str, Tensor]:
            seen.add(line(x).dtype)
            return {}

        Runner(lambda trial, run=run: lambda: Implementation("1", run, dict), shown(precision=precision)).run()
    assert kinds == {"float32": {torch.float32}, "bf16": {torch.bfloat16}}


def three_tensors() -> dict[str, Tensor]:
    a = torch.ones(4 * MEGA)
    b = a + 1
    del a
    _ = b.sum(), torch.ones(2 * MEGA)
    return {}


def test_peak_memory_is_what_is_held_at_once() -> None:
    peak = peak_memory(three_tensors, CPU)
    assert peak is not None
    assert 8 * 2**20 <= peak < 8.1 * 2**20

    def opening(trial: Trial) -> Callable[[], Implementation]:
        return lambda: Implementation("1", three_tensors, dict, nn.Linear(MEGA, 3, bias=False))

    memory = Runner(opening, shown()).tensor_memory()
    assert memory is not None
    assert 11 * 2**20 <= memory < 11.1 * 2**20
    assert Runner(lambda trial: lambda: Implementation("1", three_tensors, dict), shown()).tensor_memory() is None


def test_peak_of_the_process_grows_with_what_it_holds() -> None:
    before = peak_process_memory()
    assert before is not None
    held = torch.ones(before // 4 + 32 * MEGA)  # more than was ever held
    after = peak_process_memory()
    assert after is not None
    assert after > before
    assert after >= held.nbytes


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("not here"), "not here"),
        (ValueError("a\n  b"), "ValueError: a b"),
        (RuntimeError("can't allocate memory: 9 bytes"), "does not fit into the memory"),
    ],
)
def test_errors_are_one_line(error: Exception, line: str) -> None:
    assert str(in_one_line(error)).startswith(line)
