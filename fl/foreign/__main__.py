"""Start a foreign app's process: ``python -P .../fl/foreign/__main__.py ROLE DESCRIPTOR``.

Loads this folder as a package under a private name, so that the app may have an ``fl`` of its own.
"""

from __future__ import annotations

import importlib
import importlib.util
import socket
import sys
from pathlib import Path
from types import ModuleType

PRIVATE_NAME = "_meadow_foreign"


def load(folder: Path, role: str) -> ModuleType:
    """The module ``role`` ("client" or "server") of the package in ``folder``, under the private name."""
    if PRIVATE_NAME not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            PRIVATE_NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec and spec.loader, "the folder holds a package"
        sys.modules[PRIVATE_NAME] = package = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(package)
    return importlib.import_module(f"{PRIVATE_NAME}.{role}")


if __name__ == "__main__":
    role, descriptor = sys.argv[1:]
    sys.argv = sys.argv[:1]
    for stream in (sys.stdout, sys.stderr):  # the driver ends this process by a signal: nothing may wait in a buffer
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    load(Path(__file__).resolve().parent, role).main(socket.socket(fileno=int(descriptor)))
