"""One TensorBoard event file that survives crashes: read what is whole, drop what is to be done again, append.

A run has a single event file, whatever number of times it is resumed, and no moment at which a reader finds a round
twice, or at which a crash loses one that is to be kept. TensorBoard's own reader reads it here too.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SourceMetadata
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub import errors
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

from fl import files
from server.tracking.checksum import crc32c, masked

PREFIX = "events.out.tfevents."


def read_events(path: Path) -> Iterator[Event]:
    """The events of a file in their order, up to its end or to the first record that is torn or fails its checksum."""
    if not path.exists():
        return
    reader = PyRecordReader_New(str(path))
    try:
        while True:
            reader.GetNext()
            yield Event.FromString(reader.record())
    except (errors.OutOfRangeError, errors.DataLossError):
        return
    finally:
        reader.file_handle.close()


def begin(folder: Path, *, keep: Callable[[Event], bool]) -> Path:
    """A new event file in ``folder``, in place of those of earlier tries: it holds their events that ``keep`` wants."""
    folder.mkdir(parents=True, exist_ok=True)
    earlier = sorted(folder.glob(f"{PREFIX}*"))
    # Made whole outside the folder, where TensorBoard does not look. What a crash left there is all that was kept.
    beside = folder.with_name(f"{folder.name}.rewritten")
    sources = [beside] if beside.exists() else earlier
    first = Event(wall_time=time.time(), file_version="brain.Event:2", source_metadata=SourceMetadata(writer="meadow"))
    kept = [event for source in sources for event in read_events(source) if keep(event)]
    files.write_bytes(beside, _records([first, *kept]), site="events.rewritten")
    for path in earlier:
        path.unlink()
    files.sync_folder(folder)
    # A new name each time: a TensorBoard that is running would go on reading the old file under the old one.
    path = folder / f"{PREFIX}{time.time_ns()}"
    beside.replace(path)
    files.sync_folder(folder)
    return path


def append(path: Path, values: Iterable[Summary.Value], *, step: int) -> None:
    """Add one event and hand it to the operating system: it outlives this process, though not a power cut."""
    event = Event(wall_time=time.time(), step=step, summary=Summary(value=values))
    files.append(path, _records([event]), site="events", durable=False)


def sync(path: Path) -> None:
    """Make what was appended durable."""
    with path.open("ab") as file:
        os.fsync(file.fileno())


def _records(events: Iterable[Event]) -> bytes:
    return b"".join(_record(event.SerializeToString()) for event in events)


def _record(content: bytes) -> bytes:
    """TFRecord's frame: the length in 8 bytes, its checksum in 4, the content, its checksum in 4; little-endian."""
    length = struct.pack("<Q", len(content))
    return b"".join((length, _checksum(length), content, _checksum(content)))


def _checksum(content: bytes) -> bytes:
    return struct.pack("<I", masked(crc32c(content)))
