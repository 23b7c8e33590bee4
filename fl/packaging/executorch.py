"""ExecuTorch: the model as a program for phones and microcontrollers, a .pte file; read by the ExecuTorch runtime.

On the portable kernels, which every device has. XNNPACK's are quicker, and its convolutions took no batch but the one
that they were made with.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fl.packaging.predict import Predict, as_tensor
from fl.packaging.quiet import mute, quiet
from fl.parameters import Array

MOST = 32
"""Examples a call: a program plans its memory ahead, for the largest batch."""


def write(module: nn.Module, example: Tensor, path: Path, *, metadata: Mapping[str, Any]) -> None:
    """``example`` (at least two inputs) is traced. ``metadata`` is left out: a program has no place for it."""
    with quiet(), mute():
        from executorch.exir import to_edge_transform_and_lower

        shapes = ({0: torch.export.Dim("batch", min=1, max=MOST)},)
        program = torch.export.export(module, (example,), dynamic_shapes=shapes)
        lowered = to_edge_transform_and_lower(program)
        path.write_bytes(lowered.to_executorch().buffer)


def read(path: Path) -> Predict:
    """The program by the runtime's own Python binding, at most MOST examples a call."""
    with quiet(), mute():
        from executorch.runtime import Runtime

        method = Runtime.get().load_program(path.read_bytes()).load_method("forward")
        assert method is not None  # what it was written with

    def predict(inputs: Array) -> Array:
        with mute():
            parts = [method.execute([as_tensor(inputs[i : i + MOST])])[0] for i in range(0, len(inputs), MOST)]
        return np.concatenate([np.array(part.numpy()) for part in parts])

    return predict
