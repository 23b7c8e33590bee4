"""Ray on this machine for one run: started quietly, closed to strangers, and gone when the run is.

Ray listens on every interface whatever it is told. So each run has a token of its own, without which nobody is let in.
Its processes outlive a driver that is killed by about a minute; a watcher (clients/watcher.py) ends them at once.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

MARK = "MEADOW_RAY"
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",  # at Ray's 15 the actors starve on a busy machine
}


class _State:
    """The watcher of the Ray that this process started, if it did."""

    watcher: subprocess.Popen[bytes] | None = None
    folder: str = ""


def prepare(address: str | None) -> None:
    """Set what Ray reads of the environment when it is imported, and never again: come before that.

    A Ray that is started here gets a token; a cluster at ``address`` has its own rules.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if address is None:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        if os.environ["RAY_AUTH_MODE"] == "token":
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def start_ray(num_cpus: int, address: str | None) -> None:
    """Start or join Ray, quietly: no dashboard, no usage report, no log lines of workers on the terminal.

    Who handles SIGTERM stays as it was; Ray would exit at once.
    """
    prepare(address)
    import ray

    terminate = signal.getsignal(signal.SIGTERM)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        mark = secrets.token_hex(16)
        _State.watcher = _start_watcher(f"{MARK}={mark}")
        os.environ[MARK] = mark
        try:
            ray.init("local", num_cpus=num_cpus, include_dashboard=False, **quiet)  # never one that lies about
        finally:
            del os.environ[MARK]
        _State.folder = str(ray._private.worker._global_node.get_session_dir_path())  # type: ignore[attr-defined]
        _tell(f"{_State.folder}\n")
    else:
        ray.init(address=address, **quiet)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)


def stop_ray() -> None:
    """Leave Ray; end it, and remove its logs, if this process started it."""
    import ray

    ray.shutdown()
    watcher, _State.watcher = _State.watcher, None
    if watcher is not None:
        shutil.rmtree(_State.folder, ignore_errors=True)
        _tell("done\n", watcher)
        _pipe(watcher).close()
        watcher.wait(timeout=30)


def _start_watcher(mark: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", str(Path(__file__).with_name("watcher.py")), mark],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _tell(line: str, watcher: subprocess.Popen[bytes] | None = None) -> None:
    watcher = watcher or _State.watcher
    if watcher is not None:
        pipe = _pipe(watcher)
        pipe.write(line.encode())
        pipe.flush()


def _pipe(watcher: subprocess.Popen[bytes]) -> IO[bytes]:
    assert watcher.stdin is not None, "it was opened"
    return watcher.stdin
