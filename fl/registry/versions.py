"""A version: the immutable global model after a round, as its manifest tells it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl.errors import BadInput, CorruptFile
from fl.parameters import Parameters
from fl.registry.blobs import read_blob
from fl.registry.layout import blob_path, log_path, manifest_path, rounds, run_ids
from fl.registry.log import Entry, read_log

DIRECTIONS = ("max", "min")
_NEEDED = {"run_id": str, "round": int, "name": str, "model_sha256": str, "created": str, "metrics": dict}


@dataclass(frozen=True)
class Version:
    """``name`` is RUN:ROUND, ``hash`` the SHA-256 of the manifest's bytes, ``path`` the manifest.

    ``manifest["parent"]`` is the hash of the version it came from, in this run or another, or None at the root.
    """

    name: str
    run_id: str
    round: int
    hash: str
    model_sha256: str
    manifest: dict[str, Any]
    path: Path

    @classmethod
    def made(cls, path: Path, manifest: dict[str, Any], content: bytes) -> Version:
        """The version of a sound ``manifest``, whose file at ``path`` has the bytes ``content``."""
        name, run_id, round, model = (manifest[key] for key in ("name", "run_id", "round", "model_sha256"))
        return cls(name, run_id, round, hashlib.sha256(content).hexdigest(), model, manifest, path)

    @property
    def metrics(self) -> dict[str, float | None]:
        """By name, as the server's test set gave them; None where a value was not finite."""
        return dict(self.manifest["metrics"])


_encoded = json.JSONEncoder(sort_keys=True, allow_nan=False).encode


def canonical(manifest: dict[str, Any]) -> bytes:
    """The bytes of a manifest's file: sorted JSON, which has no NaN, a line a field.

    Indenting all of it would read better, and take json's slow writer: half a millisecond a round.
    """
    lines = (f"{_encoded(name)}: {_encoded(manifest[name])}" for name in sorted(manifest))
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def as_version(path: Path, content: bytes) -> Version:
    """The version whose manifest at ``path`` has these bytes. Raises CorruptFile if they are no manifest."""
    try:
        manifest = json.loads(content)
    except ValueError as error:
        raise CorruptFile(path=str(path), why=f"not JSON: {error}") from error
    if not isinstance(manifest, dict) or not all(isinstance(manifest.get(k), kind) for k, kind in _NEEDED.items()):
        raise CorruptFile(path=str(path), why=f"not a manifest, which has at least {', '.join(_NEEDED)}")
    run_id, round = manifest["run_id"], manifest["round"]
    if (path.parent.name, path.stem) != (run_id, f"{round:06d}") or manifest["name"] != f"{run_id}:{round}":
        raise CorruptFile(path=str(path), why=f"the manifest says that it is {manifest['name']}")
    return Version.made(path, manifest, content)


def read_version(folder: Path, run_id: str, round: int) -> Version:
    """The version of one round. Raises FileNotFoundError, or CorruptFile if the manifest is not one of that round."""
    path = manifest_path(folder, run_id, round)
    return as_version(path, path.read_bytes())


def committed(folder: Path, run_id: str, wanted: Iterable[int]) -> list[Version]:
    """The versions of those rounds of a run that are there, held against its log.

    Raises CorruptFile for one that is not what was committed: its manifest may still read well.
    """
    found = [version for round in wanted if (version := _if_there(folder, run_id, round)) is not None]
    entries = read_log(folder, run_id).entries if found else {}  # after them: a line is there before its manifest
    sound = []
    for version in found:
        now: Version | None = version
        if altered(folder, version, entries) is not None:  # or made anew by another process since it was read
            now = _if_there(folder, run_id, version.round)
        if now is None:
            continue
        if (error := altered(folder, now, entries)) is not None:
            raise error
        sound.append(now)
    return sound


def altered(folder: Path, version: Version, entries: Mapping[int, Entry]) -> CorruptFile | None:
    """What is wrong with a version's manifest by the ``entries`` of its run's log."""
    entry = entries.get(version.round)
    if entry is None:
        return CorruptFile(
            path=str(log_path(folder, version.run_id)), why=f"does not know the round {version.round}, or is damaged"
        )
    if entry.hash != version.hash:
        return CorruptFile(path=str(version.path), why=f"altered: was committed as {entry.hash[:12]}...")
    return None


def _if_there(folder: Path, run_id: str, round: int) -> Version | None:
    try:
        return read_version(folder, run_id, round)
    except FileNotFoundError:  # dropped by another process since the folder was listed
        return None


def list_versions(folder: Path, run_id: str | None = None) -> list[Version]:
    """All versions of a run by round; or of every run, the run that began first in front. Opens every manifest."""
    ids = run_ids(folder) if run_id is None else [run_id]
    runs = [found for one in ids if (found := committed(folder, one, rounds(folder, one)))]
    return [v for run in sorted(runs, key=lambda run: (run[0].manifest["created"], run[0].run_id)) for v in run]


def latest(folder: Path, run_id: str) -> Version | None:
    """The newest version of a run, or None before its first commit."""
    newest_first = (committed(folder, run_id, [round]) for round in reversed(rounds(folder, run_id)))
    return next((found[0] for found in newest_first if found), None)


def best(folder: Path, run_id: str) -> Version | None:
    """The best version of a run, or None before its first commit; see ``best_of``."""
    return best_of(list_versions(folder, run_id))


def best_of(run: Sequence[Version]) -> Version | None:
    """The best of one run's versions by the metric and direction in the newest manifest's ``selection``.

    Rounds without that metric do not count, the earliest wins a tie, and where no round counts it is the newest.
    """
    if not run:
        return None
    selection = run[-1].manifest.get("selection") or {}
    metric, sign = selection.get("metric"), -1.0 if selection.get("direction") == "min" else 1.0
    scored = [(v, value) for v in run if (value := v.metrics.get(str(metric))) is not None]
    return max(scored, key=lambda pair: sign * pair[1])[0] if scored else run[-1]


def parent_of(folder: Path, version: Version) -> Version | None:
    """The version that ``version`` came from, None at the root. Raises CorruptFile if it is gone or another one."""
    digest, name = version.manifest.get("parent"), str(version.manifest.get("parent_name"))
    if digest is None:
        return None
    run_id, _, round = name.rpartition(":")
    try:
        parent = read_version(folder, run_id, int(round))
    except (ValueError, FileNotFoundError) as error:
        raise CorruptFile(path=str(version.path), why=f"comes from {name}, which is missing") from error
    if parent.hash != digest:
        raise CorruptFile(path=str(parent.path), why=f"is not what {version.name} came from ({digest[:12]}...)")
    return parent


def lineage(folder: Path, version: Version) -> list[Version]:
    """``version``, its parent, and so on back to the root, across runs. Raises CorruptFile where that breaks."""
    chain = [version]
    while (parent := parent_of(folder, chain[-1])) is not None:
        chain.append(parent)
    return chain


def is_kept(folder: Path, version: Version) -> bool:
    """Whether the parameters are there, or should be: pruning takes parameters away and leaves the manifest."""
    return version.round not in read_log(folder, version.run_id).pruned or (
        blob_path(folder, version.model_sha256).is_file()
    )


def check_kept(folder: Path, version: Version) -> None:
    """BadInput, naming what there is, if the parameters of ``version`` were pruned."""
    if not is_kept(folder, version):
        kept = [r for r in rounds(folder, version.run_id) if r not in read_log(folder, version.run_id).pruned]
        raise BadInput(
            key="version",
            got=f"{version.name}, whose parameters were pruned",
            allowed=f"a version that was kept; of {version.run_id} the rounds {', '.join(map(str, kept))}",
        )


def load_parameters(folder: Path, version: Version) -> Parameters:
    """The parameters of a version, verified. Raises BadInput if they were pruned, CorruptFile if they are damaged."""
    check_kept(folder, version)
    return read_blob(folder, version.model_sha256)
