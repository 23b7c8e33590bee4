"""The registry as one object: a folder, and what can be done with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from fl.errors import BadInput, CorruptFile
from fl.parameters import Array, Parameters
from fl.registry import aliases, commits, difference, gate, integrity, names, retention, runs, versions
from fl.registry import datasets as catalogue
from fl.registry import evidence as evidences
from fl.registry.difference import Difference
from fl.registry.integrity import Problem
from fl.registry.layout import rounds, run_ids
from fl.registry.versions import Version


@final
class Registry:
    """Versions of global models in ``folder``, which the first writer makes; several processes may share it.

    Wherever a version is asked for, its name will do (see ``fl.registry.names``). A name that means nothing, or several
    things, raises BadInput with key ``version``; a file that does not hold what it should raises CorruptFile.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    @classmethod
    def existing(cls, folder: Path | str, *, key: str = "--registry") -> Registry:
        """The registry in ``folder``. Raises BadInput, with what to do about it, if no version is there."""
        if not any(rounds(Path(folder), run_id) for run_id in run_ids(Path(folder))):
            allowed = (
                "a folder with versions in it; `fl simulate` makes one, under outputs/registry if not told otherwise"
            )
            raise BadInput(key=key, got=str(folder), allowed=allowed)
        return cls(folder)

    # Runs

    def claim_run_id(self, name: str) -> str:
        """``name``, made fit for a file name, or with -2, -3 ... behind it: an id that no run here has or had."""
        return runs.claim_run_id(self.folder, name)

    def start_run(self, run_id: str, facts: Mapping[str, Any]) -> None:
        """Record the facts (JSON values; ``run_dir`` finds the run by its folder) of a run that starts or goes on."""
        runs.start_run(self.folder, run_id, facts)

    def finish_run(self, run_id: str, facts: Mapping[str, Any]) -> None:
        """Add the facts known at the end; ``status`` is "finished" unless they say otherwise."""
        runs.finish_run(self.folder, run_id, facts)

    def run(self, run_id: str) -> dict[str, Any]:
        """The facts of a run: run_id, status, created, finished and what was given. BadInput if unknown."""
        return runs.run(self.folder, run_id)

    def runs(self) -> list[dict[str, Any]]:
        """The facts of every run, oldest first."""
        return runs.list_runs(self.folder)

    def keep_examples(self, run_id: str, x: Array, y: Array) -> None:
        """Keep the first 256 of the server's held-out examples beside the run: inputs (n, ...), targets (n, ...)."""
        runs.keep_examples(self.folder, run_id, x, y)

    def examples(self, run_id: str) -> tuple[Array, Array] | None:
        """The examples kept by ``keep_examples``, None if there are none."""
        return runs.examples(self.folder, run_id)

    # Versions

    def commit(self, parameters: Parameters, fields: Mapping[str, Any], *, replace: bool = False) -> Version:
        """Make ``parameters`` a version, durably and at once: after a crash it is there whole or not at all.

        ``fields`` has at least ``run_id`` and ``round``. ``parent`` is a Version, a name or None; left out, it is the
        run's newest earlier round. Metrics that are not finite are recorded as null. Committing the same again, but for
        the time, changes nothing and returns the version that is there; something else under the same name raises
        BadInput, or takes its place with ``replace`` unless an alias or another version depends on it.
        """
        (version,) = commits.commit(self.folder, [(parameters, fields)], replace=replace)
        return version

    def commit_all(self, several: Sequence[tuple[Parameters, Mapping[str, Any]]]) -> list[Version]:
        """``commit`` of several, the later of which may come from the earlier ones; the disk is waited for together.

        After a crash the first of them are there, or all, or none. Raises before anything is written where one of them
        cannot be a version.
        """
        return commits.commit(self.folder, several, replace=False)

    def drop_after(self, run_id: str, round: int) -> list[Version]:
        """Forget the run's versions later than ``round``; returns them, newest first.

        Raises BadInput, and forgets none, if an alias or a version of another run depends on one of them.
        """
        return commits.drop_after(self.folder, run_id, round)

    def version(self, name: str | Version) -> Version:
        """The version that a name means, held against its run's log; a Version is returned as it is."""
        return name if isinstance(name, Version) else names.resolve(self.folder, name)

    def versions(self, run_id: str | None = None) -> list[Version]:
        """A run's versions by round, or those of all runs, run by run, the oldest run first."""
        return versions.list_versions(self.folder, run_id)

    def latest(self, run_id: str) -> Version | None:
        """A run's newest version, None before its first."""
        return versions.latest(self.folder, run_id)

    def best(self, run_id: str) -> Version | None:
        """A run's best version by its manifests' ``selection``, None before its first; the earliest of equals."""
        return versions.best(self.folder, run_id)

    def parameters(self, version: str | Version) -> Parameters:
        """The parameters, checked against their hash. BadInput if they were pruned."""
        return versions.load_parameters(self.folder, self.version(version))

    def lineage(self, version: str | Version) -> list[Version]:
        """The version, its parent, and so on back to the root, across runs."""
        return versions.lineage(self.folder, self.version(version))

    def diff(self, a: str | Version, b: str | Version) -> Difference:
        """What changed from ``a`` to ``b``. BadInput if the parameters of one were pruned."""
        return difference.diff(self.folder, self.version(a), self.version(b))

    # Evidence

    def attach(self, version: str | Version, name: str, evidence: Mapping[str, Any]) -> None:
        """Keep what is known of a version: JSON values under a name; in place of what had that name before."""
        evidences.attach(self.folder, self.version(version), name, evidence)

    def evidence(self, version: str | Version) -> dict[str, dict[str, Any]]:
        """Everything attached to a version, by name. Raises CorruptFile where it is not what was attached."""
        return evidences.evidence(self.folder, self.version(version))

    def run_evidence(self, version: str | Version) -> list[dict[str, dict[str, Any]]]:
        """The evidence of a version, then of every other of its run that has any, the newest first."""
        return gate.run_evidence(self.folder, self.version(version))

    # Data sets

    def record_dataset(
        self, name: str, fingerprint: str, facts: Mapping[str, Any], *, used_by: str | None = None
    ) -> str:
        """Record a data set by its content, and a version that was made from it, if any; returns its NAME@VERSION.

        ``parent`` is the content that was the newest of that name when it was recorded first.
        """
        return catalogue.record_dataset(self.folder, name, fingerprint, facts, used_by=used_by)

    def datasets(self) -> list[dict[str, Any]]:
        """Every recorded data set, oldest first: name, version, parent, created, used_by and what was given."""
        return catalogue.datasets(self.folder)

    def dataset(self, name: str) -> dict[str, Any]:
        """The data set called NAME, its newest, or NAME@VERSION. BadInput if there is none, or several."""
        return catalogue.dataset(self.folder, name)

    def attach_to_dataset(self, dataset: str, name: str, evidence: Mapping[str, Any]) -> None:
        """Keep what was found out about a recorded data set, NAME@VERSION; in place of what had that ``name``."""
        catalogue.attach(self.folder, dataset, name, evidence)

    def dataset_evidence(self, dataset: str) -> dict[str, dict[str, Any]]:
        """Everything attached to a data set, by name. Raises CorruptFile where it is not what was attached."""
        return catalogue.evidence(self.folder, dataset)

    # Aliases

    def aliases(self) -> dict[str, Version]:
        """The version of each alias that names one."""
        return aliases.current(self.folder)

    def alias_moves(self, alias: str) -> list[dict[str, Any]]:
        """Every move of an alias, oldest first: action, from, to, hash, when, by, reason."""
        return aliases.moves(self.folder, alias)

    def promote(
        self,
        version: str | Version,
        alias: str = "champion",
        *,
        reason: str = "",
        by: str = "",
        override: str | None = None,
    ) -> str | None:
        """Let ``alias`` name ``version``; returns the name of what it named before.

        Nothing is recorded if it names that already. Raises NotAccepted for a champion that has success criteria and
        was not accepted, unless ``override`` says why it is to be one all the same, which is kept as evidence; BadInput
        if there is no such alias, if the version's parameters were pruned, or if there is nothing to override.
        """
        return aliases.promote(self.folder, self.version(version), alias, reason=reason, by=by, override=override)

    def objections(self, version: str | Version) -> tuple[str, ...]:
        """What stands against a version as champion, in words: it was refused, or never held against its criteria."""
        return gate.refusals(self.folder, self.version(version))

    def rollback(self, alias: str = "champion", *, reason: str = "", by: str = "") -> Version:
        """Let ``alias`` name again what it named before, one promotion back each time. BadInput if there is none."""
        return aliases.rollback(self.folder, alias, reason=reason, by=by)

    def crown_if_vacant(self, run_id: str) -> Version | None:
        """Make the run's best version champion if there is none and nothing is against it; returns it, else None."""
        return aliases.crown_if_vacant(self.folder, run_id)

    # Upkeep

    def prune(self, run_id: str, keep: str) -> list[Version]:
        """Remove the parameters of the run's versions but ``all``, ``last:K`` or ``every:K``; returns those hit.

        Manifests stay, so that lineage stays whole. Version 0, best and latest of the run, what an alias names or could
        be rolled back to, and what another run came from keep their parameters. Reads the run's manifests and every
        run's log: about 0.1 ms a version of the run. BadInput with key ``server.keep_versions``.
        """
        return retention.prune(self.folder, run_id, keep)

    def sound_versions(self, run_id: str) -> tuple[list[Version], Problem | None]:
        """A run's versions from round 0 on, as far as they are what was committed, and what is wrong with the next."""
        return integrity.sound_versions(self.folder, run_id)

    def forget_from(self, run_id: str, round: int) -> None:
        """Take a run's versions from ``round`` on away, damaged or not. CorruptFile if an alias names one."""
        integrity.forget_from(self.folder, run_id, round)

    def verify(self, version: str | Version | None = None) -> list[Problem]:
        """What is wrong with a version and its lineage, or with the whole registry; empty if nothing is."""
        if version is None:
            return integrity.verify_all(self.folder)
        try:
            found = self.version(version)
        except CorruptFile as error:
            return [Problem.of(str(version), error)]
        return integrity.verify_version(self.folder, found)
