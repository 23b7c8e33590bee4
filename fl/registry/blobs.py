"""Parameters as files named after their content: safetensors, verified whenever they are read."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fl.errors import CorruptFile
from fl.files import sync_folder, write_bytes
from fl.parameters import Parameters, copy, sha256
from fl.registry.layout import blob_path, blobs_folder, make_folder


def write_blob(folder: Path, parameters: Parameters) -> str:
    """Store ``parameters`` unless an intact file holds them already; returns their hash. The caller holds the lock."""
    digest = sha256(parameters)
    path = blob_path(folder, digest)
    make_folder(blobs_folder(folder))
    if path.exists():
        try:
            read_blob(folder, digest)
        except CorruptFile:
            pass
        else:
            # Its writer may have died between the rename and the sync.
            sync_folder(path.parent)
            return digest
    # safetensors sorts the names; the model's own order travels in the header.
    write_bytes(path, save(copy(parameters), metadata={"names": json.dumps(list(parameters))}), site="registry.blob")
    return digest


def read_blob(folder: Path, model_sha256: str) -> Parameters:
    """The parameters of a hash, in the model's own order. Raises CorruptFile if the file has others."""
    path = blob_path(folder, model_sha256)
    if not path.is_file():
        raise CorruptFile(path=str(path), why="the file is missing")
    try:
        with safe_open(path, framework="numpy") as file:
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            order = json.loads(file.metadata()["names"])  # the hash below says nothing of the order
        parameters = {name: stored[name] for name in order}
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CorruptFile(path=str(path), why=f"not a readable safetensors file: {error}") from error
    if len(parameters) != len(stored) or (found := sha256(parameters)) != model_sha256:
        raise CorruptFile(path=str(path), why=f"its parameters have another hash than its name ({found[:12]}...)")
    return parameters
