"""ONNX files in less than single precision: what `predict` computes in half precision or integers, and no more."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

#: What is computed in half precision: products of the encoders of F and of the U-Net. The DCG's saliency chooses ROIs,
#: and its logits go into the probabilities; what projects to F is small.
_HALF = ("raw_encoder", "roi_encoder", "model.unet")

#: What is computed in integers: the U-Net's two hidden layers.
_INTEGERS = ("unet.block2", "unet.block3")

_PRODUCTS = ("Conv", "MatMul", "Gemm")


def reduced(proto: Any, precision: str) -> Any:
    """Returns a model in "fp16" or "int8"."""
    if precision == "fp16":
        _halve(proto, list(_products(proto, _HALF)))
        return proto
    return _with_integers(proto, [node.name for node in _products(proto, _INTEGERS) if node.op_type != "Conv"])


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
    # Protobuf copies what goes in, and forgets what is taken out.
    kept = [type(node).FromString(node.SerializeToString()) for node in built]
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    used = {name for node in proto.graph.node for name in node.input}
    for each in list(proto.graph.initializer):
        if each.name not in used:
            proto.graph.initializer.remove(each)


def _with_integers(proto: Any, names: list[str]) -> Any:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    if not names:
        return proto
    with tempfile.TemporaryDirectory() as directory:
        source, target = Path(directory, "model.onnx"), Path(directory, "quantized.onnx")
        source.write_bytes(proto.SerializeToString())
        quantize_dynamic(
            source, target, nodes_to_quantize=names, weight_type=QuantType.QInt8, per_channel=True,
            extra_options={"MatMulConstBOnly": True},
        )  # fmt: skip
        return onnx.load(target)
