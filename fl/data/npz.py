"""The user's own arrays: a ``.npz`` file with x, y, optionally client, x_test, y_test."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from fl.data.arrays import from_arrays
from fl.data.dataset import Dataset
from fl.errors import BadInput
from fl.parameters import Array

ARRAYS = ("x", "y", "client", "x_test", "y_test")


def npz(*, path: str | Path | None, task: str = "auto") -> Dataset:
    """Read a file of ``numpy.savez``; arrays of other names are left alone. Never unpickles."""
    file = existing_file(path, kind=".npz")
    return from_arrays(_read(file), name="npz", source=str(file), task=task)


def existing_file(path: str | Path | None, *, kind: str) -> Path:
    """``path`` as a Path, or BadInput if there is no such file."""
    if path is None or not str(path):
        raise BadInput(key="dataset.path", got=path, allowed=f"the path of a {kind} file")
    file = Path(path).expanduser()
    if not file.is_file():
        raise BadInput(key="dataset.path", got=str(path), allowed=f"a {kind} file that exists")
    return file


def _read(file: Path) -> dict[str, Array]:
    try:
        opened = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BadInput(
            key="dataset.path",
            got=f"{file}, which cannot be read ({error})",
            allowed="a whole .npz file, as numpy.savez writes it",
        ) from error
    if not isinstance(opened, np.lib.npyio.NpzFile):
        raise BadInput(key="dataset.path", got=f"{file}, a single array", allowed="a .npz file of arrays x and y")
    arrays: dict[str, Array] = {}
    with opened:
        for name in (n for n in ARRAYS if n in opened.files):
            try:
                arrays[name] = opened[name]
            except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
                raise BadInput(
                    key="dataset.path",
                    got=f"array {name!r} of {file}, which cannot be read ({error})",
                    allowed="a whole array of numbers",
                ) from error
    return arrays
