"""Databases and brokers of a test's own: on a free port, in a folder of their own, ended by process id."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def port() -> int:
    """That nobody listens at."""
    return free_port()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of an empty PostgreSQL, which refuses to run as root."""
    pwd = pytest.importorskip("pwd")
    pytest.importorskip("psycopg")
    if missing := [name for name in ("initdb", "postgres", "setpriv") if not shutil.which(name)]:
        pytest.skip(f"no {missing[0]} is installed")
    try:
        user = pwd.getpwnam("postgres")
        folder = Path(tempfile.mkdtemp(prefix="meadow-postgres-", dir="/tmp"))
        shutil.chown(folder, user.pw_uid, user.pw_gid)
    except (KeyError, PermissionError):
        pytest.skip("PostgreSQL does not run as root, and this is not root or there is no user postgres")
    as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    try:
        made = [*as_user, "initdb", "-D", str(folder / "data"), "-A", "trust", "-U", "meadow", "--no-sync"]
        done = subprocess.run(made, capture_output=True, text=True, timeout=120, cwd=folder)
        if done.returncode:
            pytest.skip(f"initdb does not run here: {done.stderr.strip().splitlines()[-1]}")
        port = free_port()
        settings = [f"-cunix_socket_directories={folder}", "-clisten_addresses=127.0.0.1", f"-cport={port}"]
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(
                [*as_user, "postgres", "-D", str(folder / "data"), *settings], stdout=log, stderr=log, cwd=folder
            )
        try:
            wait_for(port, server, folder / "log")
            yield f"postgresql://meadow@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # at SIGTERM it would wait for every client, one that was killed included
            server.wait(timeout=30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        assert server.poll() is None, log.read_text()
        try:
            psycopg.connect(f"postgresql://meadow@127.0.0.1:{port}/postgres", connect_timeout=5).close()
        except psycopg.OperationalError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(log.read_text())
