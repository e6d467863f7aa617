"""Our operations as a graph computes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from upernet.fused.taps import EnlargedConv
from upernet.fused.winograd import Kernel, WinogradConv, convolve

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SIZES = ((1, 4, 5, 9), (2, 4, 32, 17), (3, 4, 2, 3), (1, 4, 8, 8))


class Both(nn.Module):
    """A map convolved with what is added to it from two coarser maps."""

    def __init__(self, align_corners: bool) -> None:
        super().__init__()
        self.own = WinogradConv(nn.Conv2d(4, 6, 3, padding=1), relu=True)
        self.coarser = EnlargedConv([torch.randn(6, 4, 3, 3), torch.randn(6, 4, 3, 3)], align_corners)

    def forward(self, x: Tensor, half: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
        added = self.coarser(x, [half, bins])
        merged = self.own(x, added)
        return merged, convolve(x, [Kernel(self.own.weight, self.own.bias)])[0]


@pytest.mark.parametrize("align_corners", [False, True])
def test_a_graph_computes_them_at_every_size(align_corners: bool, tmp_path: Path) -> None:
    from upernet.runtimes.operators import translations

    torch.manual_seed(0)
    module, free = Both(align_corners).eval(), torch.export.Dim.DYNAMIC
    example = (torch.rand(2, 4, 12, 20), torch.rand(2, 4, 6, 10), torch.rand(2, 4, 3, 3))
    shapes = ({0: free, 2: free, 3: free}, {0: free, 2: free, 3: free}, {0: free})
    path = tmp_path / "both.onnx"
    with torch.no_grad():
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            verbose=False,
            optimize=False,
            dynamic_shapes=shapes,
            input_names=["x", "half", "bins"],
            custom_translation_table=translations(),
        )
    program.save(path)
    run: Callable = onnxruntime.InferenceSession(path).run
    for size in SIZES:
        x = torch.randn(size)
        half = torch.randn(*size[:2], max(2, size[2] // 2), max(2, size[3] // 2))
        bins = torch.randn(*size[:2], 3, 3)
        with torch.no_grad():
            expected = module(x, half, bins)
        found = run(None, {"x": x.numpy(), "half": half.numpy(), "bins": bins.numpy()})
        for own, plain in zip(found, expected, strict=True):
            torch.testing.assert_close(torch.from_numpy(own), plain, rtol=1e-4, atol=1e-4)
