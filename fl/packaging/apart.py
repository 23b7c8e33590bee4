"""Programs that run apart from this process: how a file is read by what is not ours."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

from fl.packaging.predict import Predict

SECONDS = 900.0
"""No reader may take longer."""


def run(command: Sequence[str | Path | int], given: bytes = b"") -> bytes:
    """What ``command`` prints when ``given`` is its input. Raises ValueError with its last words if it fails."""
    done = subprocess.run([str(word) for word in command], input=given, capture_output=True, timeout=SECONDS)
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise ValueError(f"{Path(str(command[0])).name} says: {last[:400]}")
    return done.stdout


def scratch() -> Path:
    """A new empty folder, for ``kept_with`` to remove."""
    return Path(tempfile.mkdtemp(prefix="meadow-"))


def kept_with(folder: Path, predict: Predict) -> None:
    """``folder`` goes when ``predict`` does."""
    weakref.finalize(predict, shutil.rmtree, folder, ignore_errors=True)
