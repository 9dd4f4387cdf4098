"""The U-Net's softplus in operations that onnxruntime has fast kernels for."""

from __future__ import annotations

from typing import Any

import numpy as np


def with_quick_softplus(proto: Any) -> None:
    """Writes the softplus of the U-Net as max(x, 0) + log(1 + exp(-|x|)), which needs no case for large x.

    onnxruntime computes Softplus number by number: it took two fifths of a file's time, four times what the same takes
    as exponentials and logarithms of vectors. Far below zero, where softplus is less than 1e-7, this one gives 0; what
    takes the logarithm of a softplus, as probabilities do, keeps the exact one.
    """
    from onnx import numpy_helper

    nodes = list(proto.graph.node)
    reading = {name: [node for node in nodes if name in node.input] for node in nodes for name in node.output}
    built: list[bytes] = []
    renamed: dict[str, str] = {}
    dropped: set[str] = set()
    for node in nodes:
        where = next((each.value for each in node.metadata_props if each.key == "namespace"), "")
        if node.output[0] in dropped:
            continue
        if node.op_type != "Softplus" or "model.unet" not in where:
            built.append(node.SerializeToString())
            continue
        x, y = node.input[0], node.output[0]
        built += [made.SerializeToString() for made in _steps(node)]
        # torch takes x itself above 20; so does this, to the last bit.
        for choice in reading[y]:
            if choice.op_type == "Where" and list(choice.input[1:]) == [x, y]:
                renamed[choice.output[0]] = y
                dropped.add(choice.output[0])
    if not any(node.op_type == "Softplus" for node in nodes):
        return
    kept = [type(nodes[0]).FromString(content) for content in built]
    for node in kept:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
    read = {name for node in kept for name in node.input} | {each.name for each in proto.graph.output}
    del proto.graph.node[:]
    proto.graph.node.extend(node for node in kept if node.op_type != "Greater" or node.output[0] in read)
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(1), "softplus_one"))


def _steps(softplus: Any) -> list[Any]:
    """Returns the nodes that stand for a Softplus."""
    from onnx import helper

    x, y = softplus.input[0], softplus.output[0]
    steps = [
        ("Abs", [x], f"{y}_abs"),
        ("Neg", [f"{y}_abs"], f"{y}_neg"),
        ("Exp", [f"{y}_neg"], f"{y}_exp"),
        ("Add", [f"{y}_exp", "softplus_one"], f"{y}_one"),
        ("Log", [f"{y}_one"], f"{y}_log"),
        ("Relu", [x], f"{y}_relu"),
        ("Add", [f"{y}_relu", f"{y}_log"], y),
    ]
    made = [helper.make_node(kind, given, [result], f"{result}_node") for kind, given, result in steps]
    for node in made:
        node.metadata_props.extend(softplus.metadata_props)
    return made
