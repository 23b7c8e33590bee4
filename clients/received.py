"""The newest global model that a server sent to this device, kept where the process that answers its user finds it.

A SuperNode runs the ClientApp in a process of its own. With ``received`` in its node config, a folder, that process
writes down what it was given:

    settings.json         the run, and its settings
    newest.safetensors    the parameters, their version's number, and the run
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import RecordDict

from fl import wire
from fl.arrays_file import read_arrays, write_arrays
from fl.files import make_parents, read_json, write_json
from fl.parameters import Array, Parameters, sha256
from fl.serving.on_device import Global

SETTINGS, NEWEST = "settings.json", "newest.safetensors"
NUMBER, RUN = "number of the version", "run"


@dataclass(frozen=True)
class Received:
    """A global model from a server: the version, and the settings of the run that it belongs to."""

    version: Global
    settings: Mapping[str, Any]


def note(folder: Path, kind: str, content: RecordDict, *, run: str, settings: Mapping[str, Any]) -> None:
    """Keep the global model in a message, if it is one that users are to have, and newer than what is there.

    A training task brings the version that the round starts from, an evaluation that is a use of the device the newest.
    """
    found = _version_in(kind, content)
    if found is None:
        return
    number, parameters = found
    if (folder / SETTINGS).is_file() and read_json(folder / SETTINGS)["run"] == run:
        if (folder / NEWEST).is_file() and int(read_arrays(folder / NEWEST)[NUMBER]) >= number:
            return
    else:
        make_parents(folder / SETTINGS)
        write_json(folder / SETTINGS, {"run": run, "settings": dict(settings)}, site="client_state")
    about: dict[str, Array] = {NUMBER: np.array(number), RUN: np.frombuffer(run.encode(), np.uint8)}
    write_arrays(folder / NEWEST, {**parameters, **about}, site="client_state")


def newest(folder: Path) -> Received | None:
    """What was noted last; None if nothing was, or it is just being written."""
    if not (folder / NEWEST).is_file():
        return None
    about, arrays = read_json(folder / SETTINGS), dict(read_arrays(folder / NEWEST))
    run, number = arrays.pop(RUN).tobytes().decode(), int(arrays.pop(NUMBER))
    if about["run"] != run:
        return None
    return Received(Global(number, f"{run}:{number}", sha256(arrays), arrays), about["settings"])


def _version_in(kind: str, content: RecordDict) -> tuple[int, Parameters] | None:
    if kind == "train":
        task, _ = wire.read_train_task(content)
        return task.version, task.parameters
    if kind == "evaluate":
        asked = wire.read_evaluate_task(content)
        return (asked.version, asked.parameters) if asked.personal and asked.own is None else None
    return None
