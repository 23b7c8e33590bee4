"""The private partitions on disk, memory-mapped: one copy for all actors of a machine.

    store.json    signature, name, fingerprint, number of clients, and for overlapping views how they are drawn
    x.npy y.npy   examples, sorted by client and inside a client train | validation | test
    offsets.npy   num_clients + 1 positions in x and y            (absent for views)
    parts.npy     (num_clients, 3) sizes of the three parts       (absent for views)

For views, x and y hold three pools, train | validation | test, and a client draws its parts from them when it is read:
so no client's test example is another client's training example, and the number of clients costs nothing.

Only devices read this. The server imports ``fl.data.centre`` instead.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fl.data.dataset import Examples
from fl.data.partition.assignment import View, draw
from fl.errors import BadInput
from fl.faults import reach
from fl.files import FILES, check_files, read_json, save_arrays, storing, sync_folder, write_json
from fl.parameters import Array
from fl.signature import Signature

POOLS = ("train", "validation", "test")
# Where a part of a client lies in x and y: a slice, or rows.
_Place: TypeAlias = Any


@dataclass(frozen=True)
class Partition:
    """The private examples of one client."""

    client_id: int
    train: Examples
    validation: Examples
    test: Examples


@dataclass(frozen=True)
class PartitionStore:
    """An open store. Pickles as its folder, and is opened again where it arrives.

    parts   sizes (num_clients, 3) of train, validation and test; read-only
    """

    folder: Path
    name: str
    signature: Signature
    fingerprint: str
    num_clients: int
    x: Array
    y: Array
    parts: Array
    place: Callable[[int, int], _Place]

    def partition(self, client_id: int) -> Partition:
        """A client's examples: read-only slices of the mapped file, or for overlapping views a copy of the rows."""
        train, validation, test = (self._part(client_id, number) for number in range(len(POOLS)))
        return Partition(client_id, train, validation, test)

    def train(self, client_id: int) -> Examples:
        """A client's training part alone: of a view, the others' rows are neither drawn nor copied."""
        return self._part(client_id, 0)

    def num_train(self, client_id: int) -> int:
        """How many training examples a client has, without reading any."""
        self._check(client_id)
        return int(self.parts[client_id, 0])

    def _part(self, client_id: int, number: int) -> Examples:
        self._check(client_id)
        place = self.place(client_id, number)
        return Examples(self.x[place], self.y[place])

    def _check(self, client_id: int) -> None:
        if not 0 <= client_id < self.num_clients:
            raise BadInput(key="client_id", got=client_id, allowed=f"0 to {self.num_clients - 1}")

    def __reduce__(self) -> tuple[Any, ...]:
        return open_store, (self.folder,)


def write_store(
    folder: Path, *, x: Array, y: Array, parts: Array, signature: Signature, name: str, fingerprint: str
) -> None:
    """Write disjoint partitions: ``x`` and ``y`` in the store's order, ``parts`` (num_clients, 3) the sizes."""
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum(parts.sum(axis=1), out=offsets[1:])
    if offsets[-1] != len(x) or len(x) != len(y):
        raise ValueError(f"{len(x)} inputs, {len(y)} targets, but the parts add up to {offsets[-1]}")
    about = {"num_clients": len(parts), "view": None}
    arrays = {"x": x, "y": y, "offsets": offsets, "parts": parts.astype(np.int64)}
    _write(folder, arrays, about, signature, name, fingerprint)


def write_view_store(
    folder: Path,
    *,
    x: Array,
    y: Array,
    pools: Array,
    counts: Array,
    view: View,
    signature: Signature,
    name: str,
    fingerprint: str,
) -> None:
    """Write overlapping views. ``pools`` (3,) are the sizes of the pools in x; ``counts`` (3,) what a client draws."""
    if pools.sum() != len(x) or len(x) != len(y) or (counts > pools).any():
        raise ValueError(f"pools of {pools} and draws of {counts} do not fit {len(x)} inputs and {len(y)} targets")
    drawn = {"seed": view.seed, "pools": pools.tolist(), "counts": counts.tolist()}
    _write(folder, {"x": x, "y": y}, {"num_clients": view.num_clients, "view": drawn}, signature, name, fingerprint)


def open_store(folder: Path) -> PartitionStore:
    """Open a store: its files are held against their hashes (0.6 s a gigabyte), then mapped.

    Raises BadInput if there is none, CorruptFile if it is not what was written. What changes on the disk after that
    is not seen.
    """
    about = _about(folder)
    check_files(folder, about[FILES])
    num_clients, drawn = int(about["num_clients"]), about["view"]
    x, y = _mapped(folder / "x.npy"), _mapped(folder / "y.npy")
    if drawn is None:
        offsets, parts = _mapped(folder / "offsets.npy"), _mapped(folder / "parts.npy")
        place = _slices(offsets, parts)
    else:
        pools, counts = np.array(drawn["pools"]), np.array(drawn["counts"])
        parts = np.broadcast_to(counts, (num_clients, 3))
        place = _draws(pools, counts, int(drawn["seed"]))
    signature = Signature.from_dict(about["signature"])
    x = x.reshape(len(x), *signature.input_shape)
    return PartitionStore(folder, about["name"], signature, about["fingerprint"], num_clients, x, y, parts, place)


def stored_signature(folder: Path) -> Signature:
    """The signature of a store that stays closed."""
    return Signature.from_dict(_about(folder)["signature"])


def _about(folder: Path) -> dict[str, Any]:
    if not (folder / "store.json").is_file():
        raise BadInput(key="store", got=str(folder), allowed="a folder that holds a partition store")
    return read_json(folder / "store.json")


def _slices(offsets: Array, parts: Array) -> Callable[[int, int], _Place]:
    def place(client: int, part: int) -> slice:
        start = int(offsets[client]) + int(parts[client, :part].sum())
        return slice(start, start + int(parts[client, part]))

    return place


def _draws(pools: Array, counts: Array, seed: int) -> Callable[[int, int], _Place]:
    starts = np.cumsum(pools) - pools

    def place(client: int, part: int) -> Array:
        drawn: Array = starts[part] + draw(seed, client, POOLS[part], int(pools[part]), int(counts[part]))
        return drawn

    return place


def _write(
    folder: Path, arrays: dict[str, Array], about: dict[str, Any], signature: Signature, name: str, fingerprint: str
) -> None:
    """All files into a folder beside, which then takes the place of ``folder``."""
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    with storing(folder, site="partitions"):
        try:
            beside.mkdir(parents=True)
            hashes = save_arrays(beside, arrays)
            text = about | {"signature": signature.to_dict(), "name": name, "fingerprint": fingerprint, FILES: hashes}
            reach("partitions.written")
            write_json(beside / "store.json", text, site="partitions.about")
            if folder.exists():
                shutil.rmtree(folder)
            beside.rename(folder)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        reach("partitions.renamed")
        sync_folder(folder.parent)


def verify_store(folder: Path) -> None:
    """Raise CorruptFile unless every file of a store has the bytes that were written; reads all of them."""
    check_files(folder, read_json(folder / "store.json")[FILES])


def _mapped(path: Path) -> Array:
    """A read-only plain array over a mapped file; slices of ``np.memmap`` itself cost ten times as much."""
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
