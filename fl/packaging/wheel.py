"""whl: a model as a dependency. ``pip install`` it, ``from meadow_model import predict``; needs NumPy only."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from fl.packaging.apart import kept_with, run, scratch
from fl.packaging.archive import files_of, write_zip
from fl.packaging.metadata import signature_of
from fl.packaging.predict import Predict
from fl.packaging.reading import program_of
from fl.parameters import Array
from fl.signature import Signature

DISTRIBUTION = "meadow_model"
NEEDS = "numpy>=1.22"

# The folder comes first, and what the wheel must do without is not to be had.
READER = """
import io, sys
sys.modules.update(dict.fromkeys(("fl", "torch")))
sys.path.insert(0, sys.argv[1])
import numpy as np
from meadow_model import predict
answer, out = predict(np.load(io.BytesIO(sys.stdin.buffer.read()))), io.BytesIO()
np.save(out, answer)
sys.stdout.buffer.write(out.getvalue())
"""


def file_name(name: str, suffix: str) -> str:
    """As installers ask: the version is 0, and which model it is stands behind it.

    >>> file_name("20260101-0a_b-7", "whl")
    'meadow_model-0+20260101.0a.b.7-py3-none-any.whl'
    """
    parts = re.findall(r"[a-z0-9]+", name.lower())
    local = ".".join(str(int(part)) if part.isdigit() else part for part in parts)
    return f"{DISTRIBUTION}-0+{local}-py3-none-any.{suffix}"


def check(module: nn.Module, signature: Signature) -> None:
    """Raise BadInput if a layer cannot be written down."""
    program_of(module, signature)


def write(module: nn.Module, example: Tensor, path: Path, *, metadata: Mapping[str, Any]) -> None:
    """``path`` is named as ``file_name`` says; the version is read off it. ``example`` is not needed."""
    version = path.name.split("-")[1]
    program = program_of(module, signature_of(metadata))
    files = files_of(program, metadata, kernels="vectorised", needs="NumPy")
    folder = f"{DISTRIBUTION}-{version}.dist-info"
    files[f"{folder}/METADATA"] = _text(
        "Metadata-Version: 2.1",
        f"Name: {DISTRIBUTION.replace('_', '-')}",
        f"Version: {version}",
        "Summary: A model exported by Meadow: from meadow_model import predict",
        "Requires-Python: >=3.10",
        f"Requires-Dist: {NEEDS}",
    )
    files[f"{folder}/WHEEL"] = _text(
        "Wheel-Version: 1.0", "Generator: meadow", "Root-Is-Purelib: true", "Tag: py3-none-any"
    )
    listed = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in sorted(files.items())]
    files[f"{folder}/RECORD"] = _text(*listed, f"{folder}/RECORD,,")
    with path.open("wb") as file:
        write_zip(file, files)


def read(path: Path) -> Predict:
    """The package unpacked, as an installer does, in a Python that finds neither Meadow nor torch."""
    folder = scratch()

    def predict(inputs: Array) -> Array:
        given = io.BytesIO()
        np.save(given, inputs)
        answer: Array = np.load(io.BytesIO(run([sys.executable, "-I", "-c", READER, folder], given.getvalue())))
        return answer

    kept_with(folder, predict)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    return predict


def _text(*lines: str) -> bytes:
    return ("\n".join(lines) + "\n").encode()


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
