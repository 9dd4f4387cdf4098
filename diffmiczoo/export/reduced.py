"""ONNX files in less than single precision: what `predict` computes in half precision or integers, and no more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

#: What is computed in half precision: products of the encoders of F and of the U-Net. The DCG's saliency chooses ROIs,
#: and its logits go into the probabilities; what projects to F is small.
_HALF = ("raw_encoder", "roi_encoder", "model.unet")

#: What is computed in integers: the U-Net's two hidden layers.
_INTEGERS = ("unet.block2", "unet.block3")

#: What stands for zero in weights of 8 bits without a sign.
_ZERO = 128

_PRODUCTS = ("Conv", "MatMul", "Gemm")


def reduce_precision(proto: Any, precision: str) -> None:
    """Lets a model compute in "fp16" or "int8"."""
    if precision == "fp16":
        _halve(proto, list(_products(proto, _HALF)))
    else:
        # Only 1 × 1 kernels are products; they give MatMul.
        _with_integers(proto, [node for node in _products(proto, _INTEGERS) if node.op_type == "MatMul"])


def _products(proto: Any, places: tuple[str, ...]) -> Iterator[Any]:
    """Yields convolutions and products in some modules of the model."""
    for node in proto.graph.node:
        where = next((each.value for each in node.metadata_props if each.key == "namespace"), "")
        if node.op_type in _PRODUCTS and any(place in where for place in places):
            yield node


def _halve(proto: Any, nodes: list[Any]) -> None:
    """Lets nodes compute in half precision between casts, with weights stored in it."""
    from onnx import TensorProto, helper, numpy_helper

    weights = {each.name: each for each in proto.graph.initializer}
    chosen = {node.output[0] for node in nodes}
    stored: dict[str, str] = {}
    built: list[Any] = []
    for node in proto.graph.node:
        if node.output[0] not in chosen:
            built.append(node)
            continue
        for place, name in enumerate(node.input):
            if not name:
                continue
            half = f"{name}_fp16"
            if name in weights and name not in stored:
                values = numpy_helper.to_array(weights[name]).astype(np.float16)
                proto.graph.initializer.append(numpy_helper.from_array(values, half))
            elif name not in stored:
                built.append(helper.make_node("Cast", [name], [half], f"{half}_cast", to=TensorProto.FLOAT16))
            stored[name] = half
            node.input[place] = half
        single = node.output[0]
        node.output[0] = f"{single}_fp16_out"
        built += [node, helper.make_node("Cast", [node.output[0]], [single], f"{single}_cast", to=TensorProto.FLOAT)]
    _replace_nodes(proto, built)


def _with_integers(proto: Any, nodes: list[Any]) -> None:
    """Lets products x W compute in 8-bit integers, with a scale per output of W and a range per row of x.

    onnxruntime's own dynamic quantization takes one range for all rows, so that what a picture gets would depend on the
    others of its batch; this is what `diffmiczoo.runtime.quantized` computes. W is stored without a sign, because
    processors without VNNI instructions saturate in products of bytes with and without one.
    """
    from onnx import numpy_helper

    weights = {each.name: each for each in proto.graph.initializer}
    constants = {"int8_axis": np.array([-1]), "int8_zero": np.uint8(_ZERO)}
    constants |= {"int8_levels": np.float32(1 / 255), "int8_least": np.finfo(np.float32).tiny}
    chosen = {node.output[0] for node in nodes}
    built: list[Any] = []
    for node in proto.graph.node:
        if node.output[0] not in chosen:
            built.append(node)
            continue
        name = node.input[1]
        values = numpy_helper.to_array(weights[name])
        scale = np.maximum(np.abs(values).max(0), np.finfo(np.float32).tiny) / np.float32(127)
        whole = np.rint(values / scale).astype(np.int32)
        constants[f"{name}_int8"] = (whole + _ZERO).astype(np.uint8)
        constants[f"{name}_scale"] = scale
        constants[f"{name}_sums"] = (whole.sum(0) * scale).astype(np.float32)
        built += _integer_product(node.input[0], name, node.output[0])
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(each), name) for name, each in constants.items())
    _replace_nodes(proto, built)


def _integer_product(x: str, weight: str, y: str) -> list[Any]:
    """Returns the nodes of step · (u W) + low · (1 W), where u = round((x - low) / step) are bytes."""
    from onnx import TensorProto, helper

    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("ReduceMin", [x, "int8_axis"], f"{y}_low", {}),
        ("ReduceMax", [x, "int8_axis"], f"{y}_high", {}),
        ("Sub", [f"{y}_high", f"{y}_low"], f"{y}_range", {}),
        ("Mul", [f"{y}_range", "int8_levels"], f"{y}_part", {}),
        ("Max", [f"{y}_part", "int8_least"], f"{y}_step", {}),
        ("Sub", [x, f"{y}_low"], f"{y}_above", {}),
        ("Div", [f"{y}_above", f"{y}_step"], f"{y}_scaled", {}),
        ("Round", [f"{y}_scaled"], f"{y}_rounded", {}),
        ("Cast", [f"{y}_rounded"], f"{y}_bytes", {"to": TensorProto.UINT8}),
        ("MatMulInteger", [f"{y}_bytes", f"{weight}_int8", "", "int8_zero"], f"{y}_whole", {}),
        ("Cast", [f"{y}_whole"], f"{y}_product", {"to": TensorProto.FLOAT}),
        ("Mul", [f"{y}_product", f"{weight}_scale"], f"{y}_by_output", {}),
        ("Mul", [f"{y}_by_output", f"{y}_step"], f"{y}_by_row", {}),
        ("Mul", [f"{y}_low", f"{weight}_sums"], f"{y}_lowest", {}),
        ("Add", [f"{y}_by_row", f"{y}_lowest"], y, {}),
    ]
    return [helper.make_node(kind, given, [found], f"{found}_node", **facts) for kind, given, found, facts in steps]


def _replace_nodes(proto: Any, built: list[Any]) -> None:
    """Gives a graph other nodes, and forgets weights that none of them reads."""
    # Protobuf copies what goes in, and forgets what is taken out.
    kept = [type(node).FromString(node.SerializeToString()) for node in built]
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    used = {name for node in proto.graph.node for name in node.input}
    for each in list(proto.graph.initializer):
        if each.name not in used:
            proto.graph.initializer.remove(each)
