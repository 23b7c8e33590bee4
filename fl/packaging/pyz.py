"""pyz: a model that any Python runs by itself, for small ones: ``python model.pyz rows.csv``, standard library only."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fl.errors import BadInput
from fl.packaging.apart import run
from fl.packaging.archive import files_of, main_of, signature_in, write_zip
from fl.packaging.cells import answers_of, rows_as_csv
from fl.packaging.metadata import signature_of
from fl.packaging.predict import Predict
from fl.packaging.reading import program_of
from fl.parameters import Array
from fl.signature import Signature

MOST_MULTIPLICATIONS = 20_000_000
"""An answer: about a second in Python."""


def check(module: nn.Module, signature: Signature) -> None:
    """Raise BadInput if a layer cannot be written down, or the model is too large for Python alone."""
    cost = program_of(module, signature).multiplications
    if cost > MOST_MULTIPLICATIONS:
        got = f"{cost:,} multiplications an answer, too many for Python alone"
        raise BadInput(key="--format pyz", got=got, allowed=f"at most {MOST_MULTIPLICATIONS:,}; whl, c or onnx")


def write(module: nn.Module, example: Tensor, path: Path, *, metadata: Mapping[str, Any]) -> None:
    """A zip with a first line that makes it a program. ``example`` is not needed."""
    program = program_of(module, signature_of(metadata))
    files = files_of(program, metadata, kernels="plain", needs="nothing but Python 3.10 or later")
    with path.open("wb") as file:
        file.write(b"#!/usr/bin/env python3\n")
        write_zip(file, files | {"__main__.py": main_of().encode()})
    path.chmod(0o755)


def read(path: Path) -> Predict:
    """The file in a Python of its own that sees no installed package."""
    signature = signature_in(path)

    def predict(inputs: Array) -> Array:
        answered = run([sys.executable, "-I", "-S", path], rows_as_csv(inputs).encode())
        return answers_of(answered.decode(), signature)

    return predict
