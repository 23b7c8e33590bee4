"""`fl devices build`: a version, and the device's side of this project, as one file that a real machine runs."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from fl.errors import BadInput
from fl.files import make_parents, write_bytes

PACKAGES = ("fl", "clients")
"""The device's side. The server's is not in it, and no data set is."""

SECTIONS = ("client", "model", "algorithm", "seed", "num_rounds", "unseen_clients")
"""Settings of the run that a device trains by; folders and what else says where it ran stay at home."""

MAIN = """import os
import sys
from pathlib import Path

from clients.device_program import main

if __name__ == "__main__":
    status = main(sys.argv[1:], archive=Path(sys.argv[0]))
    sys.stdout.flush()
    os._exit(status)  # a thread may be waiting for a line, and would hold Python up
"""


def build(name: str, *, registry: Path, output: Path) -> Path:
    """Write ``output``: the version called ``name`` and the code around it. The same version gives the same bytes.

    Raises BadInput where the version cannot be had, or its model is code of the user's own, which is not in it.
    """
    from safetensors.numpy import save

    from clients.device_program import ABOUT, PARAMETERS
    from fl.packaging.archive import write_zip
    from fl.parameters import copy
    from fl.registry import Registry

    store = Registry.existing(registry)
    version = store.version(name)
    settings = version.manifest["config"]
    target = str(version.manifest["model"]["target"])
    if not target.startswith("fl."):
        raise BadInput(key="version", got=f"{version.name}, made by {target}", allowed="a model of fl/models")
    parameters = store.parameters(version)
    about = {
        "version": version.name,
        "round": version.round,
        "hash": version.hash,
        "names": list(parameters),
        "signature": version.manifest["signature"],
        "settings": {**{key: settings[key] for key in SECTIONS if key in settings}, "server": _weighting(settings)},
    }
    files = {
        "__main__.py": MAIN.encode(),
        ABOUT: json.dumps(about, sort_keys=True).encode(),
        PARAMETERS: save(copy(parameters)),
        **dict(_sources()),
    }
    program = io.BytesIO()
    program.write(b"#!/usr/bin/env python3\n")
    write_zip(program, files)
    make_parents(output)
    write_bytes(output, program.getvalue(), site="export")
    output.chmod(0o755)
    return output


def _weighting(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"weighting": settings["server"].get("weighting", "examples")}


def _sources() -> Iterator[tuple[str, bytes]]:
    for package in PACKAGES:
        root = Path(str(resources.files(package)))
        for path in sorted(root.rglob("*.py")):
            yield f"{package}/{path.relative_to(root).as_posix()}", path.read_bytes()
