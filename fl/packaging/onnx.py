"""ONNX: the model as a graph of the open standard; read by onnxruntime and many others, on servers and devices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from fl.onnx_session import INPUT, OUTPUT, read
from fl.packaging.metadata import KEY, to_text
from fl.packaging.quiet import quiet

if TYPE_CHECKING:
    import onnx_ir

OPSET = 20
__all__ = ["OPSET", "read", "write"]


def write(module: nn.Module, example: Tensor, path: Path, *, metadata: Mapping[str, Any]) -> None:
    """One file, opset 20, one ``input`` and one ``output`` whose first dimension ``batch`` is free.

    ``example`` (at least two inputs) is only traced. The module must be in evaluation mode; it may be altered, so hand
    over a copy. The exporter takes some 5 to 15 seconds, most of them once a process.
    """
    with quiet():
        exported = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        )
        program = cast("torch.onnx.ONNXProgram", exported)  # None comes only from the exporter before dynamo
        _forget_sources(program.model)
        program.model.metadata_props[KEY] = to_text(metadata)
        program.save(path, external_data=False)


def _forget_sources(model: onnx_ir.Model) -> None:
    """Drop the lines of code that made each node: they name folders of the machine that exported."""
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        for node in graph.all_nodes():
            node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)
