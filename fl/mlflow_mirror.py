"""A registry mirrored into MLflow: runs, versions and aliases, for people who look there. Nothing is ever read back.

    run       -> a run of one experiment: settings as params, metrics by round, the data set as input, lineage as tags
    version   -> a version of one registered model, with name, hash, parent, metrics and what evidence found as tags
    alias     -> the same alias: champion, challenger

The registry stays the one truth: weights are not copied, a version's source is ``meadow://RUN/ROUND``. Mirroring again
adds what is new. Whatever a mirror cut short has left is found by its tags, and completed: every write has the time of
what it tells, so that telling it twice is telling it once.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from fl.errors import BadInput, MissingExtra
from fl.registry import Registry, Version

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

KEY = "--uri"
MEASURED = ("clients", "bytes", "seconds", "train_metrics", "personal")
"""Parts of a round's record whose numbers become metrics, as PART/NAME."""

STATUS = {"finished": "FINISHED", "stopped early": "FINISHED", "interrupted": "KILLED", "running": "RUNNING"}
MOST_METRICS, MOST_PARAMS, MOST_TAGS = 1000, 100, 100
"""What MLflow takes in one call."""

LONGEST_PARAM, LONGEST_TAG, LONGEST_DIGEST = 6000, 5000, 36
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
"""Nobody calls home, and a server that is not there is told within seconds; unless the environment says otherwise."""


@dataclass(frozen=True)
class Mirrored:
    """What was added: runs that are new, rounds of metrics, versions, and aliases that moved."""

    runs: int = 0
    rounds: int = 0
    versions: int = 0
    aliases: int = 0


def mirror(registry: Registry, *, uri: str, experiment: str, model: str) -> Mirrored:
    """Bring MLflow at ``uri`` (http://..., sqlite:///FILE ...) up to date with ``registry``.

    experiment   holds the runs;  model   the registered model whose versions are the registry's

    Some 10 to 30 ms a version that is new. Raises MissingExtra without MLflow; BadInput by ``--uri`` where it cannot be
    reached or the database is somebody else's, by ``--model`` where that is not of this registry.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    _check_database(uri)
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise MissingExtra(key="fl track mlflow", package="mlflow", extra="tracking") from error
    try:
        return _Mirror(registry, MlflowClient(tracking_uri=uri, registry_uri=uri), experiment, model).all()
    except MlflowException as error:
        why = _shown(str(error).partition("\n")[0])[:200]
        raise BadInput(key=KEY, got=_shown(uri), allowed=f"an MLflow that answers ({why})") from error


@final
class _Mirror:
    """One pass. ``runs`` and ``versions`` are what MLflow holds already: by key of the run, by hash of the version."""

    def __init__(self, registry: Registry, client: MlflowClient, experiment: str, model: str) -> None:
        self.registry, self.client, self.model = registry, client, model
        known = client.get_experiment_by_name(experiment)
        self.experiment = known.experiment_id if known else client.create_experiment(experiment)
        self.runs = {run.data.tags["meadow.key"]: run for run in self._pages(client.search_runs, [self.experiment])}
        self.versions = self._versions()
        self.added = dict.fromkeys(Mirrored.__dataclass_fields__, 0)

    def all(self) -> Mirrored:
        """Everything, the oldest run first; aliases last, when what they name is there."""
        for facts in self.registry.runs():
            versions = self.registry.versions(str(facts["run_id"]))
            if versions:
                run_id = self._run(facts, versions)
                for version in versions:
                    self._version(version, run_id)
        self._forgotten()
        self._aliases()
        return Mirrored(**self.added)

    # Runs

    def _run(self, facts: Mapping[str, Any], versions: Sequence[Version]) -> str:
        """The id of the MLflow run of a run, which is up to date then."""
        from mlflow.entities import Metric, RunTag

        key = f"{facts['run_id']} {facts['created']}"
        run = self.runs.get(key) or self._new_run(key, facts)
        tags, run_id = run.data.tags, str(run.info.run_id)
        if "meadow.round" not in tags:  # new, or cut short before that
            self._describe(run_id, versions[0])
        done = int(tags.get("meadow.round", -1))
        fresh = [version for version in versions if version.round > done]
        for some in _parts([m for v in fresh for m in _metrics(v, Metric)], MOST_METRICS):
            self.client.log_batch(run_id, metrics=some)
        told = {"meadow.round": str(versions[-1].round), "meadow.status": str(facts.get("status"))}
        best = self.registry.best(str(facts["run_id"]))
        told |= {"meadow.best": best.name} if best else {}
        changed = [RunTag(name, value) for name, value in told.items() if tags.get(name) != value]
        if changed:
            self.client.log_batch(run_id, tags=changed)
            status = STATUS.get(told["meadow.status"], "FAILED")
            ended = _milliseconds(facts["finished"]) if facts.get("finished") else None
            if status == "RUNNING":
                self.client.update_run(run_id, status=status)
            else:
                self.client.set_terminated(run_id, status, ended)
        self.added["rounds"] += len(fresh)
        return run_id

    def _new_run(self, key: str, facts: Mapping[str, Any]) -> Run:
        name, began = str(facts["run_id"]), _milliseconds(facts["created"])
        self.added["runs"] += 1
        tags = {"meadow.key": key, "meadow.run": name}
        return self.client.create_run(self.experiment, start_time=began, run_name=name, tags=tags)

    def _describe(self, run_id: str, first: Version) -> None:
        """Settings, data and lineage: what is the same in every version of a run."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag

        manifest = first.manifest
        params = [Param(k, v[:LONGEST_PARAM]) for k, v in _flat(manifest.get("config") or {})]
        for some in _parts(params, MOST_PARAMS):
            self.client.log_batch(run_id, params=some)
        code = manifest.get("code") or {}
        more = {
            "meadow.seed": manifest.get("seed"),
            "meadow.parent": manifest.get("parent_name"),
            "meadow.model": (manifest.get("model") or {}).get("target"),
            "meadow.dataset": (manifest.get("dataset") or {}).get("name"),
            "mlflow.source.git.commit": code.get("commit"),
            "meadow.code_dirty": code.get("dirty"),
        }
        self.client.log_batch(run_id, tags=[RunTag(k, str(v)) for k, v in more.items() if v is not None])
        if data := manifest.get("dataset"):
            digest = str(data.get("fingerprint"))
            source = json.dumps({"name": data.get("name"), "fingerprint": digest})
            kept = Dataset(str(data.get("name")), digest[:LONGEST_DIGEST], "meadow", source)
            self.client.log_inputs(run_id, [DatasetInput(kept, [InputTag("mlflow.data.context", "training")])])

    # Versions

    def _versions(self) -> dict[str, ModelVersion]:
        from mlflow.exceptions import MlflowException

        try:
            known = self.client.get_registered_model(self.model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self.client.create_registered_model(self.model, tags={"meadow": "a mirror of a Meadow registry"})
            return {}
        found = {
            version.tags.get("meadow.hash", ""): version
            for version in self._pages(self.client.search_model_versions, f"name='{self.model}'")
        }
        ours = {version.hash for version in self.registry.versions()}
        if "meadow" not in known.tags or "" in found or (found and not ours & found.keys()):
            allowed = "another name: this one holds models that are not of this registry"
            raise BadInput(key="--model", got=self.model, allowed=allowed)
        return found

    def _version(self, version: Version, run_id: str) -> None:
        attached = self.registry.evidence(version).items()
        evidence = {f"evidence.{name}": str(known["found"]) for name, known in attached if "found" in known}
        known = self.versions.get(version.hash)
        if known is None:
            manifest = version.manifest
            tags = {
                "meadow.version": version.name,
                "meadow.hash": version.hash,
                "meadow.model_sha256": version.model_sha256,
                "meadow.round": version.round,
                "meadow.created": manifest["created"],
                "meadow.parent": manifest.get("parent_name"),
                "meadow.parent_hash": manifest.get("parent"),
                "meadow.num_parameters": manifest.get("num_parameters"),
                **{f"metric.{name}": value for name, value in version.metrics.items()},
                **evidence,
            }
            self.versions[version.hash] = self.client.create_model_version(
                self.model,
                source=f"meadow://{version.run_id}/{version.round}",
                run_id=run_id,
                tags={k: str(v)[:LONGEST_TAG] for k, v in tags.items() if v is not None},
                description=version.name,
                await_creation_for=0,
            )
            self.added["versions"] += 1
            return
        for name, value in evidence.items():
            if known.tags.get(name) != value[:LONGEST_TAG]:
                self.client.set_model_version_tag(self.model, known.version, name, value[:LONGEST_TAG])

    def _forgotten(self) -> None:
        """Versions that the registry dropped, to do their rounds again, stay, and say so."""
        ours = {version.hash for version in self.registry.versions()}
        for digest, version in self.versions.items():
            if digest not in ours and "meadow.forgotten" not in version.tags:
                self.client.set_model_version_tag(self.model, version.version, "meadow.forgotten", "true")

    def _aliases(self) -> None:
        standing = dict(self.client.get_registered_model(self.model).aliases)
        named = {alias: self.versions.get(version.hash) for alias, version in self.registry.aliases().items()}
        # A round that was committed during this pass may have an alias already: it is for the next one.
        wanted = {alias: str(version.version) for alias, version in named.items() if version is not None}
        for alias, number in wanted.items():
            if str(standing.get(alias)) != number:
                self.client.set_registered_model_alias(self.model, alias, number)
                move = json.dumps(self.registry.alias_moves(alias)[-1])
                self.client.set_registered_model_tag(self.model, f"meadow.{alias}", move[:LONGEST_TAG])
                self.added["aliases"] += 1

    def _pages(self, search: Any, what: Any) -> Iterator[Any]:
        token = None
        while True:
            page = search(what, max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return


def _metrics(version: Version, kind: Any) -> Iterator[Any]:
    """The numbers of a round, with the time of its version."""
    record = version.manifest.get("record") or {}
    numbers: dict[str, Any] = dict(version.metrics)
    for part in MEASURED:
        numbers |= {f"{part}/{name}": value for name, value in (record.get(part) or {}).items()}
    for metric, points in (record.get("client_metrics") or {}).items():
        numbers |= {f"clients/{metric}/{name}": value for name, value in points.items()}
    when = _milliseconds(version.manifest["created"])
    for name, value in numbers.items():
        if isinstance(value, int | float):
            yield kind(name, float(value), when, version.round)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as dotted names and texts; MLflow takes no other letters in a name than these."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            yield re.sub(r"[^\w./: -]", "_", f"{prefix}{name}")[:250], text


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[i : i + size] for i in range(0, len(items), size))


def _milliseconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def _shown(uri: str) -> str:
    """A URL, or a text with URLs, without the passwords in them."""
    return re.sub(r"//([^/@:]*):[^@/]*@", r"//\1:***@", uri)


def _check_database(uri: str) -> None:
    """BadInput for a SQLite file of another program: Flower has a table ``alembic_version`` too, they would clash."""
    found = re.fullmatch(r"sqlite:///(?P<path>[^?]+)(?:\?.*)?", uri)
    if not found or not Path(found["path"]).is_file():
        return
    try:
        with closing(sqlite3.connect(f"file:{found['path']}?mode=ro", uri=True)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as error:
        raise BadInput(key=KEY, got=uri, allowed=f"a SQLite database ({error})") from error
    if tables and "experiments" not in tables:
        raise BadInput(key=KEY, got=uri, allowed="a database of MLflow's own: this one is another program's")
