"""Our own operation of a traced network in the operators of ONNX, for sizes that are known when the graph runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxscript
import torch
from onnx import TensorProto, numpy_helper

from upernet.fused.winograd import transform_matrices

op: Any = onnxscript.opset18


def translations() -> dict[Callable, Callable]:
    """Operation of PyTorch → function that writes it in ONNX, for `custom_translation_table` of `torch.onnx.export`."""
    return {
        torch.ops.upernet.winograd.default: winograd,
        torch.ops.upernet.enlarged_conv.default: enlarged_conv,
    }


def winograd(x: Any, weight: Any, bias: Any, added: Any = None, relu: bool = False) -> Any:
    """`upernet.fused.winograd.convolve` with one kernel, for all tiles at once.

    Args:
        x: (B, C_in, H, W).
        weight: (C_out, C_in, 9). What is made of it depends on no input, so that engines make it once.
        bias: (C_out,).
        added: (B, H, W, C_out), or None.
        relu: Whether negative answers become 0.
    """
    into, kernel, back = (_constant(m.numpy()) for m in transform_matrices(torch.float32))
    taps = op.Transpose(op.Reshape(weight, _whole([-1, 9])), perm=[1, 0])
    by_position = op.Reshape(op.MatMul(kernel, taps), op.Concat(_whole([36]), op.Shape(weight, start=0, end=2), axis=0))
    transformed = op.Transpose(by_position, perm=[0, 2, 1])
    batch, channels, height, width = (op.Shape(x, start=axis, end=axis + 1) for axis in range(4))
    down, across = (op.Div(op.Add(side, _whole([3])), _whole([4])) for side in (height, width))
    positions = op.Mul(op.Mul(batch, height), width)
    flat = op.Reshape(op.Transpose(x, perm=[0, 2, 3, 1]), op.Concat(positions, channels, axis=0))
    # One row of zeros stands for all positions beyond the border.
    with_zero = op.Pad(flat, _whole([0, 0, 1, 0]))
    tiles = op.Gather(with_zero, _tile_positions(batch, height, width, down, across, positions), axis=0)
    stacked = op.Reshape(tiles, _whole([36, -1]))
    values = op.Reshape(op.MatMul(into, stacked), op.Concat(_whole([36, -1]), channels, axis=0))
    products = op.Reshape(op.MatMul(values, transformed), _whole([36, -1]))
    answers = op.Shape(bias)
    shape = op.Concat(_whole([4, 4]), batch, down, across, answers, axis=0)
    blocks = op.Transpose(op.Reshape(op.MatMul(back, products), shape), perm=[2, 3, 0, 4, 1, 5])
    full = op.Reshape(blocks, op.Concat(batch, op.Mul(down, _whole([4])), op.Mul(across, _whole([4])), answers, axis=0))
    answer = op.Add(_cut(_cut(full, 1, 0, height, 1), 2, 0, width, 1), bias)
    if added is not None:
        answer = op.Add(answer, added)
    if relu:
        answer = op.Relu(answer)
    return op.Transpose(answer, perm=[0, 3, 1, 2])


def _tile_positions(batch: Any, height: Any, width: Any, down: Any, across: Any, beyond: Any) -> Any:
    """For each of 6×6 positions in a tile, where it is in the flat map: (36, B·down·across) int64, `beyond` if outside.

    All arguments are tensors of one number.
    """

    def along(count: Any, length: Any) -> tuple[Any, Any]:
        """Position along one side, and whether it is inside: (6, count)."""
        starts = op.Sub(op.Mul(_range(count), _whole([4])), _whole([1]))
        place = op.Add(op.Unsqueeze(_constant(np.arange(6)), _whole([1])), op.Unsqueeze(starts, _whole([0])))
        return place, op.And(op.GreaterOrEqual(place, _whole([0])), op.Less(place, length))

    (rows, rows_inside), (columns, columns_inside) = along(down, height), along(across, width)
    # Axes: row in the tile, column in the tile, image, tile row, tile column.
    row_axes, column_axes = _whole([1, 2, 4]), _whole([0, 2, 3])
    images = op.Unsqueeze(_range(batch), _whole([0, 1, 3, 4]))
    in_rows = op.Add(op.Mul(images, height), op.Unsqueeze(rows, row_axes))
    place = op.Add(op.Mul(in_rows, width), op.Unsqueeze(columns, column_axes))
    inside = op.And(op.Unsqueeze(rows_inside, row_axes), op.Unsqueeze(columns_inside, column_axes))
    return op.Reshape(op.Where(inside, place, beyond), _whole([36, -1]))


def enlarged_conv(x: Any, maps: Sequence[Any], taps: Sequence[Any], align_corners: bool) -> Any:
    """`upernet.fused.taps.EnlargedConv`, with operators that are computed from the sizes of the maps.

    Args:
        x: (B, C_0, H, W), of which only the size matters.
        maps: For each part of the kernel (B, C, h, w).
        taps: For each part of the kernel (3, C, 3·D).
        align_corners: How the maps are enlarged.
    """
    batch, height, width = (op.Shape(x, start=axis, end=axis + 1) for axis in (0, 2, 3))
    across, down = [], []
    for m, kernel in zip(maps, taps, strict=True):
        h, w = op.Shape(m, start=2, end=3), op.Shape(m, start=3, end=4)
        channels = op.Shape(m, start=1, end=2)
        flat = op.Reshape(op.Transpose(m, perm=[0, 2, 3, 1]), op.Concat(batch, _whole([-1]), channels, axis=0))
        wide_shape = op.Concat(batch, h, op.Mul(w, _whole([3])), _whole([-1]), axis=0)
        operator = op.Reshape(_shifted_enlarging(width, w, align_corners), op.Concat(width, _whole([-1]), axis=0))
        for ky in range(3):
            taps_of_row = op.Squeeze(_cut(kernel, 0, ky, _whole([ky + 1]), 1), _whole([0]))
            across.append(op.MatMul(operator, op.Reshape(op.MatMul(flat, taps_of_row), wide_shape)))
        by_tap = op.Transpose(_shifted_enlarging(height, h, align_corners), perm=[0, 2, 1])
        down.append(op.Reshape(by_tap, op.Concat(height, _whole([-1]), axis=0)))
    rows = op.Concat(*across, axis=1)
    depth = op.Shape(rows, start=3, end=4)
    flat_rows = op.Reshape(rows, op.Concat(batch, op.Shape(rows, start=1, end=2), op.Mul(width, depth), axis=0))
    answer = op.MatMul(op.Concat(*down, axis=1), flat_rows)
    return op.Reshape(answer, op.Concat(batch, height, width, depth, axis=0))


def _shifted_enlarging(out: Any, size: Any, align_corners: bool) -> Any:
    """`upernet.fused.taps.shifted_enlarging` of two sizes, each a tensor of one number: (out, size, 3) float32."""
    outs, sizes, line = (op.Cast(n, to=TensorProto.FLOAT) for n in (out, size, _range(out)))
    one, half = _constant(np.array([1], np.float32)), _constant(np.array([0.5], np.float32))
    if align_corners:
        place = op.Mul(line, op.Div(op.Sub(sizes, one), op.Max(op.Sub(outs, one), one)))
    else:
        place = op.Sub(op.Mul(op.Add(line, half), op.Div(sizes, outs)), half)
    place = op.Min(op.Relu(place), op.Sub(sizes, one))
    apart = op.Abs(
        op.Sub(op.Unsqueeze(place, _whole([1])), op.Unsqueeze(op.Cast(_range(size), to=TensorProto.FLOAT), _whole([0])))
    )
    matrix = op.Relu(op.Sub(one, apart))
    padded = op.Pad(matrix, _whole([1, 0, 1, 0]))
    shifted = [_cut(padded, 0, tap, op.Add(out, _whole([tap])), 1) for tap in range(3)]
    return op.Concat(*(op.Unsqueeze(each, _whole([2])) for each in shifted), axis=2)


def _constant(value: np.ndarray) -> Any:
    return op.Constant(value=numpy_helper.from_array(value))


def _whole(values: Sequence[int]) -> Any:
    return op.Constant(value_ints=list(values))


def _range(length: Any) -> Any:
    """0, 1, … below `length`, a tensor of one number; int64."""
    zero, one = (op.Constant(value_int=n) for n in (0, 1))
    return op.Range(zero, op.Squeeze(length, _whole([0])), one)


def _cut(value: Any, axis: int, start: int, end: Any, step: int) -> Any:
    """From `start` to `end`, a tensor of one number, along an axis."""
    return op.Slice(value, _whole([start]), end, _whole([axis]), _whole([step]))
