"""A model and the code that runs it, as the package ``meadow_model`` inside an archive that is the same every time."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import IO, Any

import numpy as np

from fl.errors import BadInput
from fl.packaging.cells import column_names
from fl.packaging.formulas import Formulas
from fl.packaging.metadata import signature_of
from fl.packaging.operations import Convolution, Operation, Program, Trees
from fl.parameters import Array
from fl.signature import Signature

PACKAGE = "meadow_model"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first that a zip can say
_TYPES = {"float32": "f", "float64": "d", "int64": "q", "bool": "?"}

_INIT = '''"""A model exported by Meadow, and what it takes to ask it; needs {needs}.

    predict(rows)     what the model answers, raw: a sequence of rows, each numbers in order or a mapping by name
    classify(rows)    the label of each row
    MODEL             its signature, and in MODEL.metadata the version it is
"""

import pkgutil

from . import {kernels} as kernels

__all__ = ["MODEL", "classify", "predict"]

MODEL = kernels.load(pkgutil.get_data(__name__, "model.json"), pkgutil.get_data(__name__, "weights.bin"))


def predict(rows):
    return kernels.predict(MODEL, rows)


def classify(rows):
    return [MODEL.label(answer) for answer in predict(rows)]
'''

_MAIN = '''"""python FILE [ROWS.csv]: the label and the answer of each row, as CSV."""

import sys

from {package} import MODEL, predict
from {package}.rows import main

if __name__ == "__main__":
    sys.exit(main(MODEL, predict, sys.argv[1:], sys.stdout))
'''


def files_of(program: Program, metadata: Mapping[str, Any], *, kernels: str, needs: str) -> dict[str, bytes]:
    """The package's files by name. ``kernels``: the module of fl/packaging/portable that runs the operations."""
    weights = bytearray()
    told = {
        "meadow": dict(metadata),
        "columns": column_names(program),
        "shape": list(program.shapes[-1]),
        "operations": [_described(operation, weights) for operation in program.operations],
    }
    sources = resources.files("fl.packaging.portable")
    files = {f"{module}.py": sources.joinpath(f"{module}.py").read_bytes() for module in ("rows", kernels)}
    files["__init__.py"] = _INIT.format(kernels=kernels, needs=needs).encode()
    files["__main__.py"] = main_of().encode()
    files["model.json"] = json.dumps(told, sort_keys=True, allow_nan=False).encode()
    files["weights.bin"] = bytes(weights)
    return {f"{PACKAGE}/{name}": content for name, content in files.items()}


def main_of() -> str:
    """What runs when the archive or the package is run."""
    return _MAIN.format(package=PACKAGE)


def write_zip(file: IO[bytes], contents: Mapping[str, bytes]) -> None:
    """Uncompressed, sorted by name, without times: the same contents, the same bytes."""
    with zipfile.ZipFile(file, "w") as archive:
        for name in sorted(contents):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr, entry.create_system = 0o100644 << 16, 3
            archive.writestr(entry, contents[name])


def signature_in(path: Path) -> Signature:
    """The signature in an archive with ``files_of``."""
    with zipfile.ZipFile(path) as archive:
        return signature_of(json.loads(archive.read(f"{PACKAGE}/model.json"))["meadow"])


def _described(operation: Operation, weights: bytearray) -> tuple[str, dict[str, Any]]:
    """Its kind, and its fields as JSON; arrays go to the end of ``weights``."""
    fields = {field.name: getattr(operation, field.name) for field in dataclasses.fields(operation)}
    if isinstance(operation, Convolution):
        fields |= {"window": operation.weight.shape[2:]}
    if isinstance(operation, Trees):
        fields |= {"width": operation.leaf.shape[1]}
    told: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Formulas):
            told |= {"terms": [[t.operation, t.arguments, t.value.hex()] for t in value.terms]}
            told |= {"outputs": value.outputs}
        elif isinstance(value, np.ndarray):
            told[name] = _stored(value, weights)
        else:
            told[name] = value
    return type(operation).__name__, told


def _stored(array: Array, weights: bytearray) -> dict[str, Any]:
    kind = _TYPES.get(str(array.dtype))
    if kind is None:
        raise BadInput(key="model", got=f"an array of {array.dtype}", allowed=", ".join(_TYPES))
    start = len(weights)
    weights += array.astype(array.dtype.newbyteorder("<")).tobytes()
    return {"bytes": [start, len(weights)], "type": kind, "shape": array.shape}
