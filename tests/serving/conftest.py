"""Servers, databases and brokers of a test's own: on a free port, in a folder of their own, ended by process id."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from experiments.compose import compose
from experiments.run import simulate
from fl.registry import Registry

PLANTED = """
import os, time
from torch import nn
from fl.models import table_mlp

class Planted(nn.Sequential):
    fault = ""
    def forward(self, x):
        asked = bool((x.nan_to_num() != 0).any())  # not by the probe of zeros that every model has to pass
        if asked and self.fault == "exit":
            os._exit(3)
        while asked and self.fault == "hang":
            pass
        if asked and self.fault == "raise":
            raise ArithmeticError("planted")
        if asked and self.fault == "slow":
            time.sleep(0.1)
        return -super().forward(x) if self.fault == "worse" else super().forward(x)

def build(signature, *, fault, hidden=(32, 32), dropout=0.0):
    made = Planted(*table_mlp.build(signature, hidden=hidden, dropout=dropout).children())
    made.fault = fault
    return made
"""


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


@contextmanager
def _serving(folder: Path, *words: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`fl serve champion` of a registry: where it listens, and its process."""
    command = [sys.executable, "-c", "from experiments.cli import main; main()", "serve", "champion"]
    command += ["--registry", str(folder), "--port", "0", *words]
    (folder / "planted_model.py").write_text(PLANTED)
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url
        yield url, process
    finally:
        process.terminate()
        try:
            assert process.wait(timeout=20) in (0, -signal.SIGKILL)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


@pytest.fixture(scope="session")
def _heart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("releases")
    few = ("engine=inprocess", "num_rounds=2", "server.tensorboard=false")
    simulate(compose(["dataset=heart_disease", *few, f"run_dir={folder}/heart", f"registry_dir={folder}/registry"]))
    Registry(folder / "registry").promote("heart:1", reason="a test")
    return folder / "registry"


@pytest.fixture
def heart(_heart: Path, tmp_path: Path) -> Path:
    """A registry with a run `heart` of two rounds, the first of which is champion."""
    return Path(shutil.copytree(_heart, tmp_path / "registry"))


@pytest.fixture
def serving() -> Callable[..., AbstractContextManager[tuple[str, subprocess.Popen[str]]]]:
    return _serving


@pytest.fixture
def planted() -> Callable[[Path, str], str]:
    return _planted


def _planted(folder: Path, fault: str) -> str:
    """Commit the new version once more, as a model that has a fault; its name."""
    store = Registry(folder)
    sound = store.version("heart:2")
    keep = ("seed", "signature", "metrics", "dataset", "config")
    model = sound.manifest["model"]
    fields = {
        **{key: sound.manifest[key] for key in keep},
        "run_id": fault,
        "round": 0,
        "parent": None,
        "model": {**model, "target": "planted_model.build", "arguments": {**model["arguments"], "fault": fault}},
    }
    store.start_run(fault, {})
    return store.commit(store.parameters(sound), fields).name
