"""How a foreign app's process begins: it dies with its parent, finds the app's modules, and does not find ours."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import logging
import os
import random  # noqa: F401  loaded before the app's folder is in front: an app may have a random.py
import signal
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

OURS = frozenset({"fl", "clients", "server", "conf", "experiments"})
ROOT = Path(__file__).resolve().parent.parent.parent
PR_SET_PDEATHSIG = 1
ROUTINE = ("configure_train", "configure_evaluate", "aggregate_train", "aggregate_evaluate", "_check_and_log_replies")
"""Functions of Flower's strategies that log every round what our own progress shows; an app's have the same names."""


class AppFinder:
    """Finds names that are ours too in the app's folder and the libraries, and nowhere else."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        """Importlib's hook. Raises ModuleNotFoundError, so that no later finder is asked, where the app has none."""
        if path is not None or name not in OURS:
            return None
        places = [place for place in sys.path if place == self.folder or Path(place or ".").resolve() != ROOT]
        spec = PathFinder.find_spec(name, places)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return spec


def begin(folder: str, *, parent: int | None) -> None:
    """Prepare this process for the app in ``folder``, to end when ``parent`` does; None: somebody else sees to that.

    Nothing looks for garbage from here on until ``loaded``: it would be looked for in what is being imported.
    """
    gc.disable()
    if parent is not None and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    sys.meta_path.insert(0, AppFinder(folder))
    if folder in sys.path:
        sys.path.remove(folder)
    sys.path.insert(0, folder)
    logging.getLogger("flwr").addFilter(_worth_saying)


def loaded() -> None:
    """What is there stays: garbage is looked for again, and no longer among that."""
    gc.freeze()
    gc.enable()


def identify(run_id: int, node_id: int) -> None:
    """Tell Flower which run this process serves: its messages read it from the process."""
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, run_id, node_id


def load_app(reference: str, folder: str, kind: type) -> Any:
    """The object that ``MODULE:OBJECT`` names. Raises what the app's modules raise, or TypeError for another kind."""
    from flwr.supercore.object_ref import load_app as load

    found = load(reference, ImportError, folder)
    if not isinstance(found, kind):
        raise TypeError(f"{reference} is a {type(found).__name__}, not a {kind.__name__}")
    return found


def seeds() -> ModuleType:
    """fl/seeds.py under a private name: the one module that touches the process-wide generators."""
    name = "_meadow_seeds"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "fl" / "seeds.py")
        assert spec and spec.loader, "it is beside this package"
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


def _worth_saying(record: logging.LogRecord) -> bool:
    if record.levelno > logging.INFO or record.funcName not in ROUTINE or "Received error" in str(record.msg):
        return True
    return not Path(record.pathname).is_relative_to(Path(sys.modules["flwr"].__file__ or "").parent)
