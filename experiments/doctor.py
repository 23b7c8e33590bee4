"""`fl doctor`: whether a run and its versions are what was written, and the places where faults can be planted.

Everything that a resumed run, an export or a person would read is read, and held against its hash. Outside of that are
times, TensorBoard's files, which have checksums of their own, and pictures.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.config_file import APP_CONFIG, CONFIG, read_config
from experiments.prepare import PREPARED
from experiments.printing import print_table
from experiments.run_folder import RUN
from fl import faults
from fl.errors import BadInput, CorruptFile
from fl.files import check_files, read_json

if TYPE_CHECKING:
    from fl.registry import Registry

SUMMARY = "summary.json"


def doctor(run_dir: Path, *, as_json: bool) -> int:
    """Print what is wrong with a run, and how it stands. Returns the exit status: 1 if anything is wrong."""
    if not any((run_dir / name).is_file() for name in (CONFIG, APP_CONFIG)):
        allowed = f"the folder of a run: one with a {CONFIG} or, of an app, {APP_CONFIG}"
        raise BadInput(key="RUN_DIR", got=str(run_dir), allowed=allowed)
    problems = [{"path": error.path, "what": error.why} for error in examine(run_dir)]
    if as_json:
        print(json.dumps({"run_dir": str(run_dir), "problems": problems}))
    elif problems:
        print_table(("file", "what is wrong"), [(p["path"], p["what"]) for p in problems])
    else:
        print(f"{run_dir}: nothing is wrong")
    if problems and not as_json:
        print(f"what can be made again is, by: fl resume {run_dir}", file=sys.stderr)
    return 1 if problems else 0


def show_fault_points(*, as_json: bool) -> None:
    """Print every fault point and what it means."""
    meanings = {point: _meaning(point) for point in faults.POINTS}
    if as_json:
        print(json.dumps(meanings))
        return
    print_table(("point", "what has happened there"), list(meanings.items()))
    print(f'{faults.VARIABLE}="POINT=kill" or "POINT#3=ENOSPC" (EIO, EACCES, EROFS) trips one, in any command.')


def examine(run_dir: Path) -> Iterator[CorruptFile]:
    """What is wrong with a run, or with one of a foreign app, a file at a time."""
    is_app = (run_dir / APP_CONFIG).is_file()
    config, error = _tried(lambda: read_config(run_dir, name=APP_CONFIG if is_app else CONFIG))
    if error:
        yield error
        return
    run, error = _tried(lambda: read_json(run_dir / RUN))
    yield from [error] if error else []
    yield from _data(run_dir)
    yield from _states(run_dir)
    if (run_dir / SUMMARY).is_file():
        _, error = _tried(lambda: read_json(run_dir / SUMMARY))
        yield from [error] if error else []
    if run is not None:
        from experiments.app_versions import state_path as state_of_app
        from fl.registry import Registry
        from server.history import state_path

        registry = Registry(config["registry" if is_app else "registry_dir"])
        yield from _versions(run_dir, registry, str(run["run_id"]), state_of_app if is_app else state_path)


def _data(run_dir: Path) -> Iterator[CorruptFile]:
    from fl.data.centre import verify_centre
    from fl.data.store import verify_store

    devices = run_dir / "devices"
    if not (run_dir / PREPARED).is_file():
        return  # never finished: it is made again
    checks = (
        lambda: read_json(run_dir / PREPARED),
        lambda: verify_centre(run_dir / "centre"),
        lambda: verify_store(devices / "partitions"),
    )
    for check in checks:
        _, error = _tried(check)
        yield from [error] if error else []


def _states(run_dir: Path) -> Iterator[CorruptFile]:
    from fl.arrays_file import read_arrays

    for path in sorted((run_dir / "devices" / "states").rglob("*.safetensors")):
        _, error = _tried(lambda path=path: read_arrays(path))
        yield from [error] if error else []


def _versions(
    run_dir: Path, registry: Registry, run_id: str, state_path: Callable[[Path, int], Path]
) -> Iterator[CorruptFile]:
    """The registry as a whole, since runs share blobs and aliases; the run's own strategy states and metrics."""
    for problem in registry.verify():
        yield CorruptFile(path=problem.path, why=problem.what)
    _, error = _tried(lambda: registry.run(run_id))
    yield from [error] if error else []
    _, error = _tried(lambda: registry.examples(run_id))
    yield from [error] if error else []
    versions, _ = registry.sound_versions(run_id)
    for version in versions:
        digest, path = version.manifest.get("strategy_state_sha256"), state_path(run_dir, version.round)
        if digest and path.is_file():
            _, error = _tried(lambda path=path, digest=digest: check_files(path.parent, {path.name: digest}))
            yield from [error] if error else []
    yield from _metrics(run_dir, versions)


def _metrics(run_dir: Path, versions: list[Any]) -> Iterator[CorruptFile]:
    """Each line against its version's manifest, but for the times."""
    from fl.signature import Signature
    from server.history import record_of
    from server.tracking.files import METRICS_FILE, read_rounds, round_line

    path = run_dir / METRICS_FILE
    try:
        lines = {line["round"]: line for line in read_rounds(path)}
    except (ValueError, KeyError, TypeError) as error:
        yield CorruptFile(path=str(path), why=f"not a line of JSON a round: {error}")
        return
    for version in versions:
        signature = version.manifest.get("signature")
        if signature is None or not lines:
            continue
        expected = round_line(record_of(version), Signature.from_dict(signature).task)
        found = lines.get(version.round, {})
        differing = [name for name in expected if name != "seconds" and expected[name] != found.get(name)]
        if differing:
            yield CorruptFile(path=str(path), why=f"round {version.round} is not what its version says: {differing[0]}")


def _tried(read: Any) -> tuple[Any, CorruptFile | None]:
    try:
        return read(), None
    except CorruptFile as error:
        return None, error
    except OSError as error:
        return None, CorruptFile(path=str(error.filename), why=error.strerror or str(error))


def _meaning(point: str) -> str:
    site, _, stage = point.rpartition(".")
    return f"{faults.SITES[site]}: {faults.STAGES[stage]}"
