"""Whether a registry still holds what was put into it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fl.errors import CorruptFile
from fl.files import read_json, sync_folder
from fl.registry.aliases import alias_version, stack
from fl.registry.blobs import read_blob
from fl.registry.evidence import evidence_paths
from fl.registry.layout import ALIASES, blob_path, datasets_folder, locked, log_path, manifest_path, rounds, run_ids
from fl.registry.log import read_log, readable_entries, rewrite
from fl.registry.versions import Version, altered, lineage, parent_of, read_version


@dataclass(frozen=True)
class Problem:
    """``subject`` is the version, run or alias affected, ``path`` the file at fault, ``what`` says what is wrong."""

    subject: str
    path: str
    what: str

    @classmethod
    def of(cls, subject: str, error: CorruptFile) -> Problem:
        """The problem that an error tells of."""
        return cls(subject, error.path, error.why)


def verify_all(folder: Path) -> list[Problem]:
    """Check every manifest, parent, alias, evidence, data set and file of parameters. Reads the whole registry."""
    problems: list[Problem] = []
    versions: list[Version] = []
    for run_id in run_ids(folder):
        for round in rounds(folder, run_id):
            try:
                versions.append(read_version(folder, run_id, round))
            except CorruptFile as error:
                problems.append(Problem.of(f"{run_id}:{round}", error))
    problems += _altered(folder, versions)
    problems += _orphaned(folder, versions)
    problems += _parameters(folder, versions)
    problems += _evidence(folder, versions)
    problems += _dangling(folder)
    problems += _datasets(folder)
    return problems


def verify_version(folder: Path, version: Version) -> list[Problem]:
    """Check one version: its manifest, parameters and evidence, and the manifests of all that it came from."""
    try:
        line = lineage(folder, version)
    except CorruptFile as error:
        return [*_altered(folder, [version]), Problem.of(version.name, error), *_parameters(folder, [version])]
    return [*_altered(folder, line), *_parameters(folder, [version]), *_evidence(folder, [version])]


def sound_versions(folder: Path, run_id: str) -> tuple[list[Version], Problem | None]:
    """A run's versions from round 0 on, as far as manifests and log agree, and what is wrong with the next one."""
    entries = readable_entries(folder, run_id)
    found: list[Version] = []
    for round in rounds(folder, run_id):
        name, path = f"{run_id}:{round}", manifest_path(folder, run_id, round)
        try:
            version = read_version(folder, run_id, round)
        except CorruptFile as error:
            return found, Problem.of(name, error)
        if round != len(found):
            return found, Problem(f"{run_id}:{len(found)}", str(path.parent), f"round {len(found)} is missing")
        if (wrong := altered(folder, version, entries)) is not None:
            return found, Problem.of(name, wrong)
        found.append(version)
    return found, None


def forget_from(folder: Path, run_id: str, round: int) -> None:
    """Take the versions of a run from ``round`` on away, damaged as they may be, so that they can be made again.

    Raises CorruptFile if an alias names one of them.
    """
    with locked(folder):
        leaving = [r for r in rounds(folder, run_id) if r >= round]
        for alias in ALIASES:
            for name, _ in stack(folder, alias):
                if name in {f"{run_id}:{r}" for r in leaving}:
                    why = f"cannot be made again, because {alias} names {name}, or did"
                    raise CorruptFile(path=str(manifest_path(folder, run_id, leaving[0])), why=why)
        for one in reversed(leaving):
            manifest_path(folder, run_id, one).unlink()
        rewrite(folder, run_id, below=round)
        sync_folder(log_path(folder, run_id).parent)


def _altered(folder: Path, versions: Iterable[Version]) -> Iterator[Problem]:
    """Manifests that are not the ones their run's log remembers."""
    by_run: dict[str, list[Version]] = {}
    for version in versions:
        by_run.setdefault(version.run_id, []).append(version)
    for run_id, run in by_run.items():
        try:
            entries = read_log(folder, run_id).entries
        except CorruptFile as error:
            yield Problem.of(run_id, error)
            continue
        for version in run:
            if (wrong := altered(folder, version, entries)) is not None:
                yield Problem.of(version.name, wrong)


def _orphaned(folder: Path, versions: Iterable[Version]) -> Iterator[Problem]:
    for version in versions:
        try:
            parent_of(folder, version)
        except CorruptFile as error:
            yield Problem.of(version.name, error)


def _parameters(folder: Path, versions: Iterable[Version]) -> Iterator[Problem]:
    """Files of parameters that are missing or damaged, each told once, for the first version that has it."""
    first = {v.model_sha256: v for v in reversed(list(versions)) if not _was_pruned(folder, v)}
    for digest, version in reversed(first.items()):
        try:
            read_blob(folder, digest)
        except CorruptFile as error:
            yield Problem.of(version.name, error)


def _evidence(folder: Path, versions: Iterable[Version]) -> Iterator[Problem]:
    for version in versions:
        for path in evidence_paths(folder, version):
            try:
                read_json(path)
            except CorruptFile as error:
                yield Problem.of(version.name, error)


def _datasets(folder: Path) -> Iterator[Problem]:
    place = datasets_folder(folder)
    for path in sorted([*place.glob("*/*.json"), *place.glob("*/*/*.json")]):
        try:
            read_json(path)
        except CorruptFile as error:
            name, version, *_ = path.relative_to(place).with_suffix("").parts
            yield Problem.of(f"{name}@{version[:12]}", error)


def _was_pruned(folder: Path, version: Version) -> bool:
    if blob_path(folder, version.model_sha256).is_file():
        return False
    try:
        return version.round in read_log(folder, version.run_id).pruned
    except CorruptFile:
        return False


def _dangling(folder: Path) -> Iterator[Problem]:
    for alias in ALIASES:
        try:
            alias_version(folder, alias)
        except CorruptFile as error:
            yield Problem.of(alias, error)
