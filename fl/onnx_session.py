"""An ONNX file as a function, by onnxruntime alone: a server that answers from a bundle needs no torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fl.parameters import Array
from fl.untrusted import refuse_objectionable

INPUT, OUTPUT = "input", "output"


def read(path: Path) -> Callable[[Array], Array]:
    """From a batch to raw outputs, on one thread of the CPU. Raises CorruptFile for a model that names other files."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when it is imported: nobody calls home
    import onnxruntime

    refuse_objectionable(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda inputs: np.asarray(session.run([OUTPUT], {INPUT: inputs})[0])
