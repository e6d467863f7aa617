"""`runtimes/int8.py`: what is quantised, and how."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from upernet.runtimes.int8 import quantise

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture
def graph() -> bytes:
    """A convolution, a clip, a convolution without bias as PyTorch writes one, a ReLU, a matrix product."""
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    # The channels of the first convolution differ much in size, so that one scale would not serve them all.
    values = {
        "first": draw.normal(size=(4, 3, 3, 3)) * np.array([0.01, 0.1, 1, 5])[:, None, None, None],
        "bias": draw.normal(size=4),
        "low": np.array(0.0),
        "high": np.array(6.0),
        "second": draw.normal(size=(5, 4, 3, 3)),
        "columns": draw.normal(size=(8, 8)),
    }
    weights = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()]
    weights.append(numpy_helper.from_array(np.array([5]), "five"))
    nodes = [
        helper.make_node("Conv", ["image", "first", "bias"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["a", "low", "high"], ["b"]),
        helper.make_node("CastLike", ["low", "b"], ["zero"]),
        helper.make_node("Expand", ["zero", "five"], ["none"]),
        helper.make_node("Conv", ["b", "second", "none"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "columns"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, "height", 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 5, "height", 8])
    inside = helper.make_tensor_value_info("b", TensorProto.FLOAT, ["batch", 4, "height", 8])
    made = helper.make_graph(nodes, "small", [image], [logits], weights, value_info=[inside])
    content: bytes = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()
    return content


def test_convolutions_and_their_activations_are_quantised(graph: bytes) -> None:
    images = [torch.rand(1, 3, 6 + i, 8) for i in range(4)]
    content = quantise(graph, iter(images))
    model = onnx.load_model_from_string(content)
    operators = Counter(node.op_type for node in model.graph.node)
    assert operators["Conv"] == 2 and operators["MatMul"] == 1
    assert operators["Clip"] == operators["Relu"] == 0  # the range of the integers cuts as they do
    values = {w.name: onnx.numpy_helper.to_array(w) for w in model.graph.initializer}
    made_of = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    first, second = (node for node in model.graph.node if node.op_type == "Conv")
    for node, channels in ((first, 4), (second, 5)):
        integers, scales = (values[name] for name in made_of[node.input[1]].input[:2])
        assert integers.dtype == np.int8 and scales.shape == (channels,)
        assert np.abs(integers).max() in (63, 64)  # 7 bits, all of them used
        assert (np.abs(integers.reshape(channels, -1)).max(axis=1) >= 63).all()
        assert made_of.keys() >= set(node.input)  # also the bias, if one is left
    assert values[made_of[first.input[2]].input[0]].dtype == np.int32
    product = next(node for node in model.graph.node if node.op_type == "MatMul")
    assert values[product.input[1]].dtype == np.float32


def test_the_answers_are_close(graph: bytes) -> None:
    import onnxruntime

    images = [torch.rand(1, 3, 6 + i, 8) for i in range(4)]
    exact, found = (
        [onnxruntime.InferenceSession(each).run(None, {"image": image.numpy()})[0] for image in images]
        for each in (graph, quantise(graph, iter(images)))
    )
    for one, other in zip(exact, found, strict=True):
        assert one.shape == other.shape
        assert 0 < np.square(one - other).mean() < 1e-2 * one.var()
