"""Parameters as files named after their content: safetensors, verified whenever they are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fl.errors import CorruptFile
from fl.files import sync_folder, write_together
from fl.parameters import Parameters, copy, sha256
from fl.registry.layout import blob_path, blobs_folder, make_folder


def write_blobs(folder: Path, several: Mapping[str, Parameters]) -> None:
    """Store parameters by their hashes, unless an intact file holds them already. The caller holds the lock."""
    make_folder(blobs_folder(folder))
    contents = {}
    for digest, parameters in several.items():
        if _is_intact(folder, digest):
            sync_folder(blobs_folder(folder))  # its writer may have died between the rename and the sync
        else:
            # safetensors sorts the names; the model's own order travels in the header.
            names = {"names": json.dumps(list(parameters))}
            contents[blob_path(folder, digest)] = save(copy(parameters), metadata=names)
    write_together(contents, site="registry.blob")


def _is_intact(folder: Path, digest: str) -> bool:
    if not blob_path(folder, digest).exists():
        return False
    try:
        read_blob(folder, digest)
    except CorruptFile:
        return False
    return True


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
