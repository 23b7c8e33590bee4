"""Ends what a run's Ray left behind when the run itself was killed. A process of its own; standard library only.

    python -I watcher.py MARK       standard input: the other end of a pipe that the run holds

Every process that a run's Ray starts carries MARK in its environment, or has a log open in the session's folder, and no
other process does. When the pipe closes the run is gone, however it went: those are killed, and the folders that were
named on the pipe are removed. A run that ended Ray itself says so first, with the line ``done``.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

ROUNDS, SECONDS_BETWEEN = 20, 0.2
"""Processes that are being started while others are killed are found in a later round."""


def marked(mark: bytes, folders: list[str]) -> set[int]:
    """Processes of this user with ``mark`` in their environment or a file of ``folders`` open, and those they started.

    Some of Ray's write over their environment to change their title, and outlive the parent that had the mark.
    """
    found, parents = set(), {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError, IndexError, ValueError):
                pid = int(entry.name)
                parents[pid] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if mark in (entry / "environ").read_bytes() or has_open(entry / "fd", folders):
                    found.add(pid)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def has_open(descriptors: Path, folders: list[str]) -> bool:
    """Whether one of a process's descriptors is a file in one of ``folders``."""
    for descriptor in descriptors.iterdir():
        with suppress(OSError):
            if any(str(descriptor.readlink()).startswith(f"{folder}/") for folder in folders):
                return True
    return False


def watch(mark: str) -> None:
    """Wait for the end of the run, and clean up after it unless it did that itself."""
    lines = sys.stdin.read().splitlines()
    if "done" in lines:
        return
    for _ in range(ROUNDS):
        found = marked(mark.encode(), lines)
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            break
        time.sleep(SECONDS_BETWEEN)
    for folder in lines:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the run may be interrupted and still be there
    watch(sys.argv[1])
