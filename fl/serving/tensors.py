"""Tensors of the Open Inference Protocol, version 2, and its extension for tensors as bytes behind the JSON.

A request or an answer is one JSON object; where a tensor has ``parameters.binary_data_size``, its values follow the
JSON, in order, row-major and little-endian. How long the JSON is says a header.
Source: https://github.com/kserve/open-inference-protocol, https://github.com/triton-inference-server (binary data).
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from fl.parameters import Array
from fl.serving.model import Unanswerable

HEADER_LENGTH = "inference-header-content-length"

DTYPES: dict[str, str] = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
MOST_AXES = 8


def parse(body: bytes, header_length: str | None) -> tuple[dict[str, Any], memoryview]:
    """The JSON of a request, and the bytes behind it. Raises Unanswerable for what is neither."""
    length = len(body)
    if header_length is not None:
        if not header_length.isascii() or not header_length.isdigit() or int(header_length) > len(body):
            raise Unanswerable(f"{HEADER_LENGTH} is {header_length!r}, allowed: at most the body's {len(body)} bytes")
        length = int(header_length)
    found = _json(body[:length])
    if not isinstance(found, dict):
        raise Unanswerable(f"the body is a JSON {type(found).__name__}, expected an object")
    return found, memoryview(body)[length:]


def _json(text: bytes) -> Any:
    """Any JSON value. orjson is several times as quick; what it refuses, a NaN say, is left to Python's own reader."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Unanswerable(f"the body is not JSON: {error}") from error


def input_of(request: Mapping[str, Any], behind: memoryview, *, name: str) -> Array:
    """The one input of a request, called ``name``. Raises Unanswerable for what is not a whole tensor."""
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise Unanswerable(f"inputs: expected a list of one tensor, {name!r}")
    tensor = inputs[0]
    if tensor.get("name") != name:
        raise Unanswerable(f"inputs: got {tensor.get('name')!r}, expected {name!r}")
    dtype = DTYPES.get(str(tensor.get("datatype")))
    if dtype is None:
        raise Unanswerable(f"datatype: got {tensor.get('datatype')!r}, allowed: {', '.join(DTYPES)}")
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not 1 <= len(shape) <= MOST_AXES or not all(_is_side(side) for side in shape):
        raise Unanswerable(f"shape: expected 1 to {MOST_AXES} whole numbers from 0")
    parameters = tensor.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is None:
        return _from_data(tensor.get("data"), dtype, shape)
    wanted = math.prod(shape) * np.dtype(dtype).itemsize
    if size != wanted or len(behind) != wanted:
        raise Unanswerable(f"binary_data_size is {size} and {len(behind)} bytes follow, expected {wanted}")
    return np.frombuffer(behind, dtype=np.dtype(dtype).newbyteorder("<")).astype(dtype, copy=False).reshape(shape)


def _from_data(data: Any, dtype: str, shape: Sequence[int]) -> Array:
    if not isinstance(data, list):
        raise Unanswerable("data: expected a list of numbers")
    wanted = np.dtype(dtype)
    if wanted.kind == "f" and len(data) == math.prod(shape):
        try:  # a plain list of numbers, as most are: twice as quick as NumPy, which looks at each value's type first
            packed = bytearray(len(data) * wanted.itemsize)
            struct.pack_into(f"{len(data)}{wanted.char}", packed, 0, *data)
        except (struct.error, OverflowError):
            pass  # nested, too large, or no numbers: told apart below
        else:
            return np.frombuffer(packed, wanted).reshape(shape)
    try:
        found = np.array(data)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise Unanswerable("data: rows are of different lengths, or hold other things than numbers") from error
    if found.size and (found.dtype.kind not in "biuf" or (found.dtype.kind == "f" and wanted.kind != "f")):
        raise Unanswerable(f"data: expected values of {NAMES[dtype]}")
    if found.size != math.prod(shape):
        raise Unanswerable(f"data: {found.size} values, the shape asks for {math.prod(shape)}")
    with np.errstate(over="ignore"):
        typed = found.astype(wanted)
    if wanted.kind in "iu" and (typed != found).any():
        raise Unanswerable(f"data: a value that {NAMES[dtype]} does not hold")
    return typed.reshape(shape)


def _is_side(side: Any) -> bool:
    return isinstance(side, int) and not isinstance(side, bool) and 0 <= side < 2**31


def as_bytes(request: Mapping[str, Any], name: str) -> bool:
    """Whether the output called ``name`` is wanted as bytes."""
    for output in request.get("outputs") or ():
        if isinstance(output, dict) and output.get("name") == name:
            parameters = output.get("parameters")
            return isinstance(parameters, dict) and parameters.get("binary_data") is True
    parameters = request.get("parameters")
    return isinstance(parameters, dict) and parameters.get("binary_data_output") is True


def outputs_wanted(request: Mapping[str, Any], known: Sequence[str]) -> list[str]:
    """The outputs that a request asks for; the first of ``known`` where it does not say. Unanswerable for another."""
    asked = request.get("outputs")
    if not asked:
        return [known[0]]
    names = [output.get("name") if isinstance(output, dict) else None for output in asked if isinstance(asked, list)]
    if strange := [name for name in names if name not in known]:
        raise Unanswerable(f"outputs: got {strange[0]!r}, allowed: {', '.join(known)}")
    return [name for name in known if name in names]


def encode(about: Mapping[str, Any], tensors: Mapping[str, Array], binary: Sequence[str]) -> tuple[bytes, int | None]:
    """The body of an answer, and how long its JSON is where bytes follow. Texts go as BYTES."""
    told, behind = [], []
    for name, values in tensors.items():
        texts = values.dtype.kind == "U"
        one: dict[str, Any] = {"name": name, "shape": list(values.shape)}
        one["datatype"] = "BYTES" if texts else NAMES[str(values.dtype)]
        if name in binary:
            raw = (
                _texts(values)
                if texts
                else np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes()
            )
            behind.append(raw)
            one["parameters"] = {"binary_data_size": len(raw)}
        else:
            one["data"] = values.reshape(-1).tolist() if texts else np.ascontiguousarray(values).reshape(-1)
        told.append(one)
    text = orjson.dumps({**about, "outputs": told}, option=orjson.OPT_SERIALIZE_NUMPY)
    return text + b"".join(behind), len(text) if behind else None


def _texts(values: Array) -> bytes:
    encoded = [str(text).encode() for text in values.reshape(-1)]
    return b"".join(struct.pack("<I", len(text)) + text for text in encoded)
