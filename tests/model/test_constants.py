"""Small matrices that are kept on a device."""

from __future__ import annotations

import torch

from upernet.model.constants import constant, holding

CPU = torch.device("cpu")


def test_it_is_computed_once_and_serves_both_modes() -> None:
    calls = []

    def count(size: int) -> torch.Tensor:
        calls.append(size)
        return torch.arange(size, dtype=torch.float64)

    weight = torch.ones(3, requires_grad=True)
    with torch.inference_mode():
        first = constant(count, 3, device=CPU, dtype=torch.float32)
    assert first.dtype == torch.float32 and first.tolist() == [0, 1, 2]
    (weight * first).sum().backward()
    assert weight.grad is not None and weight.grad.tolist() == [0, 1, 2]
    assert constant(count, 3, device=CPU, dtype=torch.float32) is first
    assert constant(count, 3, device=CPU, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert constant(count, 2, device=CPU, dtype=torch.float32).tolist() == [0, 1]
    assert calls == [3, 3, 2]


def test_what_a_block_uses_is_collected() -> None:
    first = constant(torch.eye, 2, device=CPU, dtype=torch.float32)
    with holding() as held:
        again, other = (constant(torch.eye, size, device=CPU, dtype=torch.float32) for size in (2, 3))
    constant(torch.eye, 4, device=CPU, dtype=torch.float32)
    assert [id(one) for one in held] == [id(again), id(other)] and again is first
