"""One run of a foreign Flower app: its ServerApp in a process, its ClientApp in others, and the driver between them.

RUN/app.yaml           what was asked for          RUN/devices/states/   what clients keep between messages
RUN/run.json           the run's id                RUN/state/            what the app needs to go on
RUN/metrics.jsonl, summary.json, tensorboard/      where the app uses Strategy.start
"""

from __future__ import annotations

import hashlib
import selectors
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from clients.foreign import SOON_SECONDS, ClientAppNotLoaded, Crew, Hand, process_hand
from clients.foreign_state import States
from clients.state import StateStore
from experiments.app_spec import AppSpec
from experiments.app_versions import Versions
from experiments.config_file import APP_CONFIG as SETTINGS
from experiments.config_file import read_config, write_config
from experiments.engine import available_cores
from experiments.run_folder import claimed_run_id, only_writer
from fl import interrupts
from fl.errors import AppFailed, BadInput, MeadowError
from fl.files import writable_folder
from fl.foreign import frames
from fl.foreign.frames import Frame
from fl.registry import Registry
from server.records import Observer

FIRST_NODE = 2
"""Flower keeps node ids 0 and 1 to itself; client 0 is node 2."""

SECONDS_TO_LEAVE = 10.0
"""What a ServerApp that is done has for its own exit handlers."""

ENGINES = ("auto", "inprocess", "ray")


@dataclass(frozen=True)
class Options:
    """How an app is run. ``num_actors`` None: one a core; ``max_reply_bytes`` None: as fl/foreign/refused.py says."""

    num_clients: int
    run_dir: Path
    registry_dir: Path
    seed: int = 1
    engine: str = "auto"
    num_actors: int | None = None
    address: str | None = None
    max_reply_bytes: int | None = None
    resume: bool = False


def run_app(app: AppSpec, options: Options) -> Path:
    """Run an app to its end; returns the run's folder.

    Raises BadInput before anything is trained, AppFailed where the ServerApp raises, Interrupted; then the summary is
    written.
    """
    began = time.time()
    _check(options)
    run_dir = writable_folder(options.run_dir.expanduser().resolve(), key="--run-dir")
    config = {
        "app": app.folder.name,
        "folder": str(app.folder),
        "serverapp": app.serverapp,
        "clientapp": app.clientapp,
        "num_clients": options.num_clients,
        "seed": options.seed,
        "run_config": dict(app.run_config),
        "registry": str(options.registry_dir.expanduser().resolve()),
        "max_reply_bytes": options.max_reply_bytes,
    }
    with only_writer(run_dir, key="--run-dir"), interrupts.handled():
        fresh = _settle(run_dir, config, resume=options.resume)
        try:
            _run(app, options, run_dir, config, began)
        except BadInput:
            if fresh:  # nothing has run: leave no half-made run behind
                (run_dir / SETTINGS).unlink(missing_ok=True)
            raise
    return run_dir


def resume_app(run_dir: Path) -> Path:
    """Go on behind the last version of the app's run in ``run_dir``, as it was started; returns the folder."""
    before = read_config(run_dir, name=SETTINGS)
    app = AppSpec(Path(before["folder"]), before["serverapp"], before["clientapp"], before["run_config"])
    options = Options(
        num_clients=before["num_clients"],
        run_dir=run_dir,
        registry_dir=Path(before["registry"]),
        seed=before["seed"],
        max_reply_bytes=before.get("max_reply_bytes"),
        resume=True,
    )
    return run_app(app, options)


def _check(options: Options) -> None:
    if options.engine not in ENGINES:
        raise BadInput(key="--engine", got=options.engine, allowed=", ".join(ENGINES))
    for key, got in (
        ("--num-clients", options.num_clients),
        ("--num-actors", options.num_actors),
        ("--max-reply-bytes", options.max_reply_bytes),
    ):
        if got is not None and got < 1:
            raise BadInput(key=key, got=got, allowed="at least 1")


def _settle(run_dir: Path, config: Mapping[str, Any], *, resume: bool) -> bool:
    """Write down what is run, or find that it is what was run before; True for a new run."""
    path = run_dir / SETTINGS
    if path.exists() != resume:
        allowed = f"a new folder; go on with: fl resume {run_dir}" if not resume else "a folder with a run"
        raise BadInput(key="--run-dir", got=str(run_dir), allowed=allowed)
    if not resume:
        write_config(run_dir, config, name=SETTINGS)
        return True
    before = read_config(run_dir, name=SETTINGS)
    for name, value in config.items():
        if before.get(name) != value:
            raise BadInput(key=f"--resume ({name})", got=value, allowed=f"{before.get(name)}, as the run began")
    return False


def _run(app: AppSpec, options: Options, run_dir: Path, config: Mapping[str, Any], began: float) -> None:
    registry = Registry(writable_folder(Path(config["registry"]), key="--registry"))
    setting = {
        "folder": str(app.folder),
        "serverapp": app.serverapp,
        "clientapp": app.clientapp,
        "run_id": int.from_bytes(hashlib.sha256(f"{app.folder.name}/{options.seed}".encode()).digest()[:7], "little"),
        "num_clients": options.num_clients,
        "first_node": FIRST_NODE,
        "seed": options.seed,
        "run_config": dict(app.run_config),
        "max_reply_bytes": options.max_reply_bytes,
    }
    states = States(StateStore(run_dir / "devices" / "states"))
    server = process_hand("server", setting)
    crew = engine = None
    try:
        engine = _engine(options, setting)
        crew = Crew(size=engine.size, hire=engine.hire, states=states)
        versions = Versions(
            registry=registry,
            run_id=claimed_run_id(run_dir, registry),
            run_dir=run_dir,
            config=config,
            engine=engine.name,
            states=states,
            observer=_observer(),
            began=began,
            extra={"engine_asked": options.engine, "num_actors": engine.size, "private_examples_read_by": "the app"},
        )
        resumed = versions.resume() if options.resume else None
        _loaded(server, crew)
        header, buffers = resumed or (None, [])
        frames.send(server.socket, {"op": "start", "resume": header}, buffers)
        _to_its_end(server, crew, versions)
        server.end(SECONDS_TO_LEAVE)
    finally:
        server.end(0.0)
        if crew is not None:
            crew.close()
        if engine is not None:
            engine.close()


@dataclass(frozen=True)
class _Engine:
    """What the clients run in, how many of them there are, how to start one, and what to end at last."""

    name: str
    size: int
    hire: Callable[[], Hand]
    close: Callable[[], None]


def _engine(options: Options, setting: Mapping[str, Any]) -> _Engine:
    size = min(options.num_actors or available_cores(), options.num_clients)
    if options.engine == "ray" or options.address:
        from clients.ray_session import prepare

        prepare(options.address)
        from clients.foreign_ray import RayHands

        hands = RayHands(size=size, setting=setting, address=options.address)
        return _Engine("ray", size, hands.hire, hands.close)
    if options.engine == "inprocess" and options.num_actors is None:
        size = 1
    return _Engine("inprocess", size, partial(process_hand, "client", setting), lambda: None)


def _observer() -> Observer:
    from server.tracking import fan_out, observers

    return fan_out(observers(terminal=sys.stderr.isatty(), tensorboard=True, default_registry=None))


def _loaded(server: Hand, crew: Crew) -> None:
    """Wait until both apps are loaded. Raises BadInput, having shown the app's own traceback, where one cannot be."""
    waiting = True
    with selectors.DefaultSelector() as selector:
        for source in (server.socket, *crew.sockets):
            selector.register(source, selectors.EVENT_READ, source)
        while waiting or not crew.ready:
            for key, _ in selector.select():
                if key.data is server.socket:
                    header, _ = _receive(server)
                    if header["op"] == "failed":
                        raise _not_loaded("serverapp", header["trace"])
                    waiting = False
                else:
                    try:
                        crew.read(key.data)
                    except ClientAppNotLoaded as failure:
                        raise _not_loaded("clientapp", str(failure)) from None


def _not_loaded(component: str, trace: str) -> BadInput:
    print(trace, file=sys.stderr, end="")
    lines = trace.strip().splitlines()
    return BadInput(key=component, got=lines[-1] if lines else "nothing", allowed="an app that loads, see above")


def _receive(server: Hand) -> Frame:
    try:
        return frames.receive(server.socket)
    except (EOFError, OSError):
        raise AppFailed(what="serverapp", why="its process ended unexpectedly") from None


def _to_its_end(server: Hand, crew: Crew, versions: Versions) -> None:
    """Carry messages between the ServerApp and its clients until the app is done; then, or before, the summary."""
    stopped: BaseException | None = None
    try:
        with interrupts.named():
            _serve(server, crew, versions)
    except (MeadowError, OSError) as failure:
        stopped = failure
    except ClientAppNotLoaded as failure:
        print(failure, file=sys.stderr, end="")
        stopped = AppFailed(what="clientapp", why="its process cannot be started again")
    versions.end(stopped, crew.counts)
    if stopped is not None:
        raise stopped


@dataclass
class _Phase:
    """How far the messages of a round have come."""

    round: int = 0
    kind: str = ""
    done: int = 0
    of: int = 0


def _serve(server: Hand, crew: Crew, versions: Versions) -> None:
    phase = _Phase()
    while True:
        with selectors.DefaultSelector() as selector:
            sources = crew.sockets
            for source in (server.socket, *sources):
                selector.register(source, selectors.EVENT_READ, source)
            while crew.sockets == sources:
                events = selector.select(SOON_SECONDS if crew.soon else crew.patience())
                for key, _ in events:
                    if key.data is not server.socket:
                        if key.data in crew.sockets:
                            crew.read(key.data)
                    elif _heard(_receive(server), crew, versions, phase):
                        return
                crew.relieve()
                if not (events and crew.soon):
                    _pass_on(server, crew, versions, phase)


def _heard(frame: Frame, crew: Crew, versions: Versions, phase: _Phase) -> bool:
    """Do what the ServerApp's process says; True when it is done."""
    header, buffers = frame
    match header["op"]:
        case "push":
            kind = str(header["jobs"][0]["meta"][3])
            if (header["round"], kind) != (phase.round, phase.kind) or phase.done == phase.of:
                phase.round, phase.kind, phase.done, phase.of = int(header["round"]), kind, 0, 0
            phase.of += len(header["jobs"])
            crew.submit(header, buffers)
        case "abandon":
            crew.abandon(header["ids"])
        case "begin":
            versions.begin(header, buffers)
        case "round":
            versions.round(header, buffers)
        case "done":
            return True
        case "failed":
            print(header["trace"], file=sys.stderr, end="")
            raise AppFailed(what="serverapp", why=header["error"])
    return False


def _pass_on(server: Hand, crew: Crew, versions: Versions, phase: _Phase) -> None:
    answers = crew.answers()
    if not answers:
        return
    phase.done += len(answers)
    replies = [{**header, "buffers": len(buffers)} for header, buffers in answers]
    try:
        frames.send(
            server.socket, {"op": "replies", "replies": replies}, [b for _, buffers in answers for b in buffers]
        )
    except OSError:
        return  # it is gone: that is seen when its socket is read
    if versions.started and phase.round:
        versions.observer.on_phase(phase.round, phase.kind, phase.done, phase.of)
