"""A strategy's state between rounds, as plain data: momentum, moments, clipping norms.

Works on any Strategy, ours or Flower's, by walking its attributes: numbers, texts, arrays, records, and lists and
dicts of those. Functions and the like come from the configuration again and are passed over. No pickle.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Strategy
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fl import wire
from fl.errors import CorruptFile
from fl.files import sha256_file

SKIP = object()


def pack_state(strategy: Strategy) -> bytes:
    """The strategy's state as the content of a file: a copy, which later rounds leave alone."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    tree = _pack(strategy, arrays)
    return save(arrays, metadata={"tree": json.dumps(tree)})


def load_state(strategy: Strategy, path: Path, *, sha256: str) -> None:
    """Put the state in ``path`` into ``strategy``, which was built from the same configuration.

    Raises CorruptFile, having changed nothing, unless the file's bytes have the hash that was recorded of them.
    """
    try:
        found = sha256_file(path)
        if found != sha256:
            raise CorruptFile(path=str(path), why=f"its bytes have the hash {found[:12]}, {sha256[:12]} was recorded")
        with safe_open(path, framework="numpy") as file:
            tree = json.loads(file.metadata()["tree"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptFile(path=str(path), why=f"not a strategy's state: {error}") from error
    _restore(strategy, tree, arrays)


def _pack(value: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    """JSON for ``value``; its arrays go into ``arrays``. SKIP for what is not data."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case np.ndarray() | np.generic():
            name = f"a{len(arrays)}"
            arrays[name] = np.array(value, order="C")
            return {"array": name, "scalar": isinstance(value, np.generic)}
        case ArrayRecord():
            return {"record": _pack(wire.arrays_of(value), arrays)}
        case list() | tuple():
            packed = [_pack(v, arrays) for v in value]
            return SKIP if any(v is SKIP for v in packed) else {"list": packed, "tuple": isinstance(value, tuple)}
        case dict():
            items = [(k, _pack(v, arrays)) for k, v in value.items()]
            return SKIP if any(v is SKIP for _, v in items) else {"dict": [[k, v] for k, v in items]}
        case Strategy():
            public = {name: v for name, v in vars(value).items() if not name.startswith("_")}
            packed_attributes = {name: _pack(v, arrays) for name, v in public.items()}
            return {"strategy": {name: v for name, v in packed_attributes.items() if v is not SKIP}}
        case _:
            return SKIP


def _unpack(tree: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    match tree:
        case {"array": name, "scalar": scalar}:
            return arrays[name][()] if scalar else arrays[name]
        case {"record": inner}:
            return wire.array_record(_unpack(inner, arrays))
        case {"list": items, "tuple": is_tuple}:
            values = [_unpack(v, arrays) for v in items]
            return tuple(values) if is_tuple else values
        case {"dict": items}:
            return {k: _unpack(v, arrays) for k, v in items}
        case _:
            return tree


def _restore(strategy: Strategy, tree: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    for name, value in tree["strategy"].items():
        if isinstance(value, dict) and "strategy" in value:
            _restore(getattr(strategy, name), value, arrays)
        else:
            setattr(strategy, name, _unpack(value, arrays))
