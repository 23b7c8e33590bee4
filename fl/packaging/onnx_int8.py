"""ONNX with weights of 8 bits: a quarter of the size, integer kernels, and outputs that are a little off.

onnxruntime quantises the graph of the float export dynamically: weights are rounded once, per channel, activations at
every call by their own range. No data are needed, and so none are looked at.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fl.packaging import onnx
from fl.packaging.quiet import quiet


def write(module: nn.Module, example: Tensor, path: Path, *, metadata: Mapping[str, Any]) -> None:
    """As ``onnx.write``. Raises ValueError for a model of which no operation has an integer kernel."""
    import onnx as library
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, quiet():
        whole = Path(folder) / "float.onnx"
        onnx.write(module, example, whole, metadata=metadata)
        quantize_dynamic(whole, path, weight_type=QuantType.QUInt8, per_channel=True)
    kinds = {node.op_type for node in library.load(path).graph.node}
    if not kinds & INTEGER:
        raise ValueError("none of its operations has an integer kernel")


INTEGER = {"MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"}
