"""The server's own part of the data: a small public part, the held-out test set, and facts about the partition.

    centre.json                     signature, name, fingerprint, number of clients, facts
    public_x.npy public_y.npy       public examples, from which version 0 is trained; in no partition
    test_x.npy test_y.npy           the server's test set; in no partition
    partition.png                   the picture

The server imports this module. It imports nothing that can open a partition store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fl.data.dataset import Examples
from fl.errors import BadInput
from fl.faults import reach
from fl.files import FILES, check_files, read_json, save_arrays, storing, write_json
from fl.signature import Signature

PICTURE = "partition.png"


@dataclass(frozen=True)
class Centre:
    """What the server knows. ``facts`` is what ``fl data show`` prints: merged counts, never a client's own."""

    folder: Path
    name: str
    signature: Signature
    fingerprint: str
    num_clients: int
    public: Examples
    test: Examples
    facts: Mapping[str, Any]

    @property
    def picture(self) -> Path | None:
        """The picture of the partition, if there is one."""
        path = self.folder / PICTURE
        return path if path.is_file() else None


def write_centre(
    folder: Path,
    *,
    public: Examples,
    test: Examples,
    signature: Signature,
    name: str,
    fingerprint: str,
    num_clients: int,
    facts: Mapping[str, Any],
) -> None:
    """Write the server's part; ``centre.json`` last, so that a folder that has it is whole."""
    with storing(folder, site="centre"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "centre.json").unlink(missing_ok=True)
        hashes = save_arrays(folder, {"public_x": public.x, "public_y": public.y, "test_x": test.x, "test_y": test.y})
        reach("centre.written")
    about = {
        "signature": signature.to_dict(),
        "name": name,
        "fingerprint": fingerprint,
        "num_clients": num_clients,
        "facts": dict(facts),
        FILES: hashes,
    }
    write_json(folder / "centre.json", about, site="centre.about")


def verify_centre(folder: Path) -> None:
    """Raise CorruptFile unless every file of the server's part has the bytes that were written."""
    check_files(folder, read_json(folder / "centre.json")[FILES])


def open_centre(folder: Path) -> Centre:
    """Open the server's part: held against its hashes, then memory-mapped; ``x`` is (n, *input_shape).

    Raises BadInput if it is absent, CorruptFile if it is not what was written.
    """
    if not (folder / "centre.json").is_file():
        raise BadInput(key="centre", got=str(folder), allowed="a folder that holds the server's part of a data set")
    about = read_json(folder / "centre.json")
    check_files(folder, about[FILES])
    signature = Signature.from_dict(about["signature"])
    public, test = (_examples(folder, part, signature) for part in ("public", "test"))
    return Centre(
        folder, about["name"], signature, about["fingerprint"], about["num_clients"], public, test, about["facts"]
    )


def _examples(folder: Path, part: str, signature: Signature) -> Examples:
    x, y = (np.asarray(np.load(folder / f"{part}_{a}.npy", mmap_mode="r", allow_pickle=False)) for a in "xy")
    return Examples(x.reshape(len(x), *signature.input_shape), y)
