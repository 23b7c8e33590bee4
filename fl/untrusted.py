"""Files that somebody else may have made: what would run code, or open other files, when a library reads them.

Nothing here is executed or unpickled: bytes are looked at. A hash or a signature says that a file is the one that was
written, not that its writer meant well.

    pickle      the archives of torch hold pickles; only those that name nothing but tensors pass
    pt2         torch evaluates the sizes in its graph as Python text, and loads compiled libraries that lie in it
    TorchScript a ``__setstate__`` of its program runs while it is loaded
    ONNX        "external data" makes the reader open any file that the model names
"""

from __future__ import annotations

import ast
import io
import json
import pickletools
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fl.errors import CorruptFile

RUNS_CODE = (".pkl", ".pickle", ".joblib", ".dill", ".pth", ".ckpt", ".h5", ".keras", ".so", ".dll", ".dylib")
"""Suffixes of what runs code when read as it usually is, or when loaded at all; never part of a bundle."""

_TENSORS = {
    "torch._utils": {"_rebuild_tensor_v2", "_rebuild_parameter"},
    "torch.jit._pickle": {"restore_type_tag", "build_intlist", "build_doublelist", "build_boollist"},
    "collections": {"OrderedDict"},
}
_NAMELESS = {"STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"}
_SIZES = {
    *("Symbol", "Integer", "Rational", "Add", "Mul", "Pow", "Max", "Min", "Mod", "FloorDiv", "CeilDiv", "PythonMod"),
    *("Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not", "true", "false", "oo", "int_oo", "IntInfinity"),
    *("NegativeInfinity", "Infinity", "CleanDiv", "Where", "ModularIndexing"),
}
_NODES = (ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.UnaryOp, ast.BinOp)
_ARITHMETIC = (ast.operator, ast.unaryop)
_OPERATORS = ("torch.ops.aten.", "torch.ops.higher_order.", "_operator.", "math.")


def objection(path: Path) -> str | None:
    """What speaks against reading ``path`` with the library that is made for it, in words; None if nothing does."""
    if path.suffix.lower() in RUNS_CODE:
        return f"a {path.suffix} file may run code when it is read"
    content = path.read_bytes()
    if content.startswith(b"PK"):
        return _of_archive(content)
    if path.suffix.lower() == ".pt":
        return "a .pt file that is no archive is a pickle, which may run code when it is read"
    if path.suffix.lower() == ".onnx":
        return _of_onnx(content)
    if content[:1] == b"\x80" and _is_pickle(content):
        return "it is a pickle, which may run code when it is read"
    return None


def refuse_objectionable(path: Path) -> None:
    """Raise CorruptFile, saying what speaks against it, for a file that is not to be read."""
    if why := objection(path):
        raise CorruptFile(path=str(path), why=f"refused: {why}")


# Archives of torch


def _of_archive(content: bytes) -> str | None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for entry in archive.infolist():
                if why := _of_entry(entry.filename, archive.read(entry)):
                    return f"{entry.filename} in it {why}"
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        return f"it looks like an archive and cannot be read as one: {error}"
    return None


def _of_entry(name: str, content: bytes) -> str | None:
    suffix = Path(name).suffix.lower()
    if suffix == ".pkl" or (content[:1] == b"\x80" and _is_pickle(content)):
        return _of_pickle(content)
    if suffix in RUNS_CODE or "/aotinductor/" in name:
        return "may run code when it is read"
    if suffix == ".pt":
        if not content.startswith(b"PK"):
            return "is a pickle, which may run code when it is read"
        return _of_archive(content)
    if suffix == ".py" and "/code/" in name and b"__setstate__" in content:
        return "has a __setstate__, which runs while it is read"
    if suffix == ".json" and "/models/" in name:
        return _of_graph(content)
    if name.endswith("_config.json") and b'"use_pickle": true' in content.replace(b'":true', b'": true'):
        return "asks for a pickle to be read"
    return None


def _is_pickle(content: bytes) -> bool:
    try:
        return any(operation.name == "STOP" for operation, _, _ in pickletools.genops(content))
    except (ValueError, UnicodeDecodeError, OverflowError, IndexError):
        return False


def _of_pickle(content: bytes) -> str | None:
    try:
        for operation, argument, _ in pickletools.genops(content):
            if operation.name in _NAMELESS:
                return f"is a pickle with {operation.name}, which may run code when it is read"
            if operation.name == "GLOBAL" and not _only_tensors(*str(argument).split(" ", 1)):
                return f"is a pickle that names {str(argument).replace(' ', '.')}, which may run code when it is read"
    except (ValueError, UnicodeDecodeError, OverflowError, IndexError) as error:
        return f"is no readable pickle: {error}"
    return None


def _only_tensors(module: str, name: str) -> bool:
    if module == "torch":
        return name.endswith("Storage") or name == "Size"
    return module.startswith("__torch__") or name in _TENSORS.get(module, ())


def _of_graph(content: bytes) -> str | None:
    try:
        found = list(_texts(json.loads(content)))
    except ValueError as error:
        return f"is no readable graph: {error}"
    for key, text in found:
        if key == "expr_str" and not _is_size(text):
            return f"has the size {text[:80]!r}, which may run code when it is read"
        if key == "target" and not text.startswith(_OPERATORS):
            return f"calls {text[:80]!r}, which is no operation of a model"
    return None


def _texts(value: Any) -> Iterator[tuple[str, str]]:
    """Every text below a JSON value, with the key it stands under."""
    for key, one in value.items() if isinstance(value, dict) else [("", v) for v in value]:
        if isinstance(one, str):
            yield key, one
        elif isinstance(one, dict | list):
            yield from _texts(one)


def _is_size(text: str) -> bool:
    """Whether a text is arithmetic on named sizes and nothing else.

    >>> _is_size("Symbol('s31', positive=True, integer=True) + 1"), _is_size("__import__('os').getpid()")
    (True, False)
    """
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError):
        return False
    return all(
        isinstance(node, (*_NODES, *_ARITHMETIC))
        and (not isinstance(node, ast.Name) or node.id in _SIZES or node.id.lstrip("su").isdigit())
        and (not isinstance(node, ast.Constant) or _is_plain(node.value))
        for node in nodes
    )


def _is_plain(value: object) -> bool:
    """A number, a truth, or the name of a size: sympy evaluates some texts again."""
    return isinstance(value, int | float) or (isinstance(value, str) and value.isidentifier() and "__" not in value)


# ONNX: a walk over the messages of its protocol buffers, since no library reads them without following what they name

_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _TENSOR, _SPARSE, _FUNCTION, _TRAINING = range(8)
_BELOW: dict[int, dict[int, int]] = {
    _MODEL: {7: _GRAPH, 20: _TRAINING, 25: _FUNCTION},
    _TRAINING: {1: _GRAPH, 2: _GRAPH},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _FUNCTION: {7: _NODE, 11: _ATTRIBUTE},
    _TENSOR: {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14


def _of_onnx(content: bytes) -> str | None:
    waiting = [(_MODEL, memoryview(content))]
    try:
        while waiting:
            kind, message = waiting.pop()
            for field, value in _fields(message):
                if kind == _TENSOR and (field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value != 0)):
                    return "it keeps numbers in other files (external data), which its reader would open"
                if field in _BELOW[kind] and isinstance(value, memoryview):
                    waiting.append((_BELOW[kind][field], value))
    except (ValueError, IndexError) as error:
        return f"it is no readable ONNX model: {error}"
    return None


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a message: https://protobuf.dev/programming-guides/encoding/"""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind, size = tag & 7, {1: 8, 5: 4}.get(tag & 7, 0)
        if kind == 0:
            value, place = _varint(message, place)
            yield tag >> 3, value
            continue
        if kind == 2:
            size, place = _varint(message, place)
        elif not size:
            raise ValueError(f"a field of kind {kind} at byte {place}")
        if place + size > len(message):
            raise ValueError(f"a field that ends after the file, at byte {place}")
        yield tag >> 3, message[place : place + size]
        place += size


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError(f"a number without end at byte {place}")
