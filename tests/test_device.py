"""How exactly a device computes."""

from __future__ import annotations

import pytest
import torch

from upernet.device import arithmetic

CUDA = torch.device("cuda")
PARTS = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:CUDA is not available")
@pytest.mark.parametrize(
    ("precision", "expected"), [("float32", "ieee"), ("tf32", "tf32"), ("bf16", "ieee"), ("fp16", "ieee")]
)
def test_tf32_is_used_where_it_is_asked_for(precision: str, expected: str) -> None:
    before = [part.fp32_precision for part in PARTS]
    with pytest.raises(ZeroDivisionError), arithmetic(CUDA, precision):  # type: ignore[arg-type]
        assert [part.fp32_precision for part in PARTS] == [expected, expected]
        raise ZeroDivisionError
    assert [part.fp32_precision for part in PARTS] == before
    assert isinstance(torch.backends.cudnn.allow_tf32, bool)  # the older name still agrees


@pytest.mark.parametrize(("precision", "dtype"), [("float32", None), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_mixed_precision_on_a_cpu(precision: str, dtype: torch.dtype | None) -> None:
    x = torch.ones(2, 2)
    with arithmetic(torch.device("cpu"), precision):  # type: ignore[arg-type]
        assert (x @ x).dtype == (dtype or torch.float32)
    assert not torch.is_autocast_enabled("cpu")
