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
USUAL = 128
"""Bytes before the values in npy of a plain dtype and few axes: where there are more, Flower's own way will do."""

KINDS: dict[type, str] = {
    ArrayRecord: "array_records",
    MetricRecord: "metric_records",
    ConfigRecord: "config_records",
}
"""Kinds of records, and the property by which a RecordDict gives those of that kind."""


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
        self.__dict__.pop("values", None)

    def numpy(self) -> np.ndarray[Any, Any]:
        """A writable copy, as Flower's own gives."""
        view = self.view()
        return super().numpy() if view is None else view.copy()

    def view(self) -> np.ndarray[Any, Any] | None:
        """The values where they lie, read-only; None for what is not plain row-major npy."""
        held = self.__dict__
        if "values" not in held:
            # Not by setattr, see above. Every reply is looked at twice: whether it is sound, and to be averaged.
            held["values"] = self._viewed()
        values: np.ndarray[Any, Any] | None = held["values"]
        return values

    def _viewed(self) -> np.ndarray[Any, Any] | None:
        held = self.__dict__
        npy = held["npy"]
        plain = held["stype"] == "numpy.ndarray" and _plain(bytes(npy[:USUAL]), held["dtype"])
        if not plain:
            return None
        dtype, start = plain
        if len(npy) - start != dtype.itemsize * math.prod(held["shape"]):
            return None
        values = np.frombuffer(npy, dtype=dtype, offset=start).reshape(held["shape"])
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
def _plain(beginning: bytes, name: str) -> tuple[np.dtype[Any], int] | None:
    """The dtype ``name`` and where the values begin, if npy that begins so has row-major values of that dtype."""
    start = 10 + int.from_bytes(beginning[8:10], "little")
    if beginning[:7] != MAGIC + b"\x01" or start > USUAL:
        return None
    try:
        dtype = np.dtype(name)
    except TypeError:
        return None
    header = beginning[10:start]
    return (dtype, start) if ROW_MAJOR in header and f"'descr': '{dtype.str}'".encode() in header else None


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
    for kind, name in KINDS.items():
        setattr(RecordDict, name, property(_records_of(kind), doc=getattr(RecordDict, name).__doc__))


def _records_of(kind: type) -> Callable[[RecordDict], Any]:
    def check_value(value: Any) -> None:
        if not isinstance(value, kind):
            raise TypeError(f"Expected `{kind.__name__}`, but received `{type(value).__name__}` for the value.")

    def records(self: RecordDict) -> Any:
        view: Any = object.__new__(recorddict._SyncedDict)
        # What its __init__ does, without the checks and without a method of its own in it: that would be a cycle, and
        # keep the arrays of a round in memory until the next collection.
        view.__dict__.update(
            _check_key_fn=recorddict._check_key,
            _check_value_fn=check_value,
            _data={name: record for name, record in self.__dict__["_data"].items() if _is_of(record, kind)},
            recorddict=self,
            allowed_type=kind,
        )
        return view

    return records


def _is_of(record: Any, kind: type) -> bool:
    """isinstance, which takes long for what is not: these classes are abstract mappings."""
    found = type(record)
    return found is kind or (found not in KINDS and isinstance(record, kind))
