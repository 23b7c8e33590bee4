"""The systems that are compared: how each is started on a workload, and where it leaves what it did.

Ours is started as a user starts it, by `fl simulate`, with versions, metrics and TensorBoard on. The others run the
drivers beside this module, copied to a folder of their own, so that their interpreters find them and nothing else.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench import drivers
from experiments.bench.arrays import our_model
from experiments.bench.drivers import record
from experiments.bench.workloads import Workload
from experiments.engine import available_cores
from fl.errors import BadInput
from fl.parameters import Array

PACKAGE = drivers.__name__
FACTS = ("engine", "engine_reason", "num_actors", "training", "private_examples_read_by")
FLOOR, KEPT_FLOOR = "no framework", "no framework, rounds kept"
RAY_FLOOR, APP_FLOOR = "no framework, Ray", "no framework, the app's clients"
FL = (sys.executable, "-c", "from experiments.cli import main; main()")


@dataclass(frozen=True)
class Place:
    """Folders and files of one run of one system on one workload."""

    folder: Path
    data: Path
    start: Path
    drivers: Path

    @property
    def run_dir(self) -> Path:
        """Where `fl` puts its run."""
        return self.folder / "run"

    @property
    def registry(self) -> Path:
        """Where `fl` puts its versions."""
        return self.folder / "registry"

    @property
    def task(self) -> Path:
        """The driver's task."""
        return self.folder / "task.json"

    @property
    def output(self) -> Path:
        """What the driver leaves."""
        return self.folder / "record.npz"


@dataclass(frozen=True)
class Left:
    """What a run leaves: seconds of each round after the first, when the first ended (since the epoch), the model."""

    round_seconds: Sequence[float]
    first_ended: float
    parameters: Mapping[str, Array]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class System:
    """``name`` in the tables; the command that runs a workload, prepared in a place; and the reader of what it left."""

    name: str
    command: Callable[[Workload, Place], Sequence[str]]
    read: Callable[[Place], Left]
    environment: Callable[[Place], Mapping[str, str]]
    ours: bool = False


def ours(engine: str) -> System:
    """`fl simulate engine=...`."""
    return System(f"ours, {engine}", partial(_simulate, engine=engine), _read_run, _no_environment, ours=True)


def our_flower(engine: str) -> System:
    """The Flower app, unmodified, by `fl app run`."""
    name = f"ours, Flower app, {engine}"
    return System(name, partial(_app_run, engine=engine), _read_record, _task_named, ours=True)


def flower() -> System:
    """The same Flower app under Flower's own engine."""
    return System("flower", partial(_driver, python=sys.executable, module="flower_rounds"), _read_record, _alone)


def floors() -> list[System]:
    """The same rounds by hand, with nothing round them: what there is to reach on this machine.

    By forked processes; by those, with every round kept as ours are; by Ray's actors; and by processes in which each
    client trains as the Flower app's do.
    """
    by = partial(_driver, python=sys.executable)
    return [
        System(FLOOR, partial(by, module="floor_rounds"), _read_record, _alone),
        System(KEPT_FLOOR, partial(by, module="floor_rounds", arguments=("kept",)), _read_record, _alone),
        System(RAY_FLOOR, partial(by, module="floor_ray"), _read_record, _alone),
        System(APP_FLOOR, partial(by, module="floor_rounds", arguments=("app",)), _read_record, _alone),
    ]


def added_up(who: str) -> System:
    """A cohort's replies added up in our server, or in numpy."""
    name = {"ours": "ours, every reply kept", "numpy": "numpy"}[who]
    command = partial(_driver, python=sys.executable, module="added_up", arguments=(who,))
    return System(name, command, _read_record, _alone, ours=who == "ours")


def pfl(python: str) -> System:
    """pfl-research by an interpreter that has it, with as many processes as ours."""
    return System("pfl", partial(_pfl, python=python), _read_record, _alone)


def fedjax(python: str) -> System:
    """fedjax by an interpreter that has it, jitted, in one process: it knows no other way on a CPU."""
    return System("fedjax", partial(_driver, python=python, module="fedjax_rounds"), _read_record, _alone)


def processes(workload: Workload) -> int:
    """How many processes may train."""
    return workload.processes or available_cores()


def copy_drivers(folder: Path) -> Path:
    """A copy of the drivers that can be imported under their own name from ``folder``, and nothing else of ours."""
    target = folder.joinpath(*PACKAGE.split("."))
    shutil.copytree(Path(str(drivers.__file__)).parent, target, ignore=shutil.ignore_patterns("__pycache__"))
    for above in (target.parent, target.parent.parent):
        (above / "__init__.py").touch()
    return folder


def check_python(key: str, python: str | None, package: str) -> str | None:
    """The interpreter as an absolute path, or BadInput unless it is one that has ``package``."""
    if python is None:
        return None
    path = Path(python).expanduser().absolute()
    site = list(path.parent.parent.glob(f"lib*/python*/site-packages/{package}"))
    if not path.is_file() or not site:
        raise BadInput(key=key, got=python, allowed=f"the interpreter of an environment with the package {package}")
    return str(path)


def _simulate(workload: Workload, place: Place, *, engine: str) -> list[str]:
    """The data as they are, all of them for training; no evaluation between rounds, as none of the others has any."""
    views = ["dataset=mnist", "partition=iid", f"num_clients={workload.clients}"]
    task = "next_token" if workload.model == "lstm" else "classification"
    given = ["dataset=npz", f"dataset.path='{place.data}'", f"dataset.task={task}", "partition=natural"]
    actors = [] if engine == "inprocess" else [f"engine.num_actors={processes(workload)}"]
    return [
        *FL,
        "simulate",
        *(views if workload.views else given),
        f"model={our_model(workload)}",
        f"seed={workload.seed}",
        f"num_rounds={workload.rounds}",
        f"cohort_size={workload.cohort}",
        f"engine={engine}",
        *actors,
        "client=sgd",
        f"client.batch_size={workload.batch_size}",
        f"client.local_epochs={workload.epochs}",
        f"client.learning_rate={workload.learning_rate}",
        "client.schedule.name=constant",
        "server=random",
        "dataset.validation_fraction=0",
        "dataset.test_fraction=0",
        "evaluate_every=null",
        "evaluate_clients_every=null",
        f"run_dir='{place.run_dir}'",
        f"registry_dir='{place.registry}'",
    ]


def _app_run(workload: Workload, place: Place, *, engine: str) -> list[str]:
    _write_task(workload, place)
    client = "idle" if workload.model == record.NOTHING else "client"
    return [
        *FL,
        *("app", "run", str(place.drivers)),
        *("--server", f"{PACKAGE}.flower_app:server", "--client", f"{PACKAGE}.flower_app:{client}"),
        *("--num-clients", str(workload.clients), "--seed", str(workload.seed)),
        *("--engine", engine, "--num-actors", str(processes(workload))),
        *("--run-dir", str(place.run_dir), "--registry", str(place.registry)),
    ]


def _driver(workload: Workload, place: Place, *, python: str, module: str, arguments: Sequence[str] = ()) -> list[str]:
    _write_task(workload, place)
    return [python, "-m", f"{PACKAGE}.{module}", *arguments]


def _pfl(workload: Workload, place: Place, *, python: str) -> list[str]:
    _write_task(workload, place)
    count, module = processes(workload), ("-m", f"{PACKAGE}.pfl_rounds")
    together = ("-m", "torch.distributed.run", "--standalone", "--nnodes=1", f"--nproc_per_node={count}")
    return [python, *(together if count > 1 else ()), *module]


def _write_task(workload: Workload, place: Place) -> None:
    values = asdict(workload) | {"processes": processes(workload)}
    known = {name: value for name, value in values.items() if name in record.Task.__dataclass_fields__}
    task = record.Task(data=str(place.data), start=str(place.start), output=str(place.output), **known)
    place.task.write_text(json.dumps(asdict(task)))


def _no_environment(place: Place) -> dict[str, str]:
    return {}


def _task_named(place: Place) -> dict[str, str]:
    return {record.TASK: str(place.task)}


def _alone(place: Place) -> dict[str, str]:
    """The task, and the copied drivers where Python looks first."""
    return {record.TASK: str(place.task), "PYTHONPATH": str(place.drivers)}


def _read_record(place: Place) -> Left:
    with np.load(place.output) as held:
        ends = held[record.ROUND_ENDS]
        parameters = {
            name.removeprefix(record.PARAMETERS): held[name]
            for name in held.files
            if name.startswith(record.PARAMETERS)
        }
    return Left([float(s) for s in np.diff(ends)], float(ends[0]), parameters)


def _read_run(place: Place) -> Left:
    """A round's seconds as the run itself tells them; the first has ended when its version is durable."""
    from fl.registry import Registry

    lines = [json.loads(line) for line in (place.run_dir / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((place.run_dir / "summary.json").read_text())
    registry = Registry(place.registry)
    versions = {version.round: version for version in registry.versions()}
    return Left(
        [float(line["seconds"]["total"]) for line in lines if line["round"] > 1],
        versions[1].path.stat().st_mtime,
        registry.parameters(versions[max(versions)]),
        {name: summary.get(name) for name in (*FACTS, "seconds")},
    )
