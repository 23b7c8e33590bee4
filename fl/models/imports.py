"""From a dotted name to what it names, and to the source it was written in."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from fl.errors import BadInput

KEY = "model._target_"
ALLOWED = "the dotted name of a function or class that gives a torch.nn.Module and can be imported"


def find(target: str) -> Callable[..., Any]:
    """Import what ``target`` names: package.module.name, or a name inside a class.

    Raises BadInput for anything that cannot be imported or called, with the reason. Importing runs the module's code.
    """
    parts = target.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module = _import(".".join(parts[:length]), target)
        if module is not None:
            return _member(module, parts[length:], target)
    raise BadInput(key=KEY, got=target, allowed=f"{ALLOWED} (a file of your own: put its folder into PYTHONPATH)")


def source_sha256(target: str) -> str:
    """Identity of a model's source, for the lineage: SHA-256 over its file and those files of its package it uses.

    Used means reachable by the names a file holds, in module order. Where there is no source, the name is hashed.
    """
    found = find(target)
    digest = hashlib.sha256(target.encode())
    for name, path in sorted(_sources(_module_name(found)).items()):
        digest.update(f"\0{name}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _import(name: str, target: str) -> ModuleType | None:
    """The module, None if there is none of this name, BadInput if there is one and importing it fails."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            return None
        raise BadInput(key=KEY, got=target, allowed=f"{ALLOWED} ({error})") from error
    except Exception as error:
        raise BadInput(key=KEY, got=target, allowed=f"{ALLOWED} ({type(error).__name__}: {error})") from error


def _member(module: ModuleType, names: list[str], target: str) -> Callable[..., Any]:
    found: Any = module
    for name in names:
        if not hasattr(found, name):
            raise BadInput(key=KEY, got=target, allowed=f"{ALLOWED} ({found.__name__} has no {name})")
        found = getattr(found, name)
    if not callable(found):
        raise BadInput(key=KEY, got=target, allowed=f"{ALLOWED} (it is of type {type(found).__name__})")
    return found  # type: ignore[no-any-return]


def _module_name(value: object) -> str:
    return value.__name__ if inspect.ismodule(value) else str(getattr(value, "__module__", ""))


def _sources(start: str) -> dict[str, Path]:
    """Module name -> file, of ``start`` and what it reaches within its own package."""
    package, _, _ = start.rpartition(".")
    found: dict[str, Path] = {}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        file = getattr(sys.modules.get(name), "__file__", None)
        if name in found or file is None or not file.endswith(".py"):
            continue
        found[name] = Path(file)
        reached = {_module_name(value) for value in vars(sys.modules[name]).values()}
        waiting += [other for other in reached if package and other.startswith(f"{package}.")]
    return found
