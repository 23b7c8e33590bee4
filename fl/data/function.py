"""The user's own data from a Python function, by dotted name or by file."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fl.data.arrays import from_arrays
from fl.data.dataset import Dataset
from fl.errors import BadInput, MeadowError

_KEY = "dataset.function"


def function(*, target: str | None, arguments: Mapping[str, Any] | None = None, task: str = "auto") -> Dataset:
    """Call ``target`` with keyword ``arguments``; it returns a ``Dataset`` or a mapping of arrays.

    ``target`` is ``"package.module.function"`` for what is installed, or ``"path/to/file.py:function"``. The arrays are
    x, y, and optionally client, x_test, y_test, under the rules of ``fl.data.arrays``.
    """
    call = _found(target)
    try:
        made = call(**dict(arguments or {}))
    except MeadowError:
        raise
    except Exception as error:
        raise BadInput(
            key=_KEY,
            got=f"{target}, which raised {type(error).__name__}: {error}",
            allowed="a function that returns data",
        ) from error
    if isinstance(made, Dataset):
        return replace(made, origin=made.origin or str(target))
    if not isinstance(made, Mapping):
        got = f"{target}, which returned a {type(made).__name__}"
        raise BadInput(key=_KEY, got=got, allowed="a function that returns a Dataset or a dict of arrays x and y")
    return from_arrays(made, name="function", source=str(target), key=_KEY, task=task)


def _found(target: str | None) -> Callable[..., Any]:
    allowed = "package.module.function, or path/to/file.py:function"
    if not target:
        raise BadInput(key=_KEY, got=target, allowed=allowed)
    separator = ":" if ":" in target else "."
    place, _, name = target.rpartition(separator)
    if not place or not name:
        raise BadInput(key=_KEY, got=target, allowed=allowed)
    try:
        module = _module_in(Path(place).expanduser()) if place.endswith(".py") else importlib.import_module(place)
        call = getattr(module, name)
    except Exception as error:
        raise BadInput(key=_KEY, got=f"{target}, which cannot be imported ({error})", allowed=allowed) from error
    if not callable(call):
        raise BadInput(key=_KEY, got=f"{target} of type {type(call).__name__}", allowed="a function")
    return call  # type: ignore[no-any-return]


def _module_in(file: Path) -> Any:
    """The module in a file, run once here and put on no path."""
    spec = importlib.util.spec_from_file_location(f"meadow_data_{file.stem}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise FileNotFoundError(f"no file {file}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
