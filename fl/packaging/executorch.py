"""ExecuTorch: the model as a program for phones and microcontrollers, a .pte file; read by the ExecuTorch runtime.

On the portable kernels, which every device has. XNNPACK's are quicker, and its convolutions took no batch but the one
that they were made with.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fl.packaging.apart import run
from fl.packaging.predict import Predict
from fl.packaging.quiet import mute, quiet
from fl.parameters import Array

# Answers go out by a copy of standard output: the runtime writes there too. It does not keep what a program was loaded
# from: ``content`` has to live as long as it runs.
READER = """
import io, os, sys
out = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)
import numpy as np
import torch
from executorch.runtime import Runtime
given, most = np.load(io.BytesIO(sys.stdin.buffer.read())), int(sys.argv[1])
content = given["program"].tobytes()
program = Runtime.get().load_program(content)
method = program.load_method("forward")
inputs, answer = torch.from_numpy(given["inputs"]), io.BytesIO()
parts = [method.execute([inputs[i : i + most].contiguous()])[0].numpy() for i in range(0, len(inputs), most)]
np.save(answer, np.concatenate(parts))
out.write(answer.getvalue())
out.flush()
os._exit(0)
"""

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
    """The program by the runtime's own Python binding, at most MOST examples a call, in a process of its own: what is
    wrong with a program, or with its kernels, ends the process that runs it.
    """
    content = path.read_bytes()

    def predict(inputs: Array) -> Array:
        given = io.BytesIO()
        np.savez(given, program=np.frombuffer(content, dtype=np.uint8), inputs=inputs)
        answer: Array = np.load(io.BytesIO(run([sys.executable, "-c", READER, MOST], given.getvalue())))
        return answer

    return predict
