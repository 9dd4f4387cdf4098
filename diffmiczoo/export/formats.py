"""A model's graph as the content of files: ONNX in three precisions, and what makes OpenVINO and .pt2 of it."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffmiczoo.errors import InvalidValueError, MissingExtraError
from diffmiczoo.export.graph import INPUT, ExportedModel
from diffmiczoo.export.softplus import with_quick_softplus

#: What torch.onnx translates the graph with, together with the extra's onnxscript.
LEAST_TORCH = (2, 10)

#: Squares (B, S, S, 3) → name of an output → its values.
Answers = Callable[[np.ndarray], Mapping[str, np.ndarray]]


def has_new_torch() -> bool:
    """Whether PyTorch can write ONNX files of these models."""
    major, minor = torch.__version__.split(".")[:2]
    return (int(major), int(minor)) >= LEAST_TORCH


def check_torch() -> None:
    """Raises where PyTorch is too old to write ONNX files of these models.

    Raises:
        ValueError: names both versions.
    """
    if not has_new_torch():
        least = ".".join(map(str, LEAST_TORCH))
        raise InvalidValueError(
            f"ONNX files need PyTorch {least} or later, this is {torch.__version__}: pip install -U torch torchvision "
            "'diffmiczoo[onnx]'; format='pt2' may work without"
        )


def onnx_content(graph: ExportedModel, metadata: Mapping[str, str], precision: str) -> bytes:
    """Returns a model as a self-contained ONNX file.

    Raises:
        ImportError: the extra is not installed.
    """
    with needs("onnx"):
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    with _quiet(), torch.no_grad():
        # Captured here: torch.onnx would go on with a program of one batch size where the batch cannot be left open.
        program: Any = torch.onnx.export(
            _captured(graph),
            dynamo=True,
            input_names=[INPUT],
            output_names=list(graph.names),
            external_data=False,
            verbose=False,
        )
    proto = program.model_proto
    with_numbers_in_place(proto)
    with_quick_softplus(proto)
    _name_batch(proto)
    if precision != "fp32":
        from diffmiczoo.export.reduced import reduce_precision

        reduce_precision(proto, precision)
    without_traces(proto)
    onnx.helper.set_model_props(proto, dict(metadata))
    proto.producer_name, proto.doc_string = "diffmiczoo", metadata["warning"]
    content: bytes = proto.SerializeToString()
    return content


def _captured(graph: ExportedModel) -> torch.export.ExportedProgram:
    """Returns the program of a graph, for batches of any size."""
    size = graph.model.config.input_size
    # From two pictures: with one, the size of the batch would become part of the program.
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    # PyTorch 2.6 takes no size without a bound.
    batch = torch.export.Dim("batch", max=2**31 - 1)
    return torch.export.export(graph, (example,), dynamic_shapes=({0: batch},))


def _name_batch(proto: Any) -> None:
    """Calls the size of a batch "batch", which torch has given a number."""
    symbol = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for each in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for size in each.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = re.sub(rf"\b{symbol}\b", "batch", size.dim_param)


def without_traces(proto: Any) -> None:
    """Takes out what torch notes for those who mend its exporter: a megabyte that names the folders of a machine."""
    graph = proto.graph
    for each in (proto, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        del each.metadata_props[:]


def with_numbers_in_place(proto: Any) -> None:
    """Computes what only moves weights before the file is written instead of each time that it is loaded.

    Of a table, such as the U-Net's of all timesteps, the rows that are used stay.
    """
    from onnx import numpy_helper

    weights = {each.name: each for each in proto.graph.initializer}
    for node in list(proto.graph.node):
        if node.op_type not in ("Transpose", "Reshape", "Gather") or not all(name in weights for name in node.input):
            continue
        values = _moved(node, [numpy_helper.to_array(weights[name]) for name in node.input])
        folded = numpy_helper.from_array(np.ascontiguousarray(values), node.output[0])
        weights[node.output[0]] = folded
        proto.graph.initializer.append(folded)
        proto.graph.node.remove(node)
    used = {name for node in proto.graph.node for name in node.input} | {each.name for each in proto.graph.output}
    for each in list(proto.graph.initializer):
        if each.name not in used:
            proto.graph.initializer.remove(each)


def _moved(node: Any, given: list[np.ndarray]) -> np.ndarray:
    values, *others = given
    if node.op_type == "Transpose":
        return values.transpose(next((list(each.ints) for each in node.attribute if each.name == "perm"), None))
    if node.op_type == "Gather":
        return values.take(others[0], axis=next((each.i for each in node.attribute if each.name == "axis"), 0))
    sizes = enumerate(others[0].tolist())
    return values.reshape([size or values.shape[place] for place, size in sizes])


def pt2_content(graph: ExportedModel, metadata: Mapping[str, str]) -> bytes:
    """Returns a model as the file of `torch.export.save`, its metadata beside it in the archive."""
    with _quiet(), torch.no_grad():
        program, file = _captured(graph), io.BytesIO()
        for module in program.graph_module.modules():
            for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
                # Where in the source files of this machine it comes from.
                node.meta.pop("stack_trace", None)
        torch.export.save(program, file, extra_files=dict(metadata))
    return file.getvalue()


def openvino_files(content: bytes) -> tuple[bytes, bytes]:
    """Returns an ONNX file as OpenVINO's .xml and .bin.

    Raises:
        ImportError: the extra is not installed.
        ValueError: it has something that OpenVINO does not convert.
    """
    with needs("openvino"):
        import openvino
    with tempfile.TemporaryDirectory() as directory:
        source, target = Path(directory, "model.onnx"), Path(directory, "model.xml")
        source.write_bytes(content)
        try:
            converted = openvino.convert_model(source)
        except Exception as error:  # OpenVINO's have no common type
            reason = next((line for line in reversed(str(error).split("\n")) if line.strip()), type(error).__name__)
            raise InvalidValueError(
                f"OpenVINO {openvino.__version__} cannot convert this model ({reason.strip()}); use format='onnx'"
            ) from error
        openvino.save_model(converted, target, compress_to_fp16=False)
        return target.read_bytes(), target.with_suffix(".bin").read_bytes()


# ---------------------------------------------------------------------- how a file is run


def onnx_answers(content: bytes | str, threads: int = 0) -> Answers:
    """Returns what runs an ONNX file on the CPU; `threads` as onnxruntime counts them, 0 for all cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return lambda squares: dict(zip(names, session.run(None, {INPUT: squares}), strict=True))


def openvino_answers(xml: bytes, weights: bytes, threads: int = 0) -> Answers:
    """Returns what runs OpenVINO's two files on the CPU, in single precision; `threads` 0 for all cores."""
    import openvino

    core = openvino.Core()
    exact: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    exact |= {"INFERENCE_NUM_THREADS": threads} if threads else {}
    model = core.compile_model(core.read_model(xml, openvino.Tensor(np.frombuffer(weights, np.uint8))), "CPU", exact)
    names = [each.get_any_name() for each in model.outputs]
    return lambda squares: dict(zip(names, [np.array(value) for value in model(squares).values()], strict=True))


def pt2_answers(content: bytes, names: list[str]) -> Answers:
    """Returns what runs a .pt2 file."""
    module = torch.export.load(io.BytesIO(content)).module()

    def answers(squares: np.ndarray) -> dict[str, np.ndarray]:
        with torch.no_grad():
            found: tuple[Tensor, ...] = module(torch.from_numpy(squares))
        return {name: tensor.numpy() for name, tensor in zip(names, found, strict=True)}

    return answers


@contextlib.contextmanager
def needs(extra: str) -> Iterator[None]:
    """Within the context a package that is missing is said to come with an extra."""
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(f'export needs {error.name}: pip install "diffmiczoo[{extra}]"') from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Within the context torch's exporters do not tell what nobody who exports can act on."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "torch._export")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
