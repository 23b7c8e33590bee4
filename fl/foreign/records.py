"""Flower's records as buffers: one for names and plain values, one an array; and back, each time as records of its own.

An array travels as the npy bytes that Flower's Array holds. Who receives it decodes it when it is looked at, straight
from the buffer; who passes it on passes on the buffer. So a payload is encoded once, however many messages carry it,
and every receiver has records of its own over bytes that nobody can change.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

import flwr.app
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.app.message import recorddict

from .frames import Buffer

MAGIC = b"\x93NUMPY"
ROW_MAJOR = b"'fortran_order': False"


class Array(flwr.app.Array):
    """Flower's Array over npy bytes that lie elsewhere. Named as Flower's, which writes the name into what it sends."""

    def __init__(self, dtype: str, shape: tuple[int, ...], stype: str, npy: Buffer) -> None:
        # Not one by one: Flower's __setattr__ keeps account of changes, of which there are none yet.
        self.__dict__.update(dtype=dtype, shape=shape, stype=stype, npy=npy)

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
        dtype = _plain_dtype(bytes(npy[10:start]), self.dtype)
        if dtype is None or len(npy) - start != dtype.itemsize * math.prod(self.shape):
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


@lru_cache(maxsize=1024)
def _plain_dtype(header: bytes, name: str) -> np.dtype[Any] | None:
    """The dtype called ``name`` if an npy header tells of row-major values of that dtype, else None."""
    try:
        dtype = np.dtype(name)
    except TypeError:
        return None
    return dtype if ROW_MAJOR in header and f"'descr': '{dtype.str}'".encode() in header else None


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
    content = _empty(kind).copy()
    following = iter(buffers)
    for name, record_kind, values in rows:
        record = content.__dict__["_data"][name] = _empty(record_kind).copy()
        # Past the checks of every key and value, which have been through them where they were put in.
        if isinstance(record, ArrayRecord):
            arrays = {key: Array(dtype, shape, stype, next(following)) for key, dtype, shape, stype in values}
            record.__dict__["_data"].update(arrays)
        else:
            record.__dict__["_data"].update(values)
    return content  # type: ignore[no-any-return]


@cache
def _empty(kind: type) -> Any:
    return kind()


def copy_of(content: RecordDict) -> RecordDict:
    """The same records again, sharing nothing that can be changed."""
    return decode(*encode(content))


def installed() -> None:
    """Let RecordDict give its records of one kind without checking and writing back each of them, which takes long."""
    for name, kind in (
        ("array_records", ArrayRecord),
        ("metric_records", MetricRecord),
        ("config_records", ConfigRecord),
    ):
        setattr(RecordDict, name, property(_records_of(kind), doc=getattr(RecordDict, name).__doc__))


def _records_of(kind: type) -> Callable[[RecordDict], Any]:
    def records(self: RecordDict) -> Any:
        view: Any = recorddict._SyncedDict(self, kind)
        view.__dict__["_data"].update({name: record for name, record in self.items() if isinstance(record, kind)})
        return view

    return records
