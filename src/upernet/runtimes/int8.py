"""Static quantisation of an exported graph to 8 bits, through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from torch import Tensor

QUANTISED = ("Conv", "Clip", "Relu")
"""Operators that are quantised. Activations are among them because a convolution is then scaled to what they let
through; they are dropped, since the range of the integers cuts as they do."""


def quantise(graph: bytes, images: Iterable[Tensor]) -> bytes:
    """Quantise the convolutions of a graph: weights per channel, activations by what the images cause.

    Weights take 7 bits of 8, since processors without instructions for 8-bit networks add up products in 16 bits, which
    would overflow. Everything else stays in float32, also the matrix products that enlarge maps.

    Args:
        graph: An ONNX graph that takes `image`.
        images: What it is shown, each (1, 3, H, W) float32 RGB in [0, 1].

    Returns:
        The quantised graph, with QuantizeLinear and DequantizeLinear around each convolution.
    """
    import onnx_ir
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process
    from onnxscript.optimizer import optimize_ir

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images: Iterator[Tensor] = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {"image": image.contiguous().numpy()}

    with TemporaryDirectory() as folder:
        source, prepared, target = (Path(folder) / name for name in ("float.onnx", "prepared.onnx", "int8.onnx"))
        source.write_bytes(graph)
        model = onnx_ir.load(source)
        # PyTorch writes zeros that are computed where a convolution has no bias, and only constants are quantised.
        optimize_ir(model, onnx_shape_inference=False)
        onnx_ir.save(model, source)
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            per_channel=True,
            reduce_range=True,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return target.read_bytes()
