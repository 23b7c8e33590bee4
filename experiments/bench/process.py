"""A command in a process of its own, timed from its start, with the memory of everything that it starts."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

LOOK_SECONDS = 0.5
"""Between two looks at the memory: rare enough not to be felt on two cores."""

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ADDRESS": "local",  # never one that another run has on this machine
}
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


@dataclass(frozen=True)
class Ran:
    """How a command went.

    began          seconds since the epoch
    wall_seconds   from its start to its end
    peak_bytes     of all its processes together, memory that they share counted once, at the moment it was largest
    first_bytes    the most that its first process ever had resident
    """

    status: int
    began: float
    wall_seconds: float
    peak_bytes: int
    first_bytes: int


def run(command: Sequence[str], *, folder: Path, log: Path, environment: Mapping[str, str], timeout: float) -> Ran:
    """Run ``command`` in ``folder``, one thread a process, output to ``log``; after ``timeout`` seconds it is ended.

    Whatever it leaves running is ended too.
    """
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    seen: dict[int, psutil.Process] = {}
    peak = first = 0
    with log.open("wb") as output:
        began, clock = time.time(), time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**inherited, **QUIET, **ONE_THREAD, **environment},
        )
        root = psutil.Process(process.pid)
        try:
            while process.poll() is None:
                seen |= {one.pid: one for one in _family(root)}
                peak = max(peak, sum(_bytes(one) for one in seen.values()))
                first = max(first, _most_resident(process.pid))
                if time.perf_counter() - clock > timeout:
                    process.kill()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK_SECONDS)
            wall = time.perf_counter() - clock
        finally:
            _end([process, *seen.values()])
    return Ran(process.returncode, began, wall, max(peak, first), first)


def _family(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def _bytes(process: psutil.Process) -> int:
    """Resident bytes; what several processes map is shared out among them, where the system can tell."""
    try:
        info = process.memory_full_info()
    except psutil.Error:  # it has ended
        return 0
    return int(getattr(info, "pss", info.rss))


def _most_resident(pid: int) -> int:
    """The most bytes that a process has had resident so far; what it has now, where the system does not remember."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        try:
            return int(psutil.Process(pid).memory_info().rss)
        except psutil.Error:
            return 0


def _end(processes: Sequence[subprocess.Popen[bytes] | psutil.Process]) -> None:
    for one in processes:
        try:
            if one.poll() is None if isinstance(one, subprocess.Popen) else one.is_running():
                one.kill()
        except psutil.Error:  # it has just ended
            continue
    for one in processes:
        if isinstance(one, subprocess.Popen):
            one.wait()
