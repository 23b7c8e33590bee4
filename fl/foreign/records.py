"""Flower's records as buffers: one for names and plain values, one an array; and back, each time as records of its own.

An array travels as the npy bytes that Flower's Array holds. Who receives it decodes it when it is looked at, straight
from the buffer; who passes it on passes on the buffer. So a payload is encoded once, however many messages carry it,
and every receiver has records of its own over bytes that nobody can change.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import flwr.app
import numpy as np
from flwr.app import ArrayRecord, RecordDict

from .frames import Buffer

MAGIC = b"\x93NUMPY"
ROW_MAJOR = b"'fortran_order': False"


class Array(flwr.app.Array):
    """Flower's Array over npy bytes that lie elsewhere. Named as Flower's, which writes the name into what it sends."""

    def __init__(self, dtype: str, shape: tuple[int, ...], stype: str, npy: Buffer) -> None:
        self.dtype, self.shape, self.stype = dtype, shape, stype
        self.__dict__["npy"] = npy

    @property
    def data(self) -> bytes:
        """The npy bytes, as Flower's own holds them."""
        return bytes(self.__dict__["npy"])

    @data.setter
    def data(self, value: bytes) -> None:
        self.__dict__["npy"] = value

    def numpy(self) -> np.ndarray[Any, Any]:
        """A writable copy, as Flower's own gives."""
        view = self.view()
        return super().numpy() if view is None else view.copy()

    def view(self) -> np.ndarray[Any, Any] | None:
        """The values where they lie, read-only; None for what is not plain row-major npy."""
        npy = self.__dict__["npy"]
        if self.stype != "numpy.ndarray" or bytes(npy[:6]) != MAGIC or npy[6] != 1:
            return None
        start = 10 + int.from_bytes(npy[8:10], "little")
        header = bytes(npy[10:start])
        try:
            dtype = np.dtype(self.dtype)
        except TypeError:
            return None
        if ROW_MAJOR not in header or f"'descr': '{dtype.str}'".encode() not in header:
            return None
        if len(npy) - start != dtype.itemsize * int(np.prod(self.shape, dtype=np.int64)):
            return None
        values = np.frombuffer(npy, dtype=dtype, offset=start).reshape(self.shape)
        values.flags.writeable = False
        return values

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, flwr.app.Array):
            return NotImplemented
        mine, its = (self.dtype, self.shape, self.stype), (other.dtype, tuple(other.shape), other.stype)
        return mine == its and self.data == other.data

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return Array, (self.dtype, self.shape, self.stype, self.data)


def npy_of(array: flwr.app.Array) -> Buffer:
    """The bytes of an array, without copying them."""
    npy: Buffer = array.__dict__["npy"] if isinstance(array, Array) else array.data
    return npy


def encode(content: RecordDict) -> tuple[bytes, list[Buffer]]:
    """What names and plain values there are, and the arrays' bytes in their order."""
    buffers: list[Buffer] = []
    rows = []
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            buffers += [npy_of(array) for array in record.values()]
            values: Any = [(key, a.dtype, tuple(a.shape), a.stype) for key, a in record.items()]
        else:
            values = dict(record)
        rows.append((name, type(record), values))
    return pickle.dumps((type(content), rows), protocol=5), buffers


def decode(head: Buffer, buffers: Sequence[Buffer]) -> RecordDict:
    """The inverse of ``encode``. Only for what another process of the same app has said."""
    kind, rows = pickle.loads(head)  # noqa: S301  from the app to the app
    content: RecordDict = kind()
    following = iter(buffers)
    for name, record_kind, values in rows:
        record = record_kind()
        if isinstance(record, ArrayRecord):
            for key, dtype, shape, stype in values:
                record[key] = Array(dtype, shape, stype, next(following))
        else:
            for key, value in values.items():
                record[key] = value
        content[name] = record
    return content


def copy_of(content: RecordDict) -> RecordDict:
    """The same records again, sharing nothing that can be changed."""
    return decode(*encode(content))
