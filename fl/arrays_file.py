"""Named arrays as a file that knows its own hash: safetensors, with the hash of the arrays in the header."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fl.errors import CorruptFile
from fl.files import write_bytes
from fl.parameters import Array, Parameters, copy, sha256

HASH = "sha256"


def write_arrays(path: Path, arrays: Mapping[str, Array], *, site: str) -> None:
    """Replace ``path``, whole or not at all; see ``fl.files.write_bytes``."""
    write_bytes(path, save(copy(arrays), metadata={HASH: sha256(arrays)}), site=site)


def read_arrays(path: Path) -> Parameters:
    """The arrays in a file of ``write_arrays``. Raises CorruptFile unless they are those that were written."""
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            wanted = (file.metadata() or {}).get(HASH)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptFile(path=str(path), why=f"not a readable safetensors file: {error}") from error
    if (found := sha256(arrays)) != wanted:
        raise CorruptFile(path=str(path), why=f"its arrays have the hash {found[:12]}..., another than it says")
    return arrays
