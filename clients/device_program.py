"""A real device as one program: answers its user, trains on its own data, joins a SuperLink's rounds.

    python device.pyz --data mine.csv --client 0 --clients 2 --home DIR --superlink HOST:PORT

Questions come from standard input, a JSON object a line, and each is answered in a line:

    {"id": 7, "rows": [[5.1, 3.5]]}
    {"id": 7, "predictions": [...], "version": "RUN:12", "round": 12, "model_sha256": "...", "personal": true}

``label`` beside ``rows`` says what was right, and counts as feedback. With --superlink a SuperNode is started beside,
which runs the ClientApp of whatever app the SuperLink runs; it works until it is stopped, also when nobody asks any
more. `fl devices build` puts this module, all that it imports, and a version of the global model into device.pyz.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from clients.machine import Home, Machine
from clients.own_data import take_in
from clients.received import Received
from fl.errors import BadInput, MeadowError
from fl.parameters import sha256
from fl.serving.on_device import Global
from fl.signature import Signature

ABOUT, PARAMETERS = "device.json", "parameters.safetensors"
LOOK_SECONDS = 0.3


def main(arguments: Sequence[str], *, archive: Path) -> int:
    """Run the device until it is stopped, or without --superlink until nobody asks any more; the exit status."""
    asked = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        return _run(asked, archive)
    except MeadowError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except SystemExit:  # by SIGTERM
        return 0
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="device.pyz", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="your examples: .npz with x and y, or .csv")
    parser.add_argument("--label", default="label", help="of a .csv file, the column to predict")
    parser.add_argument("--client", type=int, required=True, help="which of the clients this is, from 0")
    parser.add_argument("--clients", type=int, required=True, help="how many there are")
    parser.add_argument("--home", type=Path, required=True, help="the folder of this device: examples, models")
    parser.add_argument("--superlink", metavar="HOST:PORT", help="whose rounds to join; left out: none")
    parser.add_argument("--insecure", action="store_true", help="join without TLS")
    parser.add_argument("--root-certificates", type=Path, help="PEM, who vouches for the SuperLink")
    parser.add_argument("--node-port", type=int, default=0, help="a free port for the SuperNode's own use; 0 finds one")
    return parser


def _run(asked: argparse.Namespace, archive: Path) -> int:
    signature, built_in = _built_in(archive)
    home = Home(asked.home.resolve())
    home.folder.mkdir(parents=True, exist_ok=True)
    count = take_in(
        asked.data,
        home.partitions,
        client=asked.client,
        num_clients=asked.clients,
        signature=signature,
        label=asked.label,
    )
    machine = Machine(home, client=asked.client, signature=signature, built_in=built_in)
    print(f"client {asked.client} has {count} examples, and {built_in.version.name}", file=sys.stderr, flush=True)
    ended, told = threading.Event(), ""
    with _super_node(asked, home) as node:
        threading.Thread(target=_answer, args=(machine, ended), daemon=True).start()
        while not (ended.is_set() and node is None):
            if node is not None and (status := node.poll()) is not None:
                raise BadInput(key="--superlink", got=asked.superlink, allowed=f"one to join (exit status {status})")
            try:
                busy = machine.catch_up()
            except MeadowError as error:  # what it has goes on answering
                busy, before, told = False, told, str(error)
                if told != before:
                    print(f"no newer model: {told}", file=sys.stderr, flush=True)
            if not busy:
                time.sleep(LOOK_SECONDS)
    return 0


def _answer(machine: Machine, ended: threading.Event) -> None:
    """Answer line after line, until there are no more."""
    for line in sys.stdin:
        if not line.strip():
            continue
        try:
            answer = machine.answer(json.loads(line))
        except ValueError as error:
            answer = {"error": f"not JSON: {error}"}
        except MeadowError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)
    ended.set()


def _built_in(archive: Path) -> tuple[Signature, Received]:
    """The signature, the version and the settings that the archive brings."""
    from safetensors.numpy import load

    with zipfile.ZipFile(archive) as files:
        about, stored = json.loads(files.read(ABOUT)), load(files.read(PARAMETERS))
    parameters = {name: stored[name] for name in about["names"]}
    version = Global(int(about["round"]), str(about["version"]), sha256(parameters), parameters)
    return Signature.from_dict(about["signature"]), Received(version, about["settings"])


@contextmanager
def _super_node(asked: argparse.Namespace, home: Home) -> Iterator[subprocess.Popen[bytes] | None]:
    """A SuperNode in a process group of its own, which ends with the block; its log is in the device's folder."""
    if asked.superlink is None:
        yield None
        return
    program = shutil.which("flower-supernode", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        raise BadInput(key="--superlink", got=asked.superlink, allowed="nothing, or flwr installed: flower-supernode")
    config = {
        "partition-id": asked.client,
        "num-partitions": asked.clients,
        **{name: str(path) for name, path in _folders(home).items()},
    }
    words = [program, "--superlink", asked.superlink, "--port", str(asked.node_port or _free_port())]
    words += ["--insecure"] if asked.insecure else []
    words += ["--root-certificates", str(asked.root_certificates)] if asked.root_certificates else []
    words += ["--node-config", " ".join(f"{name}={json.dumps(value)}" for name, value in config.items())]
    with (home.folder / "supernode.log").open("ab") as log:
        node = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        yield node
    finally:
        _end(node)


def _folders(home: Home) -> dict[str, Path]:
    return {"partitions": home.partitions, "states": home.states, "received": home.received}


def _end(node: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(node.pid, number)
        with suppress(subprocess.TimeoutExpired):
            node.wait(timeout=5)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
